"""What can go wrong between us and a provider, as one tree.

SubmitterError
├── InputError               an option or argument cannot be used; nothing was sent
├── ConfigurationError       settings are missing or wrong; lists every mistake
└── ProviderError            the provider, or the way to it; says which task it is about
    ├── WrongInput           refused: the request is at fault, sending it again cannot help
    │   └── NotFoundAtProvider   the provider knows no such task
    ├── WrongAccount         refused: keys, balance, rights or address are at fault
    ├── TryLater             refused for now (after `retry_after` seconds, if it said so)
    ├── OutcomeUnknown       a create that may have been accepted: never send it again blindly
    ├── NeverReached         provably nothing arrived: it is safe to send it again
    └── UnexpectedAnswer     not an answer that this provider's protocol knows
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class SubmitterError(Exception):
    """Anything this package raises on purpose."""


class InputError(SubmitterError):
    """An option or argument cannot be used; `field` names it, as in `submit(human=…)`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class ConfigurationError(SubmitterError):
    """Settings are missing or wrong; `problems` holds one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class ProviderError(SubmitterError):
    """The provider refused, or could not be asked.

    `code` is the provider's own, `body` its answer as it came. `task_id` is ours, once the task
    is on record.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | None = None,
        http_status: int | None = None,
        request_id: str | None = None,
        body: bytes = b"",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.http_status = http_status
        self.request_id = request_id
        self.body = body
        self.task_id: str | None = None

    def about(self, task_id: str) -> Self:
        """This error, naming the task it is about."""
        self.task_id = task_id
        return self

    def __str__(self) -> str:
        return f"task {self.task_id}: {self.message}" if self.task_id else self.message


class WrongInput(ProviderError):
    """The request is at fault: change it before sending it again."""


class NotFoundAtProvider(WrongInput):
    """The provider knows no task by this id."""


class WrongAccount(ProviderError):
    """The keys, the balance, the rights or our address are at fault: no retry helps."""


class TryLater(ProviderError):
    """Not now; `retry_after` is in seconds, None if the provider did not say."""

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class OutcomeUnknown(ProviderError):
    """A create whose answer is lost: the task may exist, and may have been paid for."""


class NeverReached(ProviderError):
    """No connection was made: the provider provably knows nothing of it."""


class UnexpectedAnswer(ProviderError):
    """Not an answer of this provider's protocol: often a wrong base URL or a proxy between."""

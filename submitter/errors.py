"""The exceptions of this package, as one tree.

SubmitterError
├── InputError               an option or argument cannot be used; nothing was sent
├── ConfigurationError       settings are missing or invalid; lists all problems
├── AlreadySubmitted         `once`: a task has this reference already; nothing was sent
└── ProviderError            the provider failed or could not be reached; names the task
    ├── WrongInput           rejected: the request is at fault, so a retry cannot succeed
    │   └── NotFoundAtProvider   the provider has no such task
    ├── WrongAccount         rejected: the keys, balance, permissions or address are at fault
    ├── TryLater rejected temporarily; `retry_after` is the requested wait
    ├── OutcomeUnknown       a create that may have been accepted: never repeat it blindly
    ├── NeverReached         nothing was sent, so the request is safe to repeat
    └── UnexpectedAnswer     the response does not follow the provider's protocol
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self


class SubmitterError(Exception):
    """The base class of all errors that this package raises."""


class InputError(SubmitterError):
    """An option or argument cannot be used; `field` names it, as in `submit(human=…)`."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class ConfigurationError(SubmitterError):
    """Settings are missing or invalid; `problems` contains one line for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class AlreadySubmitted(SubmitterError):
    """A task with this reference was submitted before; its id is `task_id`. Nothing was sent."""

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id


class ProviderError(SubmitterError):
    """The provider rejected the request or could not be reached.

    `code` is the provider's error code and `body` its response, unchanged. `task_id` is the id
    of our task, or None if the task has not been recorded.
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
        """Set the id of the task that this error concerns, and return the error."""
        self.task_id = task_id
        return self

    def __str__(self) -> str:
        return f"task {self.task_id}: {self.message}" if self.task_id else self.message


class WrongInput(ProviderError):
    """The request is at fault: change it before you send it again."""


class NotFoundAtProvider(WrongInput):
    """The provider has no task with this id."""


class WrongAccount(ProviderError):
    """The keys, balance, permissions or network address are at fault: a retry does not help."""


class TryLater(ProviderError):
    """The provider rejected the request temporarily.

    `retry_after` is in seconds; it is None if the provider did not specify a wait.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, **facts: Any) -> None:
        super().__init__(message, **facts)
        self.retry_after = retry_after


class OutcomeUnknown(ProviderError):
    """The response to a create was lost: the task may exist, and may have been paid for."""


class NeverReached(ProviderError):
    """No connection was established, so the provider cannot have received the request."""


class UnexpectedAnswer(ProviderError):
    """The response does not follow the provider's protocol.

    Usually the base URL is wrong, or a proxy responded.
    """

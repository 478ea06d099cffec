"""What `POST /api/tasks` answers instead of a task, as one tree.

ApiRefusal
├── InvalidRequest    a field is at fault; `faults` names each
├── InvalidKey        the Idempotency-Key cannot be used
├── KeyReused         the key stands for another body
├── KeyBusy           the first request with this key is still under way
├── NotNow            nothing came of it: send it again after `retry_after` seconds
├── Refused           the provider did not take it
├── Unknown           it may have been accepted, and paid for
├── Unsettled         an earlier request with this key may have been; nothing was sent now
└── Overtaken         somebody else put the key's task on record first
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from submitter.errors import SubmitterError


class ApiRefusal(SubmitterError):
    """`members` stand in the problem document, `retry_after` (seconds) in a header."""

    def __init__(
        self,
        message: str,
        members: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.members = dict(members or {})
        self.retry_after = retry_after


class InvalidRequest(ApiRefusal):
    """The request is at fault; the message and `errors` name each field."""

    def __init__(self, faults: Mapping[str, str]) -> None:
        errors = [{"field": field, "detail": detail} for field, detail in sorted(faults.items())]
        lines = [f"{error['field']}: {error['detail']}" for error in errors]
        super().__init__("; ".join(lines), {"errors": errors})


class InvalidKey(InvalidRequest):
    """The Idempotency-Key is not 1 to 255 printable ASCII characters."""


class KeyReused(ApiRefusal):
    """The key was used for another body."""


class KeyBusy(ApiRefusal):
    """The first request with this key has not been answered yet."""


class NotNow(ApiRefusal):
    """Nothing was accepted: it is safe to send the same again."""


class Refused(ApiRefusal):
    """The provider did not take it; `members` hold its `code` and our `task`."""


class Unknown(ApiRefusal):
    """It may have been accepted: not to be sent again blindly; `members` hold our `task`."""


class Unsettled(ApiRefusal):
    """The outcome of the key's first request is unknown; `members` hold its `task`."""


class Overtaken(ApiRefusal):
    """Somebody else put the key's task on record first."""


STATUS: dict[type[Exception], HTTPStatus] = {
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidKey: HTTPStatus.BAD_REQUEST,
    KeyReused: HTTPStatus.CONFLICT,
    KeyBusy: HTTPStatus.CONFLICT,
    NotNow: HTTPStatus.SERVICE_UNAVAILABLE,
    Refused: HTTPStatus.BAD_GATEWAY,
    Unknown: HTTPStatus.BAD_GATEWAY,
    Unsettled: HTTPStatus.CONFLICT,
}

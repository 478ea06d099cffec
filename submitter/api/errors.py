"""The errors of `POST /api/tasks`, as one tree.

ApiError
├── InvalidRequest           a field is invalid; `errors` names each
│   └── InvalidKey           the Idempotency-Key cannot be used
├── KeyReused                the key was used with another body
├── KeyInUse                 the first request with this key is still in progress
├── ReferenceSubmitted       `once`: the reference was submitted before; nothing was sent
├── TemporarilyUnavailable   nothing was created: repeat the request after `retry_after` seconds
├── RejectedByProvider       the provider did not accept the task
│   └── RejectedPicture      because of a picture, such as a URL that it cannot fetch
├── CreateOutcomeUnknown     the task may have been accepted and paid for
├── EarlierOutcomeUnknown the same, for an earlier request with this key; nothing was sent now
├── TaskForgotten            the task of an earlier request with this key was erased
└── TaskAlreadyRecorded      another request has recorded the task of the key
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from submitter.errors import SubmitterError


class ApiError(SubmitterError):
    """`members` are added to the problem document; `retry_after` (seconds) becomes a header."""

    default_retry_after: float | None = None

    def __init__(
        self,
        message: str,
        members: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.members = dict(members or {})
        self.retry_after = retry_after or self.default_retry_after


class InvalidRequest(ApiError):
    """The request is invalid; the message and the member `errors` name each field."""

    def __init__(self, problems: Mapping[str, str]) -> None:
        errors = [{"field": field, "detail": detail} for field, detail in sorted(problems.items())]
        lines = [f"{error['field']}: {error['detail']}" for error in errors]
        super().__init__("; ".join(lines), {"errors": errors})


class InvalidKey(InvalidRequest):
    """The Idempotency-Key is not 1 to 255 printable ASCII characters."""


class KeyReused(ApiError):
    """The key was used with another body."""


class KeyInUse(ApiError):
    """The first request with this key is still in progress."""


class ReferenceSubmitted(ApiError):
    """The reference was submitted before; `members` contain the `task` that has it."""


class TemporarilyUnavailable(ApiError):
    """Nothing was created: the request is safe to repeat after `retry_after` seconds."""

    default_retry_after = 5.0


class RejectedByProvider(ApiError):
    """The provider did not accept the task; `members` contain its `code` and our `task`."""


class RejectedPicture(RejectedByProvider):
    """The provider did not accept a picture; `members` also contain `errors` with its field."""


class CreateOutcomeUnknown(ApiError):
    """The task may have been accepted: do not repeat blindly. `members` contain our `task`."""


class EarlierOutcomeUnknown(ApiError):
    """The outcome of the key's first request is unknown; `members` contain its `task`."""


class TaskForgotten(ApiError):
    """The data of the task that an earlier request with this key created was erased."""


class TaskAlreadyRecorded(ApiError):
    """Another request has recorded the task of the key."""


STATUS: dict[type[Exception], HTTPStatus] = {
    InvalidRequest: HTTPStatus.UNPROCESSABLE_ENTITY,
    InvalidKey: HTTPStatus.BAD_REQUEST,
    KeyReused: HTTPStatus.CONFLICT,
    KeyInUse: HTTPStatus.CONFLICT,
    ReferenceSubmitted: HTTPStatus.CONFLICT,
    TemporarilyUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    RejectedByProvider: HTTPStatus.BAD_GATEWAY,
    RejectedPicture: HTTPStatus.UNPROCESSABLE_ENTITY,
    CreateOutcomeUnknown: HTTPStatus.BAD_GATEWAY,
    EarlierOutcomeUnknown: HTTPStatus.CONFLICT,
    TaskForgotten: HTTPStatus.GONE,
}

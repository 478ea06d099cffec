"""The errors that the receiver raises, as one tree.

CallbackReceiverError
├── SettingsError            settings or the hooks file are wrong; lists every problem
├── RequestRefused           a callback that is rejected
│   ├── Unproven             nothing proves who sent it; names the kind of rejection
│   │   ├── UnknownCallbackUrl   no such provider, or a wrong token
│   │   └── BadSignature         signed, but not by the provider
│   ├── NotJson              the body is not JSON
│   ├── BodyTooLong          the body is too long after decompression
│   └── NotTheProtocol       JSON, but not the provider's callback protocol
├── StoreError
│   ├── StoreUnavailable     could not be stored now; says when to retry
│   │   └── StoreUnreachable  the database server accepts no connections yet; waiting may help
│   └── SchemaMismatch       the database requires `receiver migrate`, or newer code
├── CopyFailed               a copy failed or differs from its source; says what to do
├── NotErased                a task could not be erased completely now; says what to do
├── TooManyListeners         all places for listeners of a process are taken; says when to retry
├── NotFound                 no task, callback or delivery has this id
├── AmbiguousName            more than one task has this reference or part of an id; lists them
├── NotAMismatch             the message to accept names the provider task on record
└── DeliveryFailure          a hook failed; its kind decides about retries and the circuit breaker
    ├── TemporaryFailure     the endpoint is not available now: retried; the breaker counts it
    │   └── TimedOut         it did not answer within the hook's deadline
    ├── PermanentFailure     a retry cannot help: the delivery is dead
    │   ├── EndpointGone     the endpoint no longer exists: its hook is disabled
    │   └── RenderFailed     a template cannot be rendered for this event; nothing was sent
    └── ContentFailure       one event or result is unusable: retried; the breaker ignores it
        └── ResultGone       a URL does not return the result: the provider is queried again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CallbackReceiverError(Exception):
    """The base class of all errors that this package raises on purpose."""


class SettingsError(CallbackReceiverError):
    """Settings or the hooks file are wrong; `problems` has one line for each problem."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class RequestRefused(CallbackReceiverError):
    """A callback that is rejected."""


class Unproven(RequestRefused):
    """Nothing proves who sent the callback; rejections are counted by `kind`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnknownCallbackUrl(Unproven):
    """No such provider, or a wrong token; the response must not reveal which."""


class BadSignature(Unproven):
    """The provider's signature is claimed, but is wrong or too old."""


class NotJson(RequestRefused):
    """The body is not JSON that can be stored unchanged."""


class BodyTooLong(RequestRefused):
    """The decompressed body is longer than any callback."""


class NotTheProtocol(RequestRefused):
    """JSON, but not the provider's callback protocol; the message names each wrong field.

    `about` is the provider's id of the task, if that field is valid.
    """

    def __init__(self, message: str, about: str | None = None) -> None:
        super().__init__(message)
        self.about = about


class StoreError(CallbackReceiverError):
    """The database could not be read or written."""


class StoreUnavailable(StoreError):
    """The database cannot be used now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnreachable(StoreUnavailable):
    """The database server does not run, or does not accept connections at the moment.

    A process that starts waits for the server. Other reasons, such as a wrong password, require an
    operator.
    """


class SchemaMismatch(StoreError):
    """The schema of the database does not match this code; the message names the remedy."""


class CopyFailed(CallbackReceiverError):
    """A copy failed or differs from its source; the message says why, and what to do."""


class NotErased(CallbackReceiverError):
    """A task could not be erased completely now; the message says why, and what to do."""


class TooManyListeners(CallbackReceiverError):
    """The web process serves as many listeners and waiting requests as it may."""

    retry_after = 5.0  # seconds

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"this process already serves {limit} listeners and waiting requests, which is the "
            "limit; retry later"
        )


class NotFound(CallbackReceiverError):
    """No task, callback or delivery has this id."""


class AmbiguousName(CallbackReceiverError):
    """More than one task has this reference or part of an id; the message lists them in lines."""


class NotAMismatch(CallbackReceiverError):
    """The callback cannot be accepted, because it is not a mismatch; the text says what to do."""


class DeliveryFailure(CallbackReceiverError):
    """A hook failed; the message is stored with the attempt.

    `files` are the `receiver.deliveries.File`s that the hook stored before it failed. `timed_out`
    is true if an endpoint did not answer within the hook's deadline.
    """

    files: tuple[Any, ...] = ()
    timed_out = False


class TemporaryFailure(DeliveryFailure):
    """The endpoint did not answer, broke the connection, or is not available now.

    The delivery is retried after `retry_after` seconds or later, and the circuit breaker counts the
    failure.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TimedOut(TemporaryFailure):
    """The endpoint did not answer within the hook's deadline.

    Until another attempt of the hook ends in time, the hook may use only one worker slot.
    """

    timed_out = True


class PermanentFailure(DeliveryFailure):
    """A retry cannot help: the delivery is dead immediately."""


class EndpointGone(PermanentFailure):
    """The endpoint no longer exists: the hook is disabled until an operator resumes it."""


class RenderFailed(PermanentFailure):
    """A template cannot be rendered for this event; the message names the hook and the key.

    Nothing was sent, so the failure says nothing about the endpoint.
    """


class ContentFailure(DeliveryFailure):
    """One result or one event is unusable; the failure is no evidence about the endpoint.

    The delivery is retried after `retry_after` seconds or later. The circuit breaker ignores the
    failure.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ResultGone(ContentFailure):
    """A result's URL does not return the result: the provider is queried for a fresh URL."""

"""What can go wrong in the receiver, as one tree.

CallbackReceiverError
├── SettingsError            settings or the hooks file are wrong; lists every mistake
├── RequestRefused           a callback that is answered with a refusal
│   ├── Unproven             nothing proves who sent it; says of what kind
│   │   ├── UnknownCallbackUrl   no such provider, or the token is not ours
│   │   └── BadSignature         signed, but not by the provider
│   ├── NotJson              the body is not JSON
│   ├── BodyTooLong          the body is too long after decompression
│   └── NotTheProtocol       JSON, but not the provider's callback protocol
├── StoreError
│   ├── StoreUnavailable     could not be stored now; says when to try again
│   │   └── StoreUnreachable  the database server accepts no connections yet; waiting may help
│   └── SchemaMismatch       the database wants `receiver migrate`, or newer code
├── CopyFailed               the copy of a record is not what it should be; says what to do
├── NotErased                not all of a task could be forgotten now; says what to do
├── NotFound                 no task, callback or delivery has this id
├── NotAMismatch             the message to accept names the provider task on record
└── DeliveryFailure          a hook failed; its kind decides about retries and the circuit breaker
    ├── TemporaryFailure     the endpoint is not available now: retried; the breaker counts it
    │   └── TimedOut         it did not answer within the hook's deadline
    ├── PermanentFailure     a retry cannot help: the delivery is dead
    │   └── EndpointGone     the endpoint no longer exists: its hook is disabled
    └── ContentFailure       one event or result is unusable: retried; the breaker ignores it
        └── ResultGone       a URL does not return the result: the provider is queried again
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class CallbackReceiverError(Exception):
    """Anything this package raises on purpose."""


class SettingsError(CallbackReceiverError):
    """Settings or the hooks file are wrong; `problems` holds one line for each mistake."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


class RequestRefused(CallbackReceiverError):
    """A callback that is answered with a refusal."""


class Unproven(RequestRefused):
    """Nothing proves who sent it; `kind` is one of few words, by which they are counted."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class UnknownCallbackUrl(Unproven):
    """No such provider, or the token is not ours: nobody outside may tell which."""


class BadSignature(Unproven):
    """The request claims the provider's signature and does not have it, or has it too late."""


class NotJson(RequestRefused):
    """The body is not JSON that can be kept as it came."""


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
    """The record could not be read or written."""


class StoreUnavailable(StoreError):
    """The record cannot be written now; `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: int = 5) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StoreUnreachable(StoreUnavailable):
    """The database server does not run, or does not accept connections at the moment.

    A process that starts waits for it. Other reasons, such as a wrong password, need an operator.
    """


class SchemaMismatch(StoreError):
    """The database has another schema than this code; the message says what to run."""


class CopyFailed(CallbackReceiverError):
    """A record could not be copied, or is not the same; the message says why, and what to do."""


class NotErased(CallbackReceiverError):
    """Not all of a task could be forgotten now; the message says why, and what to do."""


class NotFound(CallbackReceiverError):
    """No task, callback or delivery has this id."""


class NotAMismatch(CallbackReceiverError):
    """The message cannot be accepted, because it is not a mismatch; the text says what to do."""


class DeliveryFailure(CallbackReceiverError):
    """A hook failed; the message is stored with the attempt.

    `files` are the `receiver.deliveries.File`s that the hook made before it failed. `timed_out` is
    true if an endpoint did not answer within the hook's deadline.
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

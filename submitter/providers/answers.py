"""What the answers of every provider have in common: what refusals, trouble and nonsense mean."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from submitter.client import Answer
from submitter.errors import (
    NotFoundAtProvider,
    OutcomeUnknown,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)


class Call(Enum):
    """What was asked: a lost create may have been accepted, a lost question costs nothing."""

    CREATE = auto()
    FETCH = auto()
    LIST = auto()


REFUSALS: dict[int, tuple[type[ProviderError], str]] = {
    HTTPStatus.UNAUTHORIZED: (WrongAccount, "check {keys}"),
    HTTPStatus.PAYMENT_REQUIRED: (WrongAccount, "the account is out of credit: top it up"),
    HTTPStatus.FORBIDDEN: (WrongAccount, "the account has no right to this: check {keys}"),
    HTTPStatus.NOT_FOUND: (WrongInput, "check --model and {address}"),
}


@dataclass(frozen=True, slots=True)
class Vendor:
    """How a provider is named to people, and what they are told to check."""

    name: str
    keys: str  # the settings that hold its keys
    address: str  # the settings that say where it is

    def refused(
        self, answer: Answer, call: Call, status: int, said: str, **facts: Any
    ) -> ProviderError:
        """What a refusal means where the HTTP status decides."""
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            later = f"{said}; too many requests or running tasks: try again later"
            return TryLater(later, retry_after=answer.retry_after, **facts)
        if status == HTTPStatus.NOT_FOUND and call is Call.FETCH:
            return NotFoundAtProvider(f"{said}; {self.name} knows no task by this id", **facts)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.trouble(answer, call, said, **facts)
        if status == HTTPStatus.REQUEST_TIMEOUT or status < HTTPStatus.BAD_REQUEST:
            return self.strange(answer, call, said, **facts)
        kind, advice = REFUSALS.get(status, (WrongInput, "correct the request"))
        return kind(f"{said}; {advice.format(keys=self.keys, address=self.address)}", **facts)

    def strange(self, answer: Answer, call: Call, what: str, **facts: Any) -> ProviderError:
        """Not the protocol: something before the API answered, a proxy or another server."""
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        said = f"HTTP {answer.status}, not an answer of {self.name}'s API ({what})"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.trouble(answer, call, said, **facts)
        is_refusal = answer.status >= HTTPStatus.MULTIPLE_CHOICES
        if call is Call.CREATE and (not is_refusal or answer.status == HTTPStatus.REQUEST_TIMEOUT):
            return OutcomeUnknown(said, **facts)
        return UnexpectedAnswer(f"{said}; check {self.address}", **facts)

    def trouble(self, answer: Answer, call: Call, said: str, **facts: Any) -> ProviderError:
        """The provider failed: its answer to a create leaves open whether it was accepted."""
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        if call is Call.CREATE:
            return OutcomeUnknown(said, **facts)
        return TryLater(f"{said}; try again later", retry_after=answer.retry_after, **facts)

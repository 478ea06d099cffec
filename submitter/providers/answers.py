"""Maps responses to errors, in the ways that are the same at every provider."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.fields import code_in
from receiver.providers.json_body import decode, repeated
from receiver.text import html_page
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
from submitter.text import readable


class Call(Enum):
    """The kind of a request. After a create without a clear response, a task may exist."""

    CREATE = auto()
    FETCH = auto()
    LIST = auto()


REJECTIONS: dict[int, tuple[type[ProviderError], str]] = {
    HTTPStatus.UNAUTHORIZED: (WrongAccount, "check {keys}"),
    HTTPStatus.PAYMENT_REQUIRED: (WrongAccount, "the account has no credit left: top it up"),
    HTTPStatus.FORBIDDEN: (WrongAccount, "the account is not allowed to do this: check {keys}"),
    HTTPStatus.NOT_FOUND: (WrongInput, "check --model and {address}"),
}


@dataclass(frozen=True, slots=True)
class Vendor:
    """The names that error messages use for a provider and its settings."""

    name: str
    keys: str  # the settings that contain its keys
    address: str  # the settings that contain its URL

    def error(
        self, answer: Answer, call: Call, status: int, message: str, **facts: Any
    ) -> ProviderError:
        """Return the error for a response of the provider's API, by its HTTP status.

        `message` is the provider's, with its name. `facts` are further attributes of the error.
        """
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        if status == HTTPStatus.TOO_MANY_REQUESTS:
            advice = f"{message}; too many requests or running tasks: retry later"
            return TryLater(advice, retry_after=answer.retry_after, **facts)
        if status == HTTPStatus.NOT_FOUND and call is Call.FETCH:
            return NotFoundAtProvider(f"{message}; {self.name} has no task with this id", **facts)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.server_error(answer, call, message, **facts)
        if status == HTTPStatus.REQUEST_TIMEOUT or status < HTTPStatus.BAD_REQUEST:
            return self.unexpected(answer, call, message, **facts)
        kind, advice = REJECTIONS.get(status, (WrongInput, "correct the request"))
        return kind(f"{message}; {advice.format(keys=self.keys, address=self.address)}", **facts)

    def document_of(self, answer: Answer, call: Call) -> tuple[int, dict[str, Any]]:
        """Return the code and the document of a response.

        For a body that is not a JSON object with one `code`, raises the corresponding error.
        """
        try:
            document = decode(answer.body)
        except RequestRefused as error:
            problem, body = str(error), answer.body.decode("utf-8", "replace")
            if html_page.is_page(body):
                problem = f"an HTML page: {readable(html_page.readable(body))}"
            raise self.unexpected(answer, call, problem) from None
        if {"code", "data"} & repeated(document):
            raise self.unexpected(answer, call, "`code` or `data` is repeated")
        code = code_in(document)
        if code is None:
            message = readable(document.get("message")) or "no `code` in it"
            raise self.unexpected(answer, call, message)
        return code, document

    def unexpected(self, answer: Answer, call: Call, problem: str, **facts: Any) -> ProviderError:
        """Return the error for a response that is not the API's, such as a proxy's page."""
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        message = f"HTTP {answer.status}, not a response of {self.name}'s API ({problem})"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return self.server_error(answer, call, message, **facts)
        is_rejection = answer.status >= HTTPStatus.MULTIPLE_CHOICES
        is_timeout = answer.status == HTTPStatus.REQUEST_TIMEOUT
        if call is Call.CREATE and (not is_rejection or is_timeout):
            return OutcomeUnknown(message, **facts)
        return UnexpectedAnswer(f"{message}; check {self.address}", **facts)

    def server_error(self, answer: Answer, call: Call, message: str, **facts: Any) -> ProviderError:
        """Return the error for a provider's failure, which an accepted create may precede."""
        facts = {"http_status": answer.status, "body": answer.body, **facts}
        if call is Call.CREATE:
            return OutcomeUnknown(message, **facts)
        return TryLater(f"{message}; retry later", retry_after=answer.retry_after, **facts)

    def other_task(self, answer: Answer, task_id: str) -> UnexpectedAnswer:
        """Return the error for a response about another task than the one that was queried."""
        message = f"{self.name} was queried for task {task_id} and described another one"
        return UnexpectedAnswer(message, http_status=answer.status, body=answer.body)

    def not_stored(self, external_task_id: str | None) -> NotFoundAtProvider:
        """Return the error for a query by our id at a provider that does not store it."""
        return NotFoundAtProvider(
            f"{self.name} does not store our ids: task {external_task_id} cannot be queried"
        )

"""What Kling's answers mean: its envelope, and each of its error codes as an exception.

Codes: Kling API reference, "error codes" (seen 2026-11).
"""

from __future__ import annotations

from enum import Enum, auto
from http import HTTPStatus
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.base import decode
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
from submitter.wording import readable


class Call(Enum):
    """What was asked: a lost create may have been accepted, a lost question costs nothing."""

    CREATE = auto()
    FETCH = auto()
    LIST = auto()


AUTHENTICATION = "check KLING_API_KEY, or KLING_ACCESS_KEY and KLING_SECRET_KEY"
CLOCK = "check this machine's clock, and the keys"
WRONG_ACCOUNT = {
    1000: AUTHENTICATION,
    1001: AUTHENTICATION,
    1002: AUTHENTICATION,
    1003: CLOCK,
    1004: CLOCK,
    1100: "the account is in an abnormal state: see Kling's console",
    1101: "the account is in arrears: top it up in Kling's console",
    1102: "the resource pack is used up or expired: buy one in Kling's console",
    1103: "the account has no right to this model or endpoint",
    1304: "this machine's address is not on the account's whitelist in Kling's console",
}
WRONG_INPUT = {
    1200: "correct the request",
    1201: "correct what the message names",
    1202: "this endpoint does not take the request; check KLING_BASE_URL",
    1203: "check --model",
    1300: "the input violates the platform's policy: use other pictures",
    1301: "the input violates the content-safety policy: use other pictures",
}
LATER = {
    1302: "requests come too fast; try again later",
    1303: "too many tasks are running; try again when some have ended",
}
TROUBLE = frozenset({5000, 5001, 5002})  # internal, maintenance, timeout
TOKEN_NOT_VALID_NOW = frozenset({1003, 1004})  # too early, expired
# How Kling answers to an unknown id is not documented. Our request is well formed, so each of
# these can only speak of the id.
NO_SUCH_TASK = frozenset({1201, 1203})


def data_of(answer: Answer, call: Call) -> Any:
    """What is in the envelope of a success. Raises what the answer means if it is none.

    The `code` decides, whatever the HTTP status says.
    """
    try:
        document = decode(answer.body)
    except RequestRefused as error:
        raise _strange(answer, call, str(error)) from None
    code = document.get("code")
    if type(code) is not int:
        raise _strange(answer, call, readable(document.get("message")) or "no `code` in it")
    if code:
        raise _refusal(answer, call, code, document)
    return document.get("data")


def _refusal(answer: Answer, call: Call, code: int, document: dict[str, Any]) -> ProviderError:
    request_id = readable(document.get("request_id")) or None
    said = f"Kling {code}: {readable(document.get('message')) or 'no message'}"
    facts: dict[str, Any] = {
        "code": code,
        "http_status": answer.status,
        "request_id": request_id,
        "body": answer.body,
    }
    if call is Call.FETCH and code in NO_SUCH_TASK:
        return NotFoundAtProvider(f"{said}; Kling knows no task by this id", **facts)
    if code in WRONG_INPUT:
        return WrongInput(f"{said}; {WRONG_INPUT[code]}", **facts)
    if code in WRONG_ACCOUNT:
        return WrongAccount(f"{said}; {WRONG_ACCOUNT[code]}", **facts)
    if code in LATER:
        return TryLater(f"{said}; {LATER[code]}", retry_after=answer.retry_after, **facts)
    if code in TROUBLE or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _trouble(answer, call, said, facts)
    return UnexpectedAnswer(f"{said} (a code that we do not know)", **facts)


def _strange(answer: Answer, call: Call, what: str) -> ProviderError:
    """No envelope: something before the API answered, such as a proxy or another server."""
    facts: dict[str, Any] = {"http_status": answer.status, "body": answer.body}
    said = f"HTTP {answer.status}, not Kling's envelope ({what})"
    if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return _trouble(answer, call, said, facts)
    is_refusal = answer.status >= HTTPStatus.MULTIPLE_CHOICES
    if call is Call.CREATE and (not is_refusal or answer.status == HTTPStatus.REQUEST_TIMEOUT):
        return OutcomeUnknown(said, **facts)
    return UnexpectedAnswer(f"{said}; check KLING_BASE_URL", **facts)


def _trouble(answer: Answer, call: Call, said: str, facts: dict[str, Any]) -> ProviderError:
    if call is Call.CREATE:
        return OutcomeUnknown(said, **facts)
    return TryLater(f"{said}; try again later", retry_after=answer.retry_after, **facts)

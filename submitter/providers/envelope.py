"""The envelope of Kling's answers, each error code of it as an exception, and whose task is told.

Resellers pass it on. Codes: Kling API reference, "error codes" (seen 2026-11).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.base import decode, repeated
from receiver.providers.fields import code_in, identity
from submitter.client import Answer
from submitter.errors import (
    NotFoundAtProvider,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.providers.answers import Call, Vendor
from submitter.text import readable

AUTHENTICATION = "check {keys}"
CLOCK = "check this machine's clock, and the keys"
WRONG_ACCOUNT = {
    1000: AUTHENTICATION,
    1001: AUTHENTICATION,
    1002: AUTHENTICATION,
    1003: CLOCK,
    1004: CLOCK,
    1100: "the account is in an abnormal state: see {name}'s console",
    1101: "the account is in arrears: top it up in {name}'s console",
    1102: "the resource pack is used up or expired: buy one in {name}'s console",
    1103: "the account has no right to this model or endpoint",
    1304: "this machine's address is not on the account's whitelist in {name}'s console",
}
WRONG_INPUT = {
    1200: "correct the request",
    1201: "correct what the message names",
    1202: "this endpoint does not take the request; check {address}",
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


def data_of(vendor: Vendor, answer: Answer, call: Call) -> Any:
    """What is in the envelope of a success. Raises what the answer means if it is none.

    The `code` decides, whatever the HTTP status says.
    """
    try:
        document = decode(answer.body)
    except RequestRefused as error:
        raise vendor.strange(answer, call, str(error)) from None
    code = code_in(document)
    if {"code", "data"} & repeated(document):
        raise vendor.strange(answer, call, "`code` or `data` is repeated")
    if code is None:
        words = readable(document.get("message")) or "no `code` in it"
        raise vendor.strange(answer, call, words)
    if code:
        raise _refusal(vendor, answer, call, code, document)
    return document.get("data")


def tasks_in(data: object) -> list[dict[str, Any]]:
    """The tasks that `data` holds; some single queries answered a list of one."""
    return [task for task in (data if isinstance(data, list) else [data]) if isinstance(task, dict)]


def ids(task: dict[str, Any]) -> tuple[object, object]:
    """The provider's id of a task, which may be written as an integer, and ours."""
    info = task.get("task_info")
    return identity(task.get("task_id")), info.get("external_task_id") if isinstance(
        info, dict
    ) else None


def check_it_is_about(
    vendor: Vendor,
    answer: Answer,
    data: object,
    provider_task_id: str | None,
    external_task_id: str | None = None,
) -> None:
    """Is it the task that was asked for, as far as it says? Raises UnexpectedAnswer if not."""
    told = [ids(task) for task in tasks_in(data)]
    if len(told) != 1:
        return  # its form is judged by the receiver, which keeps what it cannot understand
    told_id, told_external = told[0]
    expected = provider_task_id or external_task_id
    if provider_task_id:
        is_it = told_id == provider_task_id
    else:
        is_it = told_external in (None, "", external_task_id)
    if not is_it:
        raise UnexpectedAnswer(
            f"{vendor.name} was asked for task {expected} and told of another", body=answer.body
        )


def _refusal(
    vendor: Vendor, answer: Answer, call: Call, code: int, document: dict[str, Any]
) -> ProviderError:
    said = f"{vendor.name} {code}: {readable(document.get('message')) or 'no message'}"
    facts: dict[str, Any] = {
        "code": code,
        "http_status": answer.status,
        "request_id": readable(document.get("request_id")) or None,
        "body": answer.body,
    }
    names = {"name": vendor.name, "keys": vendor.keys, "address": vendor.address}
    if call is Call.FETCH and code in NO_SUCH_TASK:
        return NotFoundAtProvider(f"{said}; {vendor.name} knows no task by this id", **facts)
    if code in WRONG_INPUT:
        return WrongInput(f"{said}; {WRONG_INPUT[code].format(**names)}", **facts)
    if code in WRONG_ACCOUNT:
        return WrongAccount(f"{said}; {WRONG_ACCOUNT[code].format(**names)}", **facts)
    if code in LATER:
        return TryLater(f"{said}; {LATER[code]}", retry_after=answer.retry_after, **facts)
    if code in TROUBLE or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return vendor.trouble(answer, call, said, **facts)
    return UnexpectedAnswer(f"{said} (a code that we do not know)", **facts)

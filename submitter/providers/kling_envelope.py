"""The envelope of Kling's responses, which resellers use too: its data and its error codes.

Codes: Kling API reference, "error codes" (seen 2026-11).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from receiver.providers.fields import identity
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

REJECTIONS: dict[int, tuple[type[ProviderError], str]] = {
    **dict.fromkeys((1000, 1001, 1002), (WrongAccount, "check {keys}")),
    **dict.fromkeys((1003, 1004), (WrongAccount, "check this machine's clock, and the keys")),
    1100: (WrongAccount, "the account is in an abnormal state: see {name}'s console"),
    1101: (WrongAccount, "the account is in arrears: top it up in {name}'s console"),
    1102: (WrongAccount, "the resource pack is used up or expired: buy one in {name}'s console"),
    1103: (WrongAccount, "the account has no right to this model or endpoint"),
    1200: (WrongInput, "correct the request"),
    1201: (WrongInput, "correct the problem that the message names"),
    1202: (WrongInput, "this endpoint does not support the request; check {address}"),
    1203: (WrongInput, "check --model"),
    1300: (WrongInput, "the input violates the platform's policy: use other pictures"),
    1301: (WrongInput, "the input violates the content-safety policy: use other pictures"),
    1302: (TryLater, "too many requests; retry later"),
    1303: (TryLater, "too many tasks are running; retry when some have ended"),
    1304: (
        WrongAccount,
        "this machine's address is not on the account's whitelist in {name}'s console",
    ),
}
SERVER_ERROR = frozenset({5000, 5001, 5002})  # internal, maintenance, timeout
TOKEN_NOT_VALID_NOW = frozenset({1003, 1004})  # too early, expired
# Kling's response to an unknown id is not documented. Our request is well formed, so each of these
# codes can only refer to the id.
NO_SUCH_TASK = frozenset({1201, 1203})


def data_of(vendor: Vendor, answer: Answer, call: Call) -> Any:
    """Return the data of a successful response; for any other one, raise the corresponding error.

    The `code` decides, whatever the HTTP status is.
    """
    code, document = vendor.document_of(answer, call)
    if code:
        raise _error(vendor, answer, call, code, document)
    return document.get("data")


def ids(task: dict[str, Any]) -> tuple[str | None, object]:
    """Return the provider's id of a task, and ours."""
    info = task.get("task_info")
    external_task_id = info.get("external_task_id") if isinstance(info, dict) else None
    return identity(task.get("task_id")), external_task_id


def check_identity(
    vendor: Vendor,
    answer: Answer,
    data: object,
    provider_task_id: str | None,
    external_task_id: str | None = None,
) -> None:
    """Raise UnexpectedAnswer if the response describes another task than the one queried."""
    # Some queries of a single task returned a list.
    tasks = [
        task for task in (data if isinstance(data, list) else [data]) if isinstance(task, dict)
    ]
    if len(tasks) != 1:
        return  # the receiver checks the shape, and stores a response that it cannot interpret
    own_id, external = ids(tasks[0])
    if provider_task_id:
        is_same = own_id == provider_task_id
    else:
        is_same = external in (None, "", external_task_id)
    if not is_same:
        raise vendor.other_task(answer, provider_task_id or external_task_id or "")


def _error(
    vendor: Vendor, answer: Answer, call: Call, code: int, document: dict[str, Any]
) -> ProviderError:
    message = f"{vendor.name} {code}: {readable(document.get('message')) or 'no message'}"
    facts: dict[str, Any] = {"code": code, "http_status": answer.status, "body": answer.body}
    facts["request_id"] = readable(document.get("request_id")) or None
    if call is Call.FETCH and code in NO_SUCH_TASK:
        return NotFoundAtProvider(f"{message}; {vendor.name} has no task with this id", **facts)
    if code in REJECTIONS:
        kind, advice = REJECTIONS[code]
        if kind is TryLater:
            facts["retry_after"] = answer.retry_after
        advice = advice.format(name=vendor.name, keys=vendor.keys, address=vendor.address)
        return kind(f"{message}; {advice}", **facts)
    if code in SERVER_ERROR or answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return vendor.server_error(answer, call, message, **facts)
    return UnexpectedAnswer(f"{message} (an unknown code)", **facts)

"""Modellix, a reseller without callbacks: its responses to create and query.

Field names: Modellix API reference. The synonyms of its statuses and the three places of its
resources were seen in its official client and in recorded responses (2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import ValidationError, validate

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Media, Source
from receiver.providers.base import DAY, Provider, refusal
from receiver.providers.fields import (
    Identity,
    MessageSchema,
    RepeatedKeys,
    Spelling,
    checked,
    cleaned,
    code_in,
    decode,
    faults,
    repeated,
    text,
)
from receiver.providers.outputs import LostOutputs, entries, expires_at, text_in, url_in
from receiver.tasks import Status

STATUSES = {
    "pending": Status.SUBMITTED,
    "processing": Status.PROCESSING,
    "success": Status.SUCCEEDED,
    "completed": Status.SUCCEEDED,
    "succeeded": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "error": Status.FAILED,
    "canceled": Status.FAILED,
    "cancelled": Status.FAILED,
}
RESULTS_KEPT_FOR = DAY  # one page says 30 days, another 24 hours; this is the shorter period
MAY_HAVE_BEEN_ACCEPTED = range(500, 600)  # after a 5xx, the task may exist and may be charged


class ModellixTask(MessageSchema):
    """The `data` of a response; `_media` reads its resources."""

    task_id = Identity(required=True, validate=validate.Length(1, 128))
    status = Spelling(STATUSES, required=True)


SCHEMA = ModellixTask()


class Modellix(Provider):
    """Modellix, whose results are only fetched by queries."""

    name = "modellix"
    has_callbacks = False
    shares_ids = True
    statuses = STATUSES
    results_kept_for = RESULTS_KEPT_FOR

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is Source.CALLBACK:
            raise NotTheProtocol("Modellix has no callbacks")
        if {"code", "data"} & repeated(document):
            raise NotTheProtocol("code or data is repeated")
        if code_in(document) != 0:
            return self._refusal(callback, document)
        data = document.get("data")
        if not isinstance(data, dict):
            raise NotTheProtocol("data: expected an object")
        dropped: list[str] = []
        try:
            task = checked(SCHEMA, data, dropped)
        except ValidationError as error:
            raise NotTheProtocol(f"not a response of Modellix: {faults(error)}") from error
        status = STATUSES[task["status"]]
        lost = LostOutputs(dropped)
        media = tuple(_media(data, callback.received_at, lost, dropped))
        return Event(
            provider=self.name,
            provider_task_id=task["task_id"],
            status=status,
            occurred_at=callback.received_at,  # the response contains no time
            reason=_reason(data) if status is Status.FAILED else None,
            media=media,
            dropped=tuple(dropped),
            lost_outputs=tuple(lost),
        )

    def _refusal(self, callback: Callback, document: Mapping[str, Any]) -> Event:
        code = code_in(document)
        message = f"{document.get('code')} {document.get('message')}"
        is_create = callback.source is Source.CREATE
        if not is_create or code is None or code in MAY_HAVE_BEEN_ACCEPTED:
            raise NotTheProtocol(f"the response does not describe the task: {cleaned(message)}")
        return refusal(self.name, callback, message)


def _reason(data: Mapping[str, Any]) -> str:
    """Return why the task failed. The field is not documented, so several are tried."""
    keys = ("error", "message", "error_message", "reason")
    reasons = (text(data.get(key)) for key in keys)
    error = data.get("error")
    nested = text(error.get("message")) if isinstance(error, dict) else None
    return next((reason for reason in reasons if reason), nested) or str(data["status"])


def _media(
    data: Mapping[str, Any], received_at: int, lost: list[str], dropped: list[str]
) -> Iterator[Media]:
    """Yield resources, as objects or plain URLs, under `result` or directly under `data`.

    Adds unusable fields to `lost` if they leave an output out, and otherwise to `dropped`.
    """
    result = data.get("result")
    if result is not None and not isinstance(result, dict):
        (lost if result else dropped).append("data.result: expected an object")
        result = None
    if isinstance(result, RepeatedKeys):
        result.note("data.result", lost)
    resources = (result or {}).get("resources", data.get("resources"))
    unusable = lost if resources else dropped
    for position, where, resource in entries(resources, "data.result.resources", unusable):
        entry = {"url": resource} if isinstance(resource, str) else resource
        if not isinstance(entry, dict):
            lost.append(f"{where}: expected an object or a URL")
            continue
        if isinstance(entry, RepeatedKeys):
            entry.note(where, lost)
        url = url_in(entry, ("url",), where, dropped, lost)
        if url is None:
            continue
        kind = text_in(entry, ("type",), where, dropped) or "image"
        yield Media(
            kind, url, str(position), expires_at=expires_at(url, received_at + RESULTS_KEPT_FOR)
        )

"""Kling's legacy dialect (`task_id`, `task_status`, …), which its resellers use too.

Field names and types: Kling API reference, callback protocol and query task (seen 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Media, Source
from receiver.providers.base import DAY
from receiver.providers.fields import (
    Identity,
    Instant,
    MessageSchema,
    Spelling,
    Text,
    checked,
    cleaned,
    identity,
    not_the_protocol,
)
from receiver.providers.foreign_messages import foreign_provider
from receiver.providers.json_body import repeated
from receiver.providers.outputs import (
    LostOutputs,
    amount_in,
    expires_at,
    index_of,
    note_repeated,
    objects,
    text_in,
    url_in,
    with_unique_indexes,
)
from receiver.tasks import Status

STATUSES = {
    "submitted": Status.SUBMITTED,
    "processing": Status.PROCESSING,
    "succeed": Status.SUCCEEDED,
    "succeeded": Status.SUCCEEDED,  # the new dialect's spelling
    "failed": Status.FAILED,
}
RESULTS_KEPT_FOR = 30 * DAY  # Kling deletes outputs 30 days after generation
# Real callbacks contain all three arrays; the unused ones are empty. An audio has two formats; the
# result is the one that every player supports.
_ARRAYS = {
    "images": ("image", ("url",)),
    "videos": ("video", ("url",)),
    "audios": ("audio", ("url_mp3", "url_wav", "url")),
}


class LegacyCallback(MessageSchema):
    """A task of the legacy dialect; `_media` reads `task_result`."""

    task_id = Identity(required=True, validate=validate.Length(1, 128))
    task_status = Spelling(STATUSES, required=True)
    task_status_msg = Text(allow_none=True)
    task_info = fields.Raw(allow_none=True)
    task_result = fields.Raw(allow_none=True)
    created_at = Instant()
    updated_at = Instant()
    final_unit_deduction = Text(allow_none=True)
    final_balance_deduction = fields.Raw(allow_none=True)


SCHEMA = LegacyCallback()
UNITS = "units"  # of a resource pack


def read(provider: str, document: Mapping[str, Any], received_at: int) -> Event:
    """Return the event that a task of this dialect describes. Raises NotTheProtocol."""
    dropped: list[str] = []
    try:
        data = checked(SCHEMA, document, dropped)
    except ValidationError as error:
        raise not_the_protocol("Kling", error, "task_id") from error
    occurred_at = data.get("updated_at", received_at)
    lost = LostOutputs(dropped)
    media = with_unique_indexes(
        _media(document.get("task_result"), occurred_at, lost, dropped), lost
    )
    return Event(
        provider=provider,
        provider_task_id=data["task_id"],
        status=STATUSES[data["task_status"]],
        occurred_at=occurred_at,
        reason=data.get("task_status_msg") or None,
        media=media,
        external_task_id=_external_task_id(document.get("task_info"), dropped),
        cost=data.get("final_unit_deduction") or None,
        cost_unit=UNITS if data.get("final_unit_deduction") else None,
        unknown={key: document[key] for key in document.keys() - SCHEMA.fields.keys()},
        dropped=tuple(dropped),
        lost_outputs=tuple(lost),
    )


def refuse_foreign(document: Mapping[str, Any]) -> None:
    """Raise NotTheProtocol for a message of another provider, naming it."""
    provider = foreign_provider(document, STATUSES)
    if provider is not None:
        raise NotTheProtocol(
            f"this looks like a message of {provider}, not of Kling; expected task_id and "
            "task_status, or id and status. Use the callback URL of a Kling task only for Kling"
        )


def unwrap(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task in a response to a create request or a query.

    Some queries of a single task returned a list. Raises NotTheProtocol.
    """
    if {"code", "data"} & repeated(document):
        raise NotTheProtocol("code or data is repeated")
    data = document.get("data")
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        raise NotTheProtocol("data: expected one task as an object")
    return data


def refusal(provider: str, callback: Callback, message: str) -> Event:
    """Return the failure that a refused create request means for its task.

    A refused query says nothing about the task: raises NotTheProtocol.
    """
    if callback.source is not Source.CREATE:
        raise NotTheProtocol(f"the query was refused: {cleaned(message)}")
    return Event(
        provider=provider,
        provider_task_id="",
        status=Status.FAILED,
        occurred_at=callback.received_at,
        reason=f"refused: {cleaned(message)}",
    )


def _external_task_id(info: object, dropped: list[str]) -> str | None:
    """Return our own id as the provider repeats it. The info is `{}` if no id was sent."""
    if info is None:
        return None
    if not isinstance(info, dict):
        dropped.append("task_info: expected an object")
        return None
    if "external_task_id" in repeated(info):  # it may decide which task this is about
        dropped.append("task_info.external_task_id: repeated")
        return None
    value = info.get("external_task_id")
    if value is None:
        return None
    external_task_id = identity(value)
    if external_task_id is None:
        dropped.append("task_info.external_task_id: expected a string")
    return external_task_id or None


def _media(
    result: object, occurred_at: int, lost: list[str], dropped: list[str]
) -> Iterator[Media]:
    """Yield the outputs.

    Adds unusable fields to `lost` if they leave an output out, and otherwise to `dropped`.
    """
    if result is None:
        return
    if not isinstance(result, dict):
        (lost if result else dropped).append("task_result: expected an object")
        return
    note_repeated(result, "task_result", lost)
    for array, (kind, keys) in _ARRAYS.items():
        outputs = result.get(array)
        for position, where, output in objects(
            outputs, f"task_result.{array}", lost if outputs else dropped
        ):
            url = url_in(output, keys, where, dropped, lost)
            if url is None:
                continue
            yield Media(
                kind=kind,
                url=url,
                index=index_of(output, position),
                watermark_url=text_in(output, "watermark_url", where, dropped),
                duration=amount_in(output, ("duration", "duration_mp3"), where, dropped),
                expires_at=expires_at(url, occurred_at + RESULTS_KEPT_FOR),
            )

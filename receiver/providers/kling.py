"""Kling's messages, legacy dialect: callbacks as they are, answers to create and query unwrapped.

Field names and types: Kling API reference, callback protocol and query task (seen 2026-11).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from marshmallow import INCLUDE, Schema, ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Media, Source
from receiver.providers.base import decode, faults
from receiver.tasks import Status

STATUSES = {
    "submitted": Status.SUBMITTED,
    "processing": Status.PROCESSING,
    "succeed": Status.SUCCEEDED,
    "succeeded": Status.SUCCEEDED,  # the new dialect's spelling
    "failed": Status.FAILED,
}
LEGACY_STATUSES = ("submitted", "processing", "succeed", "failed")
OUTPUTS_KEPT_FOR = 30 * 86_400_000  # ms; the vendor deletes outputs 30 days after generation
LATEST_INSTANT = 253_402_300_799_999  # ms; the end of the year 9999
_ARRAYS = {"images": "image", "videos": "video", "audios": "audio"}


class Legacy(Schema):
    """The envelope of a task; what is inside `task_result` is walked by `_media`."""

    class Meta:
        unknown = INCLUDE

    task_id = fields.String(required=True, validate=validate.Length(1, 128))
    task_status = fields.String(required=True, validate=validate.OneOf(LEGACY_STATUSES))
    task_status_msg = fields.String(allow_none=True)
    task_info = fields.Raw(allow_none=True)
    task_result = fields.Raw(allow_none=True)
    created_at = fields.Integer(strict=True, validate=validate.Range(0, LATEST_INSTANT))
    updated_at = fields.Integer(strict=True, validate=validate.Range(0, LATEST_INSTANT))
    final_unit_deduction = fields.String(allow_none=True)
    final_balance_deduction = fields.Raw(allow_none=True)


LEGACY = Legacy()


class Kling:
    """Kling, and whoever speaks its callback protocol."""

    name = "kling"

    def status(self, spelling: str) -> str | None:
        return STATUSES.get(spelling)

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is not Source.CALLBACK:
            if document.get("code") != 0:
                return self._refusal(callback, document)
            document = _unwrap(document)
        return self._task(callback, document)

    def _task(self, callback: Callback, document: dict[str, Any]) -> Event:
        try:
            data = LEGACY.load(document)
        except ValidationError as error:
            raise NotTheProtocol(f"not Kling's callback protocol: {faults(error)}") from error
        occurred_at = data.get("updated_at", callback.received_at)
        return Event(
            provider=self.name,
            provider_task_id=data["task_id"],
            status=STATUSES[data["task_status"]],
            occurred_at=occurred_at,
            reason=data.get("task_status_msg") or None,
            media=tuple(_media(data.get("task_result"), occurred_at)),
            external_task_id=_external_task_id(data.get("task_info")),
            cost=data.get("final_unit_deduction") or None,
            unknown={key: data[key] for key in data.keys() - LEGACY.fields.keys()},
        )

    def _refusal(self, callback: Callback, document: Mapping[str, Any]) -> Event:
        """A create that was refused ends the task; a query that was refused says nothing of it."""
        code, message = document.get("code"), document.get("message")
        if callback.source is not Source.CREATE or not isinstance(code, int):
            raise NotTheProtocol(f"the query was refused: {code} {message}")
        return Event(
            provider=self.name,
            provider_task_id="",
            status=Status.FAILED,
            occurred_at=callback.received_at,
            reason=f"refused: {code} {message}",
        )


def _unwrap(document: Mapping[str, Any]) -> dict[str, Any]:
    """The task in the answer to a create or a query; some single queries answered a list."""
    data = document.get("data")
    if isinstance(data, list) and len(data) == 1:
        data = data[0]
    if not isinstance(data, dict):
        raise NotTheProtocol("data: expected one task as an object")
    return data


def _external_task_id(info: object) -> str | None:
    """Our own id as the provider gives it back; `{}` where none was sent."""
    if info is None:
        return None
    if not isinstance(info, dict):
        raise NotTheProtocol("task_info: expected an object")
    found = info.get("external_task_id")
    if found is not None and not isinstance(found, str):
        raise NotTheProtocol("task_info.external_task_id: expected a string")
    return found or None


def _media(result: object, occurred_at: int) -> Iterator[Media]:
    """Real callbacks carry all three arrays, the unused ones empty."""
    if result is None:
        return
    if not isinstance(result, dict):
        raise NotTheProtocol("task_result: expected an object")
    for array, kind in _ARRAYS.items():
        outputs = result.get(array)
        if outputs is None:
            continue
        if not isinstance(outputs, list):
            raise NotTheProtocol(f"task_result.{array}: expected an array")
        for position, output in enumerate(outputs):
            where = f"task_result.{array}[{position}]"
            yield _output(kind, output, position, where, occurred_at)


def _output(kind: str, output: object, position: int, where: str, occurred_at: int) -> Media:
    if not isinstance(output, dict):
        raise NotTheProtocol(f"{where}: expected an object")
    # An audio comes in two formats; the one that every player takes is the result.
    key = "url_mp3" if kind == "audio" and "url_mp3" in output else "url"
    url = output.get(key)
    if not isinstance(url, str) or not url:
        raise NotTheProtocol(f"{where}.{key}: expected a URL")
    return Media(
        kind=kind,
        url=url,
        index=_index(output, position),
        watermark_url=_text(output.get("watermark_url")),
        duration=_text(output.get("duration", output.get("duration_mp3"))),
        expires_at=expires_at(url, occurred_at),
    )


def _index(output: Mapping[str, Any], position: int) -> str:
    found = output.get("index", output.get("id"))
    is_usable = isinstance(found, (int, str)) and not isinstance(found, bool) and found != ""
    return str(found) if is_usable else str(position)


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def expires_at(url: str, occurred_at: int) -> int:
    """When the URL stops to work, in ms UTC.

    Recorded URLs carry `Expires=` (decimal seconds) or `ksTime=` (hexadecimal seconds), each 30
    days after `updated_at`; older ones carry neither.
    """
    try:
        query = parse_qs(urlsplit(url).query)
    except ValueError:  # such as an unbalanced bracket in the host
        return occurred_at + OUTPUTS_KEPT_FOR
    for name, base, digits in (("Expires", 10, r"\d{1,11}"), ("ksTime", 16, r"[0-9a-fA-F]{1,9}")):
        value = query.get(name, [""])[0]
        if re.fullmatch(digits, value, re.ASCII):
            return int(value, base) * 1000
    return occurred_at + OUTPUTS_KEPT_FOR

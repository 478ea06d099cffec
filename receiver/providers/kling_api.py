"""Kling's API: both dialects of its callbacks, and its responses to create and query.

An account that runs models of both generations gets both dialects. Resellers use the legacy one
(`task_id`, `task_status`, …). Field names and types: Kling API reference, callback protocol and
query task (seen 2026-11).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Source
from receiver.providers.base import DAY, Provider, refusal
from receiver.providers.fields import (
    Identity,
    Instant,
    MessageSchema,
    RepeatedKeys,
    Spelling,
    Text,
    checked,
    cleaned,
    code_in,
    decode,
    identity,
    not_the_protocol,
    repeated,
    text,
)
from receiver.providers.foreign_messages import refuse_foreign
from receiver.providers.outputs import LostOutputs, Output, entries, media_of, text_in
from receiver.tasks import Status

STATUSES = {
    "submitted": Status.SUBMITTED,
    "processing": Status.PROCESSING,
    "succeed": Status.SUCCEEDED,
    "succeeded": Status.SUCCEEDED,  # the new dialect's spelling
    "failed": Status.FAILED,
}
RESULTS_KEPT_FOR = 30 * DAY  # Kling deletes outputs 30 days after generation
MAY_HAVE_BEEN_ACCEPTED = range(5000, 6000)  # codes of internal errors, maintenance and timeouts
UNITS = "units"  # of a resource pack
OF_NO_TYPE = "output"  # the kind of an output whose type cannot be used
# The keys of the URL of an audio, which has two formats, begin with the one that every player
# supports. Legacy callbacks contain all three arrays; the unused ones are empty.
_LEGACY_ARRAYS = {
    "images": ("image", ("url",)),
    "videos": ("video", ("url",)),
    "audios": ("audio", ("url_mp3", "url_wav", "url")),
}
_URL_KEYS = {"audio": ("mp3_url", "wav_url", "url"), OF_NO_TYPE: ("url", "mp3_url", "wav_url")}


class LegacyCallback(MessageSchema):
    """A task of the legacy dialect; `_legacy_outputs` reads `task_result`."""

    task_id = Identity(required=True, validate=validate.Length(1, 128))
    task_status = Spelling(STATUSES, required=True)
    task_status_msg = Text(allow_none=True)
    task_info = fields.Raw(allow_none=True)
    task_result = fields.Raw(allow_none=True)
    created_at = Instant()
    updated_at = Instant()
    final_unit_deduction = Text(allow_none=True)
    final_balance_deduction = fields.Raw(allow_none=True)


class KlingCallback(MessageSchema):
    """A task of the new dialect; everything but `id` and `status` may be missing."""

    id = Identity(required=True, validate=validate.Length(1, 128))
    status = Spelling(STATUSES, required=True)
    message = Text(allow_none=True)
    create_time = Instant()
    update_time = Instant()
    external_id = Identity(allow_none=True)
    outputs = fields.Raw(allow_none=True)
    billing = fields.Raw(allow_none=True)


LEGACY_SCHEMA = LegacyCallback()
SCHEMA = KlingCallback()


class KlingApi(Provider):
    """The base of the adapters of Kling and its resellers."""

    has_callbacks = True
    statuses = STATUSES
    results_kept_for = RESULTS_KEPT_FOR

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is not Source.CALLBACK:
            if "code" in repeated(document):
                raise NotTheProtocol("code is repeated")
            if code_in(document) != 0:
                return self._refusal(callback, document)
            document = unwrap(document)
        if "task_id" in document and "task_status" in document:  # no other provider sends both
            return read_legacy(self.name, document, callback.received_at)
        refuse_foreign(document, STATUSES)
        if "id" in document and "status" in document:
            return self._new_dialect(document, callback.received_at)
        if "task_id" in document or "task_status" in document:  # the error names the missing one
            return read_legacy(self.name, document, callback.received_at)
        raise NotTheProtocol(
            "not Kling's callback protocol: expected task_id and task_status, or id and status"
        )

    def _new_dialect(self, document: dict[str, Any], received_at: int) -> Event:
        dropped: list[str] = []
        try:
            data = checked(SCHEMA, document, dropped)
        except ValidationError as error:
            raise not_the_protocol("Kling", error, "id") from error
        occurred_at = data.get("update_time", received_at)
        cost, cost_unit = _cost(document.get("billing"), dropped)
        lost = LostOutputs(dropped)
        outputs = _outputs(document.get("outputs"), lost)
        deleted_at = occurred_at + RESULTS_KEPT_FOR
        media = media_of(outputs, ("duration", "mp3_duration"), deleted_at, lost)
        return Event(
            provider=self.name,
            provider_task_id=data["id"],
            status=STATUSES[data["status"]],
            occurred_at=occurred_at,
            reason=data.get("message") or None,
            media=media,
            external_task_id=data.get("external_id") or None,
            cost=cost,
            cost_unit=cost_unit,
            unknown={key: document[key] for key in document.keys() - SCHEMA.fields.keys()},
            dropped=tuple(dropped),
            lost_outputs=tuple(lost),
        )

    def _refusal(self, callback: Callback, document: Mapping[str, Any]) -> Event:
        code = code_in(document)
        message = f"{document.get('code')} {document.get('message')}"
        if code is None or code in MAY_HAVE_BEEN_ACCEPTED:
            raise NotTheProtocol(f"the response does not describe the task: {cleaned(message)}")
        return refusal(self.name, callback, message)


def read_legacy(provider: str, document: Mapping[str, Any], received_at: int) -> Event:
    """Return the event that a task of the legacy dialect describes. Raises NotTheProtocol."""
    dropped: list[str] = []
    try:
        data = checked(LEGACY_SCHEMA, document, dropped)
    except ValidationError as error:
        raise not_the_protocol("Kling", error, "task_id") from error
    occurred_at = data.get("updated_at", received_at)
    lost = LostOutputs(dropped)
    outputs = _legacy_outputs(document.get("task_result"), lost)
    deleted_at = occurred_at + RESULTS_KEPT_FOR
    media = media_of(outputs, ("duration", "duration_mp3"), deleted_at, lost)
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
        unknown={key: document[key] for key in document.keys() - LEGACY_SCHEMA.fields.keys()},
        dropped=tuple(dropped),
        lost_outputs=tuple(lost),
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


def _external_task_id(info: object, dropped: list[str]) -> str | None:
    """Return our own id as the provider repeats it. The info is `{}` if no id was sent."""
    if info is None:
        return None
    if not isinstance(info, dict):
        dropped.append("task_info: expected an object")
        return None
    # The id may decide which task this is about, so a repeated one is not used.
    if isinstance(info, RepeatedKeys) and "external_task_id" in info.repeated:
        dropped.append("task_info.external_task_id: repeated")
        return None
    value = info.get("external_task_id")
    external_task_id = identity(value)
    if external_task_id is None and value is not None:
        dropped.append("task_info.external_task_id: expected a string")
    return external_task_id or None


def _legacy_outputs(result: object, lost: LostOutputs) -> Iterator[Output]:
    """Yield the outputs in `task_result`, from all of its arrays."""
    if result is None:
        return
    if not isinstance(result, dict):
        (lost if result else lost.dropped).append("task_result: expected an object")
        return
    if isinstance(result, RepeatedKeys):
        result.note("task_result", lost)
    for array, (kind, keys) in _LEGACY_ARRAYS.items():
        outputs, where = result.get(array), f"task_result.{array}"
        unusable = lost if outputs else lost.dropped
        for entry in entries(outputs, where, unusable, only_objects=True):
            yield kind, keys, *entry


def _outputs(outputs: object, lost: LostOutputs) -> Iterator[Output]:
    """Yield the outputs by `type`; an output without a URL, such as an element, is not media."""
    unusable = lost if outputs else lost.dropped
    for position, where, output in entries(outputs, "outputs", unusable, only_objects=True):
        kind = text(output.get("type"))
        if kind is None:
            lost.dropped.append(f"{where}.type: expected a string")
            kind = OF_NO_TYPE
        if kind in ("image", "video", "audio", OF_NO_TYPE) or "url" in output:
            yield kind, _URL_KEYS.get(kind, ("url",)), position, where, output


def _cost(billing: object, dropped: list[str]) -> tuple[str | None, str | None]:
    """Return the sum of all charges of the first one's kind, a decimal string, and its unit."""
    charges = [
        (
            [text_in(charge, (key,), where, dropped) for key in ("charge_type", "currency")],
            text_in(charge, ("amount",), where, dropped, is_amount=True),
        )
        for _, where, charge in entries(billing, "billing", dropped, only_objects=True)
    ]
    if not charges:
        return None, None
    kind = charges[0][0]
    amounts = [charged for of_kind, charged in charges if of_kind == kind]
    unit = UNITS if kind[0] == "unit" else kind[1] or kind[0]
    if len(amounts) == 1:
        return amounts[0], unit
    try:
        total = sum((Decimal(one) for one in amounts if one), Decimal(0))
    except ArithmeticError:
        total = Decimal("NaN")
    if not total.is_finite():
        dropped.append("billing.amount: expected decimal strings")
        return None, None
    return str(total), unit

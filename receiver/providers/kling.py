"""Kling: both dialects of its callbacks, and its responses to create and query.

Field names and types: Kling API reference, callback protocol (seen 2026-11). An account that runs
models of both generations gets both dialects.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.errors import NotTheProtocol
from receiver.events import Callback, Event, Media, Source
from receiver.providers import kling_legacy
from receiver.providers.base import Provider, ReferenceClock
from receiver.providers.fields import (
    Identity,
    Instant,
    MessageSchema,
    Spelling,
    Text,
    checked,
    cleaned,
    code_in,
    not_the_protocol,
    text,
)
from receiver.providers.json_body import decode, repeated
from receiver.providers.outputs import (
    LostOutputs,
    amount_in,
    expires_at,
    index_of,
    objects,
    text_in,
    url_in,
    with_unique_indexes,
)
from receiver.providers.verification import StandardWebhooks
from receiver.signing import standard_webhooks

MAY_HAVE_BEEN_ACCEPTED = range(5000, 6000)  # codes of internal errors, maintenance and timeouts
OF_NO_TYPE = "output"  # the kind of an output whose type cannot be used
_URL_KEYS = {"audio": ("mp3_url", "wav_url", "url"), OF_NO_TYPE: ("url", "mp3_url", "wav_url")}


class KlingCallback(MessageSchema):
    """A task of the new dialect; everything but `id` and `status` may be missing."""

    id = Identity(required=True, validate=validate.Length(1, 128))
    status = Spelling(kling_legacy.STATUSES, required=True)
    message = Text(allow_none=True)
    create_time = Instant()
    update_time = Instant()
    external_id = Identity(allow_none=True)
    outputs = fields.Raw(allow_none=True)
    billing = fields.Raw(allow_none=True)


SCHEMA = KlingCallback()


class Kling(Provider):
    """Kling, and every reseller that serves Kling's API under its own paths."""

    name = "kling"
    has_callbacks = True
    shares_ids = True
    verification = StandardWebhooks(
        "KLING_WEBHOOK_SECRETS",
        "The secrets of Kling's signed callbacks, from its console; at least "
        f"{standard_webhooks.SHORTEST_KEY} bytes each.",
    )
    statuses = kling_legacy.STATUSES
    results_kept_for = kling_legacy.RESULTS_KEPT_FOR
    clock = ReferenceClock("https://api-singapore.klingai.com", "KLING_BASE_URL")
    schemas = (KlingCallback, kling_legacy.LegacyCallback)

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if callback.source is not Source.CALLBACK:
            if "code" in repeated(document):
                raise NotTheProtocol("code is repeated")
            if code_in(document) != 0:
                return self._refusal(callback, document)
            document = kling_legacy.unwrap(document)
        if "task_id" in document and "task_status" in document:  # no other provider sends both
            return kling_legacy.read(self.name, document, callback.received_at)
        kling_legacy.refuse_foreign(document)
        if "id" in document and "status" in document:
            return self._new_dialect(document, callback.received_at)
        if "task_id" in document or "task_status" in document:  # the error names the missing one
            return kling_legacy.read(self.name, document, callback.received_at)
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
        outputs = _outputs(document.get("outputs"), occurred_at, lost, dropped)
        media = with_unique_indexes(outputs, lost)
        return Event(
            provider=self.name,
            provider_task_id=data["id"],
            status=kling_legacy.STATUSES[data["status"]],
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
        return kling_legacy.refusal(self.name, callback, message)


def _outputs(
    outputs: object, occurred_at: int, lost: list[str], dropped: list[str]
) -> Iterator[Media]:
    """Yield the outputs by `type`; an output without a URL, such as an element, is not media.

    Adds unusable fields to `lost` if they leave an output out, and otherwise to `dropped`.
    """
    for position, where, output in objects(outputs, "outputs", lost if outputs else dropped):
        kind = text(output.get("type"))
        if kind is None:
            dropped.append(f"{where}.type: expected a string")
            kind = OF_NO_TYPE
        keys = _URL_KEYS.get(kind, ("url",))
        if kind not in ("image", "video", "audio", OF_NO_TYPE) and "url" not in output:
            continue
        url = url_in(output, keys, where, dropped, lost)
        if url is None:
            continue
        yield Media(
            kind=kind,
            url=url,
            index=index_of(output, position),
            watermark_url=text_in(output, "watermark_url", where, dropped),
            duration=amount_in(output, ("duration", "mp3_duration"), where, dropped),
            expires_at=expires_at(url, occurred_at + kling_legacy.RESULTS_KEPT_FOR),
        )


def _cost(billing: object, dropped: list[str]) -> tuple[str | None, str | None]:
    """Return the sum of all charges of the first one's kind, a decimal string, and its unit."""
    charges = [
        (
            [text_in(charge, key, where, dropped) for key in ("charge_type", "currency")],
            amount_in(charge, ("amount",), where, dropped),
        )
        for _, where, charge in objects(billing, "billing", dropped)
    ]
    if not charges:
        return None, None
    kind = charges[0][0]
    amounts = [charged for of_kind, charged in charges if of_kind == kind]
    unit = kling_legacy.UNITS if kind[0] == "unit" else kind[1] or kind[0]
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

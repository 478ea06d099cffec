"""Weaver's callbacks and responses: `{"data": {…}}` with the task, and a signature of its own."""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.environment import Setting
from receiver.errors import BadSignature, NotTheProtocol
from receiver.events import Callback, Event, Media, Source
from receiver.providers.base import HOUR, Provider, Verification
from receiver.providers.fields import (
    Identity,
    MessageSchema,
    Spelling,
    checked,
    cleaned,
    code_in,
    not_the_protocol,
    text,
)
from receiver.providers.json_body import decode, repeated
from receiver.providers.outputs import LostOutputs, entries, url_in
from receiver.tasks import Status

STATUSES = {
    "pending": Status.SUBMITTED,
    "processing": Status.PROCESSING,
    "completed": Status.SUCCEEDED,
    "failed": Status.FAILED,
    "canceled": Status.FAILED,
}
TIMESTAMP, SIGNATURE = "x-weaver-timestamp", "x-weaver-signature"
TOLERANCE = 300  # seconds


class WeaverTask(MessageSchema):
    """The task in `data`."""

    task_id = Identity(required=True, validate=validate.Length(1, 128))
    status = Spelling(STATUSES, required=True)
    output = fields.Raw(allow_none=True)  # a URL, or a list of URLs


class WeaverCallback(MessageSchema):
    """A callback; its task is in `data`."""

    timestamp = fields.Raw()
    data = fields.Nested(WeaverTask, required=True)


SCHEMA = WeaverTask()


class WeaverSignature(Verification):
    """`hex(hmac(sha256, secret, "timestamp.body"))` in a header."""

    covers_body = True
    is_mandatory = True

    def __init__(self) -> None:
        self.setting = Setting(
            name="WEAVER_SECRETS",
            read=_secrets,
            default=(),
            summary="The secrets of Weaver's callbacks, separated by commas.",
            is_secret=True,
        )

    def is_signed(self, headers: Mapping[str, str]) -> bool:
        return SIGNATURE in headers

    def verify(
        self, headers: Mapping[str, str], body: bytes, secrets: Sequence[str], now: float
    ) -> None:
        timestamp = headers.get(TIMESTAMP, "")
        given = headers.get(SIGNATURE, "").encode()
        expected = [signature(secret, timestamp, body).encode() for secret in secrets]
        matches = [hmac.compare_digest(one, given) for one in expected]
        if not any(matches):
            raise BadSignature("the signature matches none of the secrets", "wrong_signature")
        if not re.fullmatch("[0-9]{1,12}", timestamp) or abs(now - int(timestamp)) > TOLERANCE:
            raise BadSignature(f"{TIMESTAMP} differs from our clock", "stale_signature")


def signature(secret: str, timestamp: str, body: bytes) -> str:
    return hmac.new(secret.encode(), f"{timestamp}.".encode() + body, "sha256").hexdigest()


def _secrets(value: str) -> tuple[str, ...]:
    secrets = tuple(part.strip() for part in value.split(","))
    if not all(re.fullmatch("[!-~]{16,}", secret) for secret in secrets):
        raise ValueError("needs at least 16 visible ASCII characters; copy it from the console")
    return secrets


class Weaver(Provider):
    """Weaver's callbacks and responses."""

    name = "weaver"
    has_callbacks = True
    shares_ids = True
    statuses = STATUSES
    results_kept_for = HOUR
    schemas = (WeaverCallback,)
    verification = WeaverSignature()
    secret_fields = ("data.config.webhook.secret",)

    def parse(self, callback: Callback) -> Event:
        document = decode(callback.body)
        if {"code", "data"} & repeated(document):
            raise NotTheProtocol("code or data is repeated")
        if callback.source is not Source.CALLBACK and code_in(document) != 200:
            return self._rejection(callback, document)
        data = document.get("data")
        if not isinstance(data, dict):
            raise NotTheProtocol("data: expected an object")
        dropped: list[str] = []
        try:
            task = checked(SCHEMA, data, dropped)
        except ValidationError as error:
            raise not_the_protocol("Weaver", error, "task_id") from error
        lost = LostOutputs(dropped)
        deleted_at = callback.received_at + self.results_kept_for
        return Event(
            provider=self.name,
            provider_task_id=task["task_id"],
            status=STATUSES[task["status"]],
            occurred_at=callback.received_at,
            reason=text(data.get("error")),
            media=tuple(_media(data.get("output"), deleted_at, lost)),
            dropped=tuple(dropped),
            lost_outputs=tuple(lost),
        )

    def _rejection(self, callback: Callback, document: Mapping[str, Any]) -> Event:
        message = cleaned(f"{document.get('code')} {document.get('message')}")
        if callback.source is not Source.CREATE:
            raise NotTheProtocol(f"the query was refused: {message}")
        return Event(
            provider=self.name,
            provider_task_id="",
            status=Status.FAILED,
            occurred_at=callback.received_at,
            reason=f"refused: {message}",
        )


def _media(output: object, deleted_at: int, lost: list[str]) -> Iterator[Media]:
    outputs = [output] if isinstance(output, str) else output
    for position, place, entry in entries(outputs, "output", lost):
        url = url_in({"url": entry}, ("url",), place, lost)
        if url is not None:
            yield Media("image", url, str(position), expires_at=deleted_at)

"""A webhook of your own: the event as JSON, signed by Standard Webhooks, one identity for ever.

This turns a provider that does not sign into a source that does.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.clock import wall_ms
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import ContentFailure, EndpointGone, TemporaryFailure
from receiver.hooks import wording
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, http_url, seconds
from receiver.outgoing import http
from receiver.signing import standard_webhooks
from receiver.text.display import json_ascii, rfc3339

ANSWER_KEPT = 2 * 1024  # bytes
GONE = 410


def _secret(value: str) -> None:
    try:
        standard_webhooks.key_of(value)
    except ValueError as error:
        raise ValidationError(f"{error}; make one with: {standard_webhooks.MAKE_ONE}") from None


class WebhookOptions(Options):
    """The keys of a hook of type webhook. Two secrets while they rotate: both sign."""

    url = fields.String(required=True, validate=http_url)
    secrets = fields.List(
        fields.String(validate=_secret),
        required=True,
        validate=validate.Length(1, 2, error="give one secret, or two while they rotate"),
    )
    deadline = seconds(15)
    allow_private = fields.Boolean(load_default=False)


class Webhook:
    """POSTs the event. `webhook-id` is the same for every attempt: receivers deduplicate by it."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(WebhookOptions(), options)

    def send(self, notice: Notice) -> Done:
        return Done(self._post(notice.id, notice.as_json()))

    def alert(self, alert: Alert) -> None:
        """Tell of another hook's endpoint, signed like an event. Raises DeliveryFailure."""
        document = {
            "id": f"alert:{alert.id}",
            "type": f"endpoint.{alert.kind}",
            "occurred_at": rfc3339(alert.at),
            "hook": alert.hook,
            "said": alert.said,
        }
        self._post(document["id"], document)

    def _post(self, message_id: str, document: Mapping[str, Any]) -> str:
        """Return a one-line description of the response.

        Raises DeliveryFailure for any status except 2xx. As in Standard Webhooks, the delivery is
        retried after any response except 410: a consumer that is being deployed may answer 404 or
        a redirect for a minute. Such a response does not count as a failure of the endpoint.
        """
        body = json_ascii(document, separators=(",", ":")).encode()
        answer = http.post(
            self._options["url"],
            data=body,
            headers=self._headers(message_id, body),
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
            max_bytes=ANSWER_KEPT,
        )
        is_cut = len(answer.body) >= ANSWER_KEPT
        text = wording.quoted(answer.body, ANSWER_KEPT, is_cut=is_cut)
        said = f"{http.origin(self._options['url'])} answered {answer.status} {text}".rstrip()
        if 200 <= answer.status < 300:
            return said
        if answer.status == GONE:
            raise EndpointGone(f"{said}: the endpoint is gone; the hook is disabled")
        failure = http.failure(answer.status, answer.headers, said)
        if isinstance(failure, TemporaryFailure):
            raise failure
        retry_after = http.retry_after(answer.headers.get("Retry-After"), time.time())
        raise ContentFailure(said, retry_after)

    def _headers(self, message_id: str, body: bytes) -> dict[str, str]:
        sent_at = wall_ms() // 1000
        signatures = [
            standard_webhooks.sign(secret, message_id, sent_at, body)
            for secret in self._options["secrets"]
        ]
        return {
            "Content-Type": "application/json",
            standard_webhooks.ID: message_id,
            standard_webhooks.TIMESTAMP: str(sent_at),
            standard_webhooks.SIGNATURE: " ".join(signatures),
        }

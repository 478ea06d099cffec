"""Sends the event as JSON to your own server, signed by the Standard Webhooks scheme."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError, fields, validate

from receiver.clock import wall_ms
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import ContentFailure, EndpointGone, TemporaryFailure
from receiver.hooks.base import Done
from receiver.hooks.options import Options, checked, http_url, seconds
from receiver.outgoing import http
from receiver.signing import standard_webhooks
from receiver.text.display import json_ascii, one_line

MAX_RESPONSE = 2 * 1024  # bytes of a response that are read and stored
GONE = 410


def _check_secret(value: str) -> None:
    try:
        standard_webhooks.key_of(value)
    except ValueError as error:
        raise ValidationError(f"{error}; make one with: {standard_webhooks.MAKE_ONE}") from None


class WebhookOptions(Options):
    """The keys of a hook of type webhook. During a rotation, both of two secrets sign."""

    url = fields.String(required=True, validate=http_url)
    secrets = fields.List(
        fields.String(validate=_check_secret),
        required=True,
        validate=validate.Length(1, 2, error="give one secret, or two during a rotation"),
    )
    deadline = seconds(15)
    allow_private = fields.Boolean(load_default=False)


class Webhook:
    """POSTs the event. All attempts have the same `webhook-id`, by which consumers deduplicate."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(WebhookOptions(), options)
        self._origin = http.origin(self._options["url"])

    def send(self, notice: Notice) -> Done:
        return Done(self._post(notice.as_json()))

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint, signed like an event."""
        self._post(alert.as_json())

    def _post(self, document: Mapping[str, Any]) -> str:
        """Send the document, which has an `id`; return a one-line description of the response.

        Raises DeliveryFailure for any status except 2xx. As in Standard Webhooks, the delivery is
        retried after any response except 410: a consumer that is being deployed may answer 404 or
        a redirect for a minute. Such a response does not count as a failure of the endpoint.
        """
        body = json_ascii(document, separators=(",", ":")).encode()
        sent_at = wall_ms() // 1000
        signatures = [
            standard_webhooks.sign(secret, document["id"], sent_at, body)
            for secret in self._options["secrets"]
        ]
        response = http.post(
            self._options["url"],
            data=body,
            headers={
                "Content-Type": "application/json",
                standard_webhooks.ID: document["id"],
                standard_webhooks.TIMESTAMP: str(sent_at),
                standard_webhooks.SIGNATURE: " ".join(signatures),
            },
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
            max_bytes=MAX_RESPONSE,
        )
        is_cut = len(response.body) >= MAX_RESPONSE
        text = one_line(response.body.decode("utf-8", "replace"), MAX_RESPONSE, is_cut=is_cut)
        description = f"{self._origin} answered {response.status} {text}".rstrip()
        if 200 <= response.status < 300:
            return description
        if response.status == GONE:
            raise EndpointGone(f"{description}: the endpoint is gone; the hook is disabled")
        failure = http.failure(response.status, response.headers, description)
        if isinstance(failure, TemporaryFailure):
            raise failure
        retry_after = http.retry_after(response.headers.get("Retry-After"), time.time())
        raise ContentFailure(description, retry_after)

"""Sends the event as JSON to your own server, signed by the Standard Webhooks scheme."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import ValidationError, fields, validate, validates_schema

from receiver import outgoing as http  # its functions are imported when they are used
from receiver.clock import wall_ms
from receiver.config.hooks_file import either
from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import ContentFailure, EndpointGone, TemporaryFailure
from receiver.hooks import cloudevents
from receiver.hooks.base import Done, Preview
from receiver.hooks.options import Options, checked, http_url, seconds
from receiver.hooks.templates import Context, Template, TemplateField, checked_template, context_of
from receiver.signing import standard_webhooks
from receiver.text import html_page
from receiver.text.display import json_ascii, one_line

MAX_RESPONSE = 2 * 1024  # bytes of a response that are read and stored
GONE = 410
JSON_TYPE = "application/json"
# The formats of a message: our own event, or CloudEvents in one of its modes.
EVENT, STRUCTURED, BINARY = FORMATS = ("event", "cloudevents", "cloudevents-binary")
HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
OWN_HEADERS = frozenset(
    {
        *(standard_webhooks.ID, standard_webhooks.TIMESTAMP, standard_webhooks.SIGNATURE),
        *("connection", "content-encoding", "content-length", "expect", "host", "keep-alive"),
        *("proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade"),
    }
)


@dataclass(frozen=True, slots=True)
class WebhookMessage:
    """The body of a request, its identity, and the headers that do not depend on the time."""

    id: str
    headers: Mapping[str, str]
    body: bytes


def _check_secret(value: str) -> None:
    try:
        standard_webhooks.key_of(value)
    except ValueError as error:
        raise ValidationError(f"{error}; make one with: {standard_webhooks.MAKE_ONE}") from None


class Headers(fields.Dict):
    """The additional headers of a hook, whose values are templates."""

    def __init__(self) -> None:
        super().__init__(
            keys=fields.String(), values=TemplateField(Context.HEADER), load_default=dict
        )

    def _deserialize(self, value: Any, *args: Any, **kwargs: Any) -> dict[str, Template]:
        headers: dict[str, Template]
        headers = super()._deserialize(value, *args, **kwargs)  # type: ignore[no-untyped-call]
        problems = [
            problem for name in headers if (problem := _header_name_problem(name)) is not None
        ]
        lower = [name.lower() for name in headers]
        problems += [
            f'"{name}" is given twice; upper and lower case do not differ in headers'
            for index, name in enumerate(headers)
            if name.lower() in lower[:index]
        ]
        if problems:
            raise ValidationError(problems)
        return headers


def _header_name_problem(name: str) -> str | None:
    if not HEADER_NAME.fullmatch(name):
        return f'"{one_line(name, 40)}" is not the name of a header'
    if name.lower() == "content-type":
        return f'"{name}" is set by the option content_type'
    if name.lower() in OWN_HEADERS or name.lower().startswith(cloudevents.HEADER_PREFIX):
        return f'"{name}" is set by the hook itself; leave it out'
    return None


class WebhookOptions(Options):
    """The keys of a hook of type webhook. During a rotation, both of two secrets sign."""

    url = fields.String(required=True, validate=http_url)
    secrets = fields.List(
        fields.String(validate=_check_secret),
        required=True,
        validate=validate.Length(1, 2, error="give one secret, or two during a rotation"),
    )
    format = fields.String(
        load_default=EVENT,
        validate=validate.OneOf(FORMATS, error=f"use {either(FORMATS)}"),
    )
    source = fields.String(load_default=None, validate=cloudevents.check_source)
    body = TemplateField(Context.TEXT)
    content_type = TemplateField(Context.HEADER)
    headers = Headers()
    deadline = seconds(15)
    allow_private = fields.Boolean(load_default=False)

    @validates_schema
    def _check_body(self, options: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        body, content_type = options["body"], options["content_type"]
        is_event = options["format"] == EVENT
        problems = {
            "body": "cannot be used with this format" if body and not is_event else None,
            "content_type": "requires body" if content_type and not body else None,
            "source": 'requires format = "cloudevents"' if options["source"] and is_event else None,
        }
        for key, problem in problems.items():
            if problem:
                raise ValidationError(problem, key)
        if body and (content_type is None or content_type.is_constant):
            type_ = content_type.source if content_type else JSON_TYPE
            checked_template(body.with_context(context_of(type_)), "body")


class Webhook:
    """POSTs the event. All attempts have the same `webhook-id`, by which consumers deduplicate."""

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        self._options = checked(WebhookOptions(), options)

    @property
    def _origin(self) -> str:
        return http.origin(self._options["url"])

    def send(self, notice: Notice) -> Done:
        return Done(self._post(self._message(notice)))

    def preview(self, notice: Notice) -> Preview:
        """Return the request that `send` would make. Raises RenderFailed."""
        message = self._message(notice)
        url = http.without_path(self._options["url"])
        return Preview(f"POST {url}", self._headers(message), message.body.decode())

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint, signed like an event.

        Templates cannot be rendered for an alert, so only the constant headers are sent.
        """
        headers = {
            name: value.source.strip()
            for name, value in self._options["headers"].items()
            if value.is_constant
        }
        self._post(self._formatted(alert.as_json(), alert.hook, headers))

    def _message(self, notice: Notice) -> WebhookMessage:
        """Return the message for an event. Raises RenderFailed."""
        headers = {
            name: value.render(notice, hook=self.name, key=f"headers.{name}").strip()
            for name, value in self._options["headers"].items()
        }
        body: Template | None = self._options["body"]
        if body is None:
            return self._formatted(notice.as_json(), notice.task.id, headers)
        content_type = JSON_TYPE
        if self._options["content_type"] is not None:
            content_type = self._options["content_type"].render(
                notice, hook=self.name, key="content_type"
            )
        text = body.with_context(context_of(content_type)).render(
            notice, hook=self.name, key="body"
        )
        return WebhookMessage(notice.id, {"Content-Type": content_type, **headers}, text.encode())

    def _formatted(
        self, document: Mapping[str, Any], subject: str, headers: Mapping[str, str]
    ) -> WebhookMessage:
        """Return the message for an event or an alert, in the format of the hook."""
        attributes = {"Content-Type": JSON_TYPE}
        if self._options["format"] != EVENT:
            envelope = cloudevents.envelope(document, subject, self._options["source"])
            if self._options["format"] == BINARY:
                attributes = cloudevents.headers(envelope)
            else:
                attributes = {"Content-Type": cloudevents.CONTENT_TYPE}
                document = {**envelope, "data": document}
        body = json_ascii(document, separators=(",", ":")).encode()
        return WebhookMessage(document["id"], {**attributes, **headers}, body)

    def _headers(self, message: WebhookMessage) -> dict[str, str]:
        """Return all headers of the request, including signatures with the current time."""
        sent_at = wall_ms() // 1000
        signatures = [
            standard_webhooks.sign(secret, message.id, sent_at, message.body)
            for secret in self._options["secrets"]
        ]
        return {
            **message.headers,
            standard_webhooks.ID: message.id,
            standard_webhooks.TIMESTAMP: str(sent_at),
            standard_webhooks.SIGNATURE: " ".join(signatures),
        }

    def _post(self, message: WebhookMessage) -> str:
        """Send the message; return a one-line description of the response.

        Raises DeliveryFailure for any status except 2xx. As in Standard Webhooks, the delivery is
        retried after any response except 410: a consumer that is being deployed may answer 404 or
        a redirect for a minute. Such a response does not count as a failure of the endpoint.
        """
        response = http.post(
            self._options["url"],
            data=message.body,
            headers=self._headers(message),
            deadline=self._options["deadline"],
            allow_private=self._options["allow_private"],
            max_bytes=MAX_RESPONSE,
        )
        is_cut = len(response.body) >= MAX_RESPONSE
        text = response.body.decode("utf-8", "replace")
        readable = html_page.readable(text) if "<" in text else text
        text = one_line(readable, MAX_RESPONSE, is_cut=is_cut)
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

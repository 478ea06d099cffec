"""Sends the event as JSON to a message queue: RabbitMQ, Redis Streams or Amazon SQS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.errors import DeliveryFailure
from receiver.hooks import brokers
from receiver.hooks.base import Done, Preview
from receiver.hooks.brokers.base import JSON_TYPE, NAME_PLACEHOLDERS, QueueMessage, failure
from receiver.hooks.options import checked
from receiver.hooks.templates import Template, context_of
from receiver.outgoing.deadline import Deadline
from receiver.text.display import json_ascii, one_line


class Queue:
    """Publishes the JSON that a webhook receives. All attempts use the same message id.

    The URL selects the broker, which defines the other options.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        type_ = brokers.broker_type(options.get("url"))
        self._options = checked(type_.schema(), options)
        self._broker = type_(self._options)

    def send(self, notice: Notice) -> Done:
        return Done(self._publish(self._message(notice)))

    def preview(self, notice: Notice) -> Preview:
        """Return the message that `send` would publish. Raises RenderFailed."""
        message = self._message(notice)
        return Preview(self._broker.title, self._broker.headers(message), message.body.decode())

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint, as the same JSON that a webhook sends."""
        names = dict.fromkeys(NAME_PLACEHOLDERS, "alert") | {"status": alert.kind.value}
        self._publish(_json_message(alert.as_json(), "alerts", names))

    def _message(self, notice: Notice) -> QueueMessage:
        """Return the message for an event. Raises RenderFailed."""
        task = notice.task
        names = {"status": notice.status, "provider": task.provider, "account": task.account}
        message = _json_message(notice.as_json(), task.id, names)
        body: Template | None = self._options["body"]
        if body is None:
            return message
        content_type = self._options["content_type"] or JSON_TYPE
        template = body.with_context(context_of(content_type))
        text = template.render(notice, hook=self.name, key="body")
        return replace(message, body=text.encode(), content_type=content_type)

    def _publish(self, message: QueueMessage) -> str:
        """Publish the message; return the broker's confirmation. Raises DeliveryFailure."""
        with Deadline(self._options["deadline"]) as clock:
            try:
                return one_line(self._broker.publish(message, clock))
            except DeliveryFailure:
                raise
            except Exception as error:  # a library may raise anything if a reply is malformed
                raise failure(error, self._broker.title, clock) from error


def _json_message(
    document: Mapping[str, Any], group: str, names: Mapping[str, str]
) -> QueueMessage:
    body = json_ascii(document, separators=(",", ":")).encode()
    return QueueMessage(document["id"], document["type"], group, body, JSON_TYPE, names)

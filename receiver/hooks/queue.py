"""Sends the event as JSON to a message queue: RabbitMQ, Redis Streams or Amazon SQS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from receiver.deliveries import Notice
from receiver.endpoints import Alert
from receiver.hooks import brokers
from receiver.hooks.base import Done
from receiver.hooks.brokers.base import NAME_PLACEHOLDERS, Message, failure
from receiver.hooks.options import checked
from receiver.outgoing.deadline import Deadline
from receiver.text.display import json_ascii, one_line

JSON = "application/json"


class Queue:
    """Publishes the JSON that a webhook receives. All attempts have the same message id.

    The URL selects the broker, which defines the other options.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name = name
        type_ = brokers.broker_type(options.get("url"))
        self._options = checked(type_.schema(), options)
        self._broker = type_(self._options)

    def send(self, notice: Notice) -> Done:
        task = notice.task
        names = {"status": notice.status, "provider": task.provider, "account": task.account}
        return Done(self._publish(notice.as_json(), task.id, names))

    def alert(self, alert: Alert) -> None:
        """Report the state of another hook's endpoint in the JSON of a webhook."""
        names = dict.fromkeys(NAME_PLACEHOLDERS, "alert") | {"status": alert.kind.value}
        self._publish(alert.as_json(), "alerts", names)

    def _publish(self, document: Mapping[str, Any], group: str, names: Mapping[str, str]) -> str:
        """Publish the document, which has an `id` and a `type`. Raises DeliveryFailure."""
        body = json_ascii(document, separators=(",", ":")).encode()
        message = Message(document["id"], document["type"], group, body, JSON, names)
        with Deadline(self._options["deadline"]) as clock:
            try:
                return one_line(self._broker.publish(message, clock))
            except Exception as error:  # a library may raise anything if the answer is malformed
                raise failure(error, self._broker.title, clock) from error

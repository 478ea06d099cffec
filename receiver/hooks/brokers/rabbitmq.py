"""Publishes to RabbitMQ with AMQP 0-9-1 and publisher confirms. Requires pika, an extra.

pika encodes and decodes the frames. We open the socket ourselves, because pika's own connections
have no deadline for the whole exchange.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pika
from marshmallow import ValidationError, fields, validates_schema
from pika import spec
from pika.connection import Connection
from pika.exceptions import ChannelClosedByBroker, ConnectionClosed

from receiver.errors import DeliveryFailure, PermanentFailure, TemporaryFailure
from receiver.hooks.brokers.base import (
    MAX_REPLY,
    Address,
    BrokerOptions,
    QueueMessage,
    SessionPool,
    broker_url,
    check_name,
    connect,
    filled_in,
    misdirected,
    quoted,
)
from receiver.outgoing.deadline import Deadline

PORTS = {"amqp": 5672, "amqps": 5671}
MAX_NAME = 255  # bytes of an AMQP short string, such as a name
READ = 64 * 1024  # bytes of one read
CONFIRMED, REFUSED, RETURNED = spec.Basic.Ack.NAME, spec.Basic.Nack.NAME, spec.Basic.Return.NAME
ACCESS_REFUSED, NOT_FOUND, PRECONDITION_FAILED, NOT_ALLOWED = 403, 404, 406, 530
HINTS = {
    ACCESS_REFUSED: "correct the user and the password in the URL, or the user's permissions",
    NOT_FOUND: 'declare the exchange, or correct "exchange"',
    NOT_ALLOWED: "correct the virtual host at the end of the URL, or the user's permissions",
}

# The attempt reports every failure, so pika must not log it again.
logging.getLogger("pika").setLevel(logging.CRITICAL)


class RabbitMqOptions(BrokerOptions):
    """The keys of a queue hook for RabbitMQ."""

    url = fields.String(
        required=True, validate=broker_url("amqps://user:password@rabbitmq.example.com/vhost")
    )
    exchange = fields.String(load_default="", validate=check_name)
    routing_key = fields.String(load_default="", validate=check_name)

    @validates_schema
    def _check_target(self, options: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        if not options.get("exchange") and not options.get("routing_key"):
            raise ValidationError(
                "is missing; set it to the name of the queue, or set exchange", "routing_key"
            )


class RabbitMq:
    """An exchange of RabbitMQ, with a routing key."""

    schema = RabbitMqOptions

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._address = Address.parse(options["url"], PORTS, "amqps")
        self.title = f"RabbitMQ at {self._address}"

    def headers(self, message: QueueMessage) -> dict[str, str]:
        exchange = filled_in(self._options["exchange"], message)
        return {
            **({"exchange": exchange} if exchange else {}),
            "routing_key": filled_in(self._options["routing_key"], message),
            "message_id": message.id,
            "type": message.type,
            "content_type": message.content_type,
        }

    def publish(self, message: QueueMessage, clock: Deadline) -> str:
        headers = self.headers(message)
        for name, value in headers.items():
            if len(value.encode("utf-8", "replace")) > MAX_NAME:
                raise PermanentFailure(f"{self.title}: {name} is longer than {MAX_NAME} bytes")
        open_ = partial(AmqpSession, self._address, clock)
        try:
            with _sessions.session(self._address, clock, open_) as session:
                outcome = session.publish(headers, message.body)
        except (ChannelClosedByBroker, ConnectionClosed) as error:
            raise self._closed(error) from error
        if outcome == CONFIRMED:
            return f"{self.title} confirmed the message"
        if outcome == RETURNED:
            exchange, routing_key = headers.get("exchange"), headers["routing_key"]
            where = f'exchange "{exchange}"' if exchange else "the default exchange"
            raise misdirected(
                self._options["exchange"] + self._options["routing_key"],
                f'{self.title}: {where} has no queue for the routing key "{quoted(routing_key)}"; '
                "declare the queue and bind it",
            )
        raise TemporaryFailure(f"{self.title}: a queue refused the message; it may be full")

    def _closed(self, error: ChannelClosedByBroker | ConnectionClosed) -> DeliveryFailure:
        """Return the failure after the broker closed the channel or the connection."""
        text = f"{self.title} answered {error.reply_code} {quoted(error.reply_text)}"
        if error.reply_code == PRECONDITION_FAILED and "size" in error.reply_text:
            return PermanentFailure(text)
        hint = HINTS.get(error.reply_code)
        text = f"{text}; {hint}" if hint else text
        if error.reply_code == NOT_FOUND:
            return misdirected(self._options["exchange"], text)
        return TemporaryFailure(text)


class AmqpSession(Connection):
    """A connection of pika with one channel, on a blocking socket. Used by one thread at a time.

    Overrides the same methods as pika's adapters for event loops.
    """

    if TYPE_CHECKING:  # not in pika's stubs, because only subclasses use them
        _error: Exception | None

        def _on_stream_connected(self) -> None: ...
        def _on_data_available(self, data_in: bytes) -> None: ...
        def _send_connection_close(self, reply_code: int, reply_text: str) -> None: ...

    def __init__(self, address: Address, clock: Deadline) -> None:
        """Connect and log in. Raises OSError or a pika exception."""
        self.socket = connect(address, clock)
        self._output = b""
        self._failure: Exception | None = None
        self._outcomes: list[str] = []
        parameters = pika.ConnectionParameters(
            address.host,
            address.port,
            address.path or "/",
            pika.PlainCredentials(address.username or "guest", address.password or "guest"),
            heartbeat=0,  # not needed, because idle connections are closed after a minute
            client_properties={"product": "callback-receiver"},
        )
        try:
            super().__init__(parameters)
            while not self.is_open:
                self._exchange()
            self.add_on_connection_blocked_callback(self._on_blocked)
            self._channel = self.channel()
            self._channel.add_on_close_callback(self._on_channel_closed)
            self._channel.add_on_return_callback(self._on_return)
            while not self._channel.is_open:
                self._exchange()
            self._channel.confirm_delivery(self._on_confirmation)
        except BaseException:
            self.socket.close()
            raise

    def publish(self, headers: Mapping[str, str], body: bytes) -> str:
        """Send a persistent message. Returns CONFIRMED if every queue for it has stored it.

        Returns RETURNED if there is no queue for it, and REFUSED if a queue did not accept it.
        Raises OSError or a pika exception.
        """
        self._outcomes.clear()
        self.socket.left = MAX_REPLY + len(body)  # a returned message contains its body
        properties = pika.BasicProperties(
            content_type=headers["content_type"],
            delivery_mode=pika.DeliveryMode.Persistent,
            message_id=headers["message_id"],
            timestamp=int(time.time()),
            type=headers["type"],
            app_id="callback-receiver",
        )
        self._channel.basic_publish(
            headers.get("exchange", ""), headers["routing_key"], body, properties, mandatory=True
        )
        while self._outcomes in ([], [RETURNED]):  # a returned message is confirmed as well
            self._exchange()
        return self._outcomes[0]

    def close(self, reply_code: int = 200, reply_text: str = "") -> None:
        """Close the connection; send a close frame first if that is possible without waiting."""
        with suppress(Exception):
            if self.is_open:
                self.socket.settimeout(0)
                self._send_connection_close(reply_code, reply_text)
                self.socket.send(self._output)
        self.socket.close()

    def _exchange(self) -> None:
        """Send all pending output, and process the next data from the broker."""
        output, self._output = self._output, b""
        if output:
            self.socket.sendall(output)
        data = self.socket.recv(READ)
        if not data:
            raise ConnectionError("the broker closed the connection")
        self._on_data_available(data)
        if self._failure is not None:
            raise self._failure

    def _on_blocked(self, _: object, frame: Any) -> None:
        # The broker no longer reads, so the message would wait until the deadline.
        reason = quoted(frame.method.reason) or "it gave no reason"
        self._failure = ConnectionError(f"the broker accepts no messages at the moment: {reason}")

    def _on_channel_closed(self, _: object, reason: Exception) -> None:
        self._failure = self._failure or reason

    def _on_return(self, *_: object) -> None:
        self._outcomes.append(RETURNED)

    def _on_confirmation(self, frame: Any) -> None:
        self._outcomes.append(frame.method.NAME)

    def _adapter_connect_stream(self) -> None:
        self._on_stream_connected()

    def _adapter_disconnect_stream(self) -> None:
        self._failure = self._error or ConnectionError("the broker closed the connection")

    def _adapter_emit_data(self, data: bytes) -> None:
        self._output += data

    def _adapter_call_later(self, delay: float, callback: Any) -> None:
        """Do nothing: without heartbeats, pika needs no timer."""

    def _adapter_remove_timeout(self, timeout_id: object) -> None:
        """Do nothing; see `_adapter_call_later`."""

    def _adapter_add_callback_threadsafe(self, callback: Any) -> None:
        """Do nothing: only one thread uses a session."""


_sessions: SessionPool[AmqpSession] = SessionPool()

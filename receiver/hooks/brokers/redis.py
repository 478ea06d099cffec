"""Adds entries to a stream of Redis or Valkey. Requires redis-py, an extra."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from marshmallow import ValidationError, fields, validate
from redis.connection import Connection
from redis.exceptions import RedisError, ResponseError

from receiver.errors import DeliveryFailure, TemporaryFailure
from receiver.hooks.brokers.base import (
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
from receiver.hooks.options import NOT_EMPTY
from receiver.outgoing.deadline import Deadline

PORTS = {"redis": 6379, "rediss": 6379}
HINTS = {
    "OOM": "free memory, or limit the stream with maxlen",
    "READONLY": "it is a replica; use the address of the primary",
    "MOVED": "it is part of a cluster; use the address of a proxy or of a single server",
    "NOAUTH": "add a password to the URL",
    "WRONGPASS": "correct the user and the password in the URL",
    "NOPERM": "allow this user to run XADD (with group, also XGROUP) on the stream",
    "WRONGTYPE": 'the key is not a stream; delete it, or correct "stream"',
}


def _check_url(value: str) -> None:
    broker_url("rediss://:password@redis.example.com/0")(value)
    database = value.partition("://")[2].partition("/")[2]
    if database and not (database.isascii() and database.isdigit()):
        raise ValidationError("ends with a database that is not a number; use one such as /0")


class RedisOptions(BrokerOptions):
    """The keys of a queue hook for Redis."""

    url = fields.String(required=True, validate=_check_url)
    stream = fields.String(required=True, validate=[NOT_EMPTY, check_name])
    maxlen = fields.Integer(load_default=None, validate=validate.Range(1, error="use 1 or more"))
    group = fields.String(load_default=None, validate=NOT_EMPTY)


class Redis:
    """A Redis stream."""

    schema = RedisOptions

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._address = Address.parse(options["url"], PORTS, "rediss")
        self.title = f"Redis at {self._address}"

    def headers(self, message: QueueMessage) -> dict[str, str]:
        return {
            "stream": filled_in(self._options["stream"], message),
            "id": message.id,
            "type": message.type,
            "content_type": message.content_type,
        }

    def publish(self, message: QueueMessage, clock: Deadline) -> str:
        entry: dict[str, str | bytes] = {**self.headers(message), "body": message.body}
        stream = str(entry.pop("stream"))
        maxlen, group = self._options["maxlen"], self._options["group"]
        try:
            open_ = partial(RedisSession, self._address, clock)
            with _sessions.session(self._address, clock, open_) as session:
                reply = session.add(stream, entry, maxlen, group)
        except RedisError as error:
            if error.status_code is None:  # no reply of the server
                cause = error.__context__
                raise cause if isinstance(cause, OSError) else ConnectionError(error) from error
            raise self._refused(error) from error
        if isinstance(reply, ResponseError):
            raise self._refused(reply)
        return f"{self.title} added the entry {quoted(reply)}"

    def _refused(self, error: RedisError) -> DeliveryFailure:
        """Return the failure for an error reply. The library removes the code from some replies."""
        text = f"{error.status_code or ''} {error}".strip()
        code = text.partition(" ")[0]
        hint = HINTS.get(code)
        text = f"{self.title} answered {quoted(text)}" + (f"; {hint}" if hint else "")
        if code == "WRONGTYPE":
            return misdirected(self._options["stream"], text)
        return TemporaryFailure(text)


class RedisSession(Connection):
    """A connection of redis-py on our own socket. Used by one thread at a time."""

    def __init__(self, address: Address, clock: Deadline) -> None:
        """Connect and log in. Raises OSError or RedisError."""
        self._groups: set[tuple[str, str]] = set()
        self.socket = connect(address, clock)
        super().__init__(  # type: ignore[no-untyped-call]
            host=address.host,
            port=address.port,
            db=int(address.path or 0),
            username=address.username or None,
            password=address.password or None,
            socket_timeout=clock.seconds,
            protocol=2,
            driver_info=None,
        )
        try:
            self.connect()  # type: ignore[no-untyped-call]
        except BaseException:
            self.socket.close()
            raise

    def add(
        self, stream: str, entry: Mapping[str, str | bytes], maxlen: int | None, group: str | None
    ) -> str | ResponseError:
        """Add an entry. Returns its id, or the error reply of the server.

        Creates the consumer group first, unless this connection has already done so. The group
        starts at the first entry of the stream. Raises OSError or RedisError.
        """
        if group is not None and (stream, group) not in self._groups:
            reply = self._call("XGROUP", "CREATE", stream, group, "0", "MKSTREAM")
            if isinstance(reply, ResponseError) and not str(reply).startswith("BUSYGROUP"):
                return reply
            self._groups.add((stream, group))
        limit = () if maxlen is None else ("MAXLEN", "~", maxlen)
        pairs: list[str | bytes] = [part for pair in entry.items() for part in pair]
        return self._call("XADD", stream, *limit, "*", *pairs)

    def close(self) -> None:
        """Close the connection."""
        self.disconnect()  # type: ignore[no-untyped-call]

    def _call(self, *command: str | bytes | int) -> str | ResponseError:
        self.send_command(*command)  # type: ignore[no-untyped-call]
        try:
            reply = self.read_response()
        except ResponseError as error:  # the connection can be used for the next command
            return error
        return reply.decode("utf-8", "replace") if isinstance(reply, bytes) else str(reply)

    def _connect(self) -> Any:
        return self.socket


_sessions: SessionPool[RedisSession] = SessionPool()

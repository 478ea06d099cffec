"""The contract of brokers, and the pool of connections that stay open between deliveries."""

from __future__ import annotations

import atexit
import math
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from marshmallow import ValidationError, fields, validates_schema

from receiver.errors import ContentFailure, DeliveryFailure, TemporaryFailure, TimedOut
from receiver.hooks import wording
from receiver.hooks.options import Options, placeholders, seconds
from receiver.hooks.templates import Context, TemplateField, checked_template, context_of
from receiver.outgoing.deadline import Deadline, watchdog
from receiver.outgoing.tls import system_context

MAX_REPLY = 64 * 1024  # bytes that a broker may send in reply to one message
MAX_IDLE_SECONDS = 60.0
MAX_IDLE = 16  # connections that a pool keeps
QUOTED = 200  # characters of a broker's reply in an error
JSON_TYPE = "application/json"
NAME_PLACEHOLDERS = ("status", "provider", "account")
CONTENT_TYPE = re.compile(r"[!-~]{1,80}/[ -~]{1,120}")
PLACEHOLDER = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True, slots=True)
class QueueMessage:
    """An event or an alert, as it is sent to a queue."""

    id: str  # the same in every attempt
    type: str  # such as `task.succeeded`
    group: str  # the id of the task; a FIFO queue keeps the order within a group
    body: bytes
    content_type: str
    names: Mapping[str, str]  # the values of NAME_PLACEHOLDERS


class Broker(Protocol):
    """A queue of one broker, built from the options of a hook."""

    title: str  # the broker and its address, for messages to people

    def headers(self, message: QueueMessage) -> dict[str, str]:
        """Return what is sent in addition to the body: the target, the id and other properties."""
        ...

    def publish(self, message: QueueMessage, clock: Deadline) -> str:
        """Return the broker's confirmation that the message is in the queue, as one line.

        Respects the deadline of `clock`. Raises DeliveryFailure, or any other exception if the
        connection fails.
        """
        ...


class BrokerType(Protocol):
    """Builds a broker from the options of a hook; usually the class of the broker."""

    schema: type[Options]

    def __call__(self, options: Mapping[str, Any]) -> Broker: ...


def _check_content_type(value: str) -> None:
    if not CONTENT_TYPE.fullmatch(value):
        raise ValidationError("is not a content type; use one like text/plain; charset=utf-8")


class BrokerOptions(Options):
    """The options of every broker."""

    url = fields.String(required=True)
    body = TemplateField(Context.TEXT)
    content_type = fields.String(load_default=None, validate=_check_content_type)
    deadline = seconds(15)

    @validates_schema
    def _check_body(self, options: Mapping[str, Any], **kwargs: Any) -> None:  # noqa: ARG002
        body, content_type = options.get("body"), options.get("content_type")
        if content_type and not body:
            raise ValidationError("requires body", "content_type")
        if body:
            checked_template(body.with_context(context_of(content_type or JSON_TYPE)), "body")


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a broker's URL, decoded."""

    host: str
    port: int
    is_encrypted: bool
    username: str
    password: str
    path: str  # without the first slash

    @classmethod
    def parse(cls, url: str, usual_ports: Mapping[str, int], encrypted: str) -> Address:
        """Return the parts of a valid URL.

        `usual_ports` maps each scheme to its default port, and `encrypted` is the scheme with TLS.
        """
        parts = urlsplit(url)
        return cls(
            host=parts.hostname or "",
            port=parts.port or usual_ports[parts.scheme],
            is_encrypted=parts.scheme == encrypted,
            username=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            path=unquote(parts.path[1:]),
        )

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def broker_url(example: str) -> Callable[[str], None]:
    """Return a validator for URLs like this one, whose scheme was checked before."""

    def check(value: str) -> None:
        try:
            parts = urlsplit(value)
            is_valid = bool(parts.hostname) and parts.port != 0
        except ValueError:
            parts, is_valid = SplitResult("", "", "", "", ""), False
        if not is_valid:
            raise ValidationError(
                f"is not a URL; use one like {example}, with special characters percent-encoded"
            )
        if parts.query or parts.fragment:
            raise ValidationError(
                'ends with "?…" or "#…"; remove that part, and use options of the hook instead'
            )

    return check


def check_name(template: str) -> None:
    """Validate a name that may contain NAME_PLACEHOLDERS."""
    placeholders(template, NAME_PLACEHOLDERS)
    if not template.isprintable():
        raise ValidationError("contains a character that is not printable; remove it")


def filled_in(template: str, message: QueueMessage) -> str:
    """Return the name with its placeholders replaced by the values of this message."""
    return PLACEHOLDER.sub(lambda found: message.names[found[1]], template)


def misdirected(template: str, text: str) -> DeliveryFailure:
    """Return the failure for a message whose target does not exist or is not a queue.

    If the target depends on the event, other events may have other targets, so the circuit breaker
    must not delay them.
    """
    return ContentFailure(text) if PLACEHOLDER.search(template) else TemporaryFailure(text)


def quoted(reply: object) -> str:
    """Return the beginning of a broker's reply as one line."""
    return wording.quoted(str(reply), QUOTED)


def failure(error: Exception, title: str, clock: Deadline) -> DeliveryFailure:
    """Return the failure for an exception that a socket or a library raised."""
    if clock.passed or isinstance(error, TimeoutError):
        return TimedOut(f"{title}: no complete answer within {clock.seconds:g} s")
    if isinstance(error, ssl.SSLCertVerificationError):
        return TemporaryFailure(f"{title}: the certificate is not trusted: {error.verify_message}")
    reason = error.strerror if isinstance(error, OSError) else None
    return TemporaryFailure(f"{title}: {quoted(reason or error) or type(error).__name__}")


class BoundedSocket:
    """A socket that raises OSError after it has received `left` bytes."""

    def __init__(self, inner: socket.socket) -> None:
        self.inner = inner
        self.left = MAX_REPLY

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def recv(self, size: int) -> bytes:
        data = self.inner.recv(size)
        self._count(len(data))
        return data

    def recv_into(self, *args: Any) -> int:
        size = self.inner.recv_into(*args)
        self._count(size)
        return size

    def _count(self, size: int) -> None:
        self.left -= size
        if self.left < 0:
            raise OSError("the reply does not end")


def connect(address: Address, clock: Deadline) -> BoundedSocket:
    """Open a connection, with TLS if the address requires it. Raises OSError or ValueError."""
    connection = clock.connect(address.host, address.port)
    try:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(
            clock.seconds
        )  # for each read; the deadline ends the exchange earlier
        if address.is_encrypted:
            context = system_context()
            connection = context.wrap_socket(connection, server_hostname=address.host)
    except BaseException:
        connection.close()
        raise
    return BoundedSocket(connection)


class BrokerSession(Protocol):
    """An open connection that sends one message at a time."""

    socket: BoundedSocket

    def close(self) -> None:
        """Close the connection without waiting for the broker."""
        ...


S = TypeVar("S", bound=BrokerSession)
_pools: list[SessionPool[Any]] = []


@dataclass(frozen=True, slots=True)
class _Idle(Generic[S]):
    key: Hashable
    session: S
    expires_at: float  # seconds on the monotonic clock


class SessionPool(Generic[S]):
    """The open connections of this process to brokers of one kind. Thread-safe.

    A connection is used by one thread at a time. It is kept for the next message if the exchange
    ended within its deadline without an exception, and closed after it has been idle for
    MAX_IDLE_SECONDS. A forked process does not use its parent's connections.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[_Idle[S]] = []
        os.register_at_fork(after_in_child=self._after_fork)
        _pools.append(self)

    @contextmanager
    def session(self, key: Hashable, clock: Deadline, open_: Callable[[], S]) -> Iterator[S]:
        """Yield an idle connection with this key, or else a new one from `open_`."""
        session = self._take(key)
        is_kept = False
        try:
            if session is None:
                session = open_()
            else:
                clock.watch(session.socket.inner)
                session.socket.left = MAX_REPLY
            session.socket.settimeout(clock.seconds)
            yield session
            is_kept = clock.release()
        finally:
            if is_kept and session is not None:
                self._put(key, session)
            elif session is not None:
                session.close()

    def close_expired(self, now: float | None = None) -> None:
        """Close the connections whose idle time has expired by `now`; None: the current time."""
        with self._lock:
            by = time.monotonic() if now is None else now
            expired = [idle for idle in self._idle if idle.expires_at <= by]
            self._idle = [idle for idle in self._idle if idle.expires_at > by]
            self._schedule()
        for idle in expired:
            idle.session.close()

    def _take(self, key: Hashable) -> S | None:
        """Remove and return the most recently used connection; close those that are unusable."""
        while True:
            with self._lock:
                found = next((idle for idle in reversed(self._idle) if idle.key == key), None)
                if found is None:
                    return None
                self._idle.remove(found)
            if found.expires_at > time.monotonic() and _is_silent(found.session.socket.inner):
                return found.session
            found.session.close()

    def _put(self, key: Hashable, session: S) -> None:
        with self._lock:
            self._idle.append(_Idle(key, session, time.monotonic() + MAX_IDLE_SECONDS))
            surplus = self._idle[:-MAX_IDLE]
            del self._idle[:-MAX_IDLE]
            self._schedule()
        for idle in surplus:
            idle.session.close()

    def _schedule(self) -> None:
        if self._idle:
            watchdog.call_at(self, self._idle[0].expires_at, self.close_expired)
        else:
            watchdog.cancel(self)

    def _after_fork(self) -> None:
        """Close the descriptors in the child without sending anything: the parent uses them."""
        self._lock = threading.Lock()
        inherited, self._idle = self._idle, []
        for idle in inherited:
            idle.session.socket.inner.close()


@atexit.register
def close_idle() -> None:
    """Close all idle connections of this process to brokers."""
    for pool in _pools:
        pool.close_expired(math.inf)


def _is_silent(connection: socket.socket) -> bool:
    """Return whether the connection is open, and the broker has sent nothing while it was idle."""
    try:
        connection.settimeout(0)
        connection.recv(1)
    except (BlockingIOError, ssl.SSLWantReadError):
        return True
    except OSError:
        return False
    return False

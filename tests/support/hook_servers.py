"""Servers that the hooks call in tests: HTTP (correct or not) and SMTP, on loopback."""

# ruff: noqa: ARG002, N802 - aiosmtpd calls its handlers by these names, with these arguments
from __future__ import annotations

import asyncio
import io
import socket
import ssl
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, Envelope, LoginPassword
from PIL import Image

from receiver.deliveries import Notice, Transition
from receiver.events import Media
from receiver.tasks import Status, Task, Trust
from tests.support.http_server import LoopbackServer
from tests.support.patience import PATIENCE

TLS = Path(__file__).parents[1] / "data" / "tls"
CERT, KEY = TLS / "cert.pem", TLS / "key.pem"  # for localhost and 127.0.0.1, until 2126


def server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERT, KEY)
    return context


def notice(status: str = "succeeded", media: tuple[Media, ...] = (), **task: Any) -> Notice:
    """Return a notice of a task that ended after 25 s."""
    values = {
        "id": "0199f1a2",
        "provider": "kling",
        "status": Status(status) if status != "given_up" else Status.PROCESSING,
        "created_at": 1_765_519_825_000,
        "updated_at": 1_765_519_850_000,
        "reference": "ORDER-7",
        **task,
    }
    return Notice(
        Task(**values), Transition(status, 1_765_519_850_000, 1_765_519_851_000, Trust.TOKEN), media
    )


def picture(fmt: str = "PNG", size: tuple[int, int] = (64, 48), **save: Any) -> bytes:
    out = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").save(out, fmt, **save)
    return out.getvalue()


@dataclass
class Page:
    """The response of a site at one path."""

    body: bytes = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Request:
    """A request that a site has received."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


class Site:
    """An HTTP server whose pages are set by the test. Unknown paths return 404."""

    def __init__(self, *, tls: bool = False) -> None:
        self.pages: dict[str, Page] = {}
        self.requests: list[Request] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                if "Expect" in self.headers:  # S3's clients wait for "100 Continue"
                    self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                site.requests.append(
                    Request(self.command, self.path, dict(self.headers), self.rfile.read(length))
                )
                page = site.pages.get(self.path, Page(b"no such page", 404))
                self.send_response(page.status)
                for name, value in page.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(page.body)))
                self.end_headers()
                with suppress(OSError):  # a client may close the connection when it has read enough
                    self.wfile.write(b"" if self.command == "HEAD" else page.body)

            do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815

            def log_message(self, *args: object) -> None:
                """Log nothing, because pytest shows standard error."""

        self.server = LoopbackServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = server_tls().wrap_socket(self.server.socket, server_side=True)
        scheme, host = ("https", "localhost") if tls else ("http", "127.0.0.1")
        self.url = f"{scheme}://{host}:{self.server.server_port}"

    def __enter__(self) -> Site:
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@dataclass
class Endless:
    """A response that begins with this head and never ends: `rest` is repeated."""

    head: bytes
    rest: bytes = b"a"

    def __iter__(self) -> Iterator[int]:
        yield from self.head
        while True:
            yield from self.rest


@contextmanager
def dripping(
    answer: Iterable[int],
    *,
    pause: float = 0.05,
    greeting: bool = False,
    tls: bool = False,
    then_wait: bool = False,
) -> Iterator[int]:
    """Yield the port of a server that sends its response byte by byte.

    With `greeting`, it sends it without waiting for a request.
    """
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        if not greeting:
            connection.recv(65536)
        for byte in answer:
            connection.sendall(bytes([byte]))
            if over.wait(pause):
                break
        if then_wait:
            over.wait()

    def receive() -> None:
        connection, _ = listener.accept()
        with connection, suppress(OSError):
            if not tls:
                talk(connection)
                return
            with server_tls().wrap_socket(connection, server_side=True) as encrypted:
                talk(encrypted)

    def serve() -> None:
        with suppress(OSError):  # the listener is shut down
            while not over.is_set():
                receive()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(PATIENCE)


@dataclass
class Mailbox:
    """The messages that an SMTP server has accepted, and its refusals."""

    port: int = 0
    letters: list[tuple[Envelope, EmailMessage]] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)  # by command, or by recipient
    largest: dict[str, int] = field(default_factory=dict)  # sizes of messages in bytes, by the same
    too_large: str = "552 5.3.4 Message size exceeds fixed limit"
    offered: list[int] = field(default_factory=list)  # sizes of messages as stated in MAIL
    sessions: int = 0  # that ended with QUIT

    async def handle_MAIL(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if "MAIL" in self.refuse:
            return self.refuse["MAIL"]
        size = _stated_size(options)
        self.offered.append(size)
        if size > self.largest.get("MAIL", size):
            return self.too_large
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 OK"

    async def handle_RCPT(
        self, server: Any, session: Any, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.refuse.get(address) or self.refuse.get("RCPT"):
            return refusal
        size = _stated_size(envelope.mail_options)
        if size > min(self.largest.get(address, size), self.largest.get("RCPT", size)):
            return self.too_large
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Envelope) -> str:
        if "DATA" in self.refuse:
            return self.refuse["DATA"]
        assert isinstance(envelope.content, bytes)
        size = len(envelope.content)
        if size > self.largest.get("DATA", size):
            return self.too_large
        message = message_from_bytes(envelope.content, policy=default)
        assert isinstance(message, EmailMessage)
        self.letters.append((envelope, message))
        self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return "250 2.0.0 OK: queued as 4711"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Envelope) -> str:
        self.sessions += 1
        return self.refuse.get("QUIT", "221 Bye")

    def log_in(
        self, server: Any, session: Any, envelope: Any, mechanism: str, data: LoginPassword
    ) -> AuthResult:
        login = (data.login.decode(), data.password.decode())
        self.logins.append(login)
        return AuthResult(success=login == ("shop", "right"), handled=False)


def _stated_size(options: list[str]) -> int:
    sizes = [option.partition("=")[2] for option in options if option.startswith("SIZE=")]
    return int(sizes[0]) if sizes else 0


class _OnFreePort(Controller):
    """A controller of aiosmtpd that lets the system choose its port (0)."""

    def _trigger_server(self) -> None:
        """Connect once, so that a fault of the handler is found before the test begins.

        aiosmtpd's own version gives up after a second, which a busy machine can need.
        """
        assert isinstance(self.server, asyncio.Server)
        self.port = self.server.sockets[0].getsockname()[1]
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            if not self.ssl_context:
                connection.recv(1024)


@contextmanager
def smtp_server(
    *,
    starttls: bool = False,
    tls: bool = False,
    login: bool = False,
    announced_size: int | None = 100_000_000,  # bytes
) -> Iterator[Mailbox]:
    box = Mailbox()
    options: dict[str, Any] = {
        "enable_SMTPUTF8": True,
        "ready_timeout": PATIENCE,
        "data_size_limit": announced_size,
    }
    if starttls:
        options["tls_context"] = server_tls()
    if tls:
        options["ssl_context"] = server_tls()
    if login:
        options |= {
            "authenticator": box.log_in,
            "auth_required": True,
            "auth_require_tls": starttls,
        }
    controller = _OnFreePort(box, hostname="127.0.0.1", port=0, **options)
    with warnings.catch_warnings():  # each connection causes one, and some tests are about it
        warnings.filterwarnings("ignore", "Requiring AUTH while not requiring TLS")
        controller.start()
        box.port = controller.port
        try:
            yield box
        finally:
            controller.stop()


events: list[dict[str, Any]] = []  # the arguments of `on_event`
refusals: list[Exception] = []  # what it raises


def on_event(event: dict[str, Any]) -> str:
    """A user's function, for hooks of type python."""
    if refusals:
        raise refusals[0]
    events.append(event)
    return "noted"

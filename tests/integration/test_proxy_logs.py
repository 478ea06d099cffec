"""No token of a callback URL is in a log of nginx or Caddy, whatever happens to the request.

The proxies run with the files of deploy/. Requests that they answer with an error are logged too.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.support.broken_requests import (
    ABORTED,
    BROKEN,
    CALLBACK,
    ORDINARY,
    TOKEN,
    request,
    reset,
    response,
)
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.proxies import (
    NAME,
    adapted_caddyfile,
    adapted_nginx,
    certificate,
    connect_by_tls,
)
from tests.support.real_servers import caddy, nginx, place
from tests.support.unprivileged_user import give


@contextmanager
def in_thread(work: Callable[[], None], listening: socket.socket) -> Iterator[None]:
    """Run the work on a thread; it ends with an OSError when its socket is shut down."""

    def run() -> None:
        with suppress(OSError):
            work()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(OSError):
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(PATIENCE)


@contextmanager
def upstream() -> Iterator[int]:
    """A server whose behaviour depends on the path; yields its port."""
    is_over = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            received = connection.recv(65_536)
            word = next((word for word in BROKEN if f"/{word}".encode() in received), "")
            if b"/hangs/" in received:
                is_over.wait(PATIENCE)
            connection.sendall(BROKEN.get(word, b""))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65_536):
                pass

    def accept() -> None:
        while True:
            connection, _ = listening.accept()
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    with in_thread(accept, listening):
        yield listening.getsockname()[1]
        is_over.set()


@contextmanager
def syslog(path: Path) -> Iterator[list[bytes]]:
    """Yield the messages that arrive at a socket like /dev/log."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    give(path)
    messages: list[bytes] = []

    def receive() -> None:
        while message := listening.recv(65_536):
            messages.append(message)

    with in_thread(receive, listening):
        yield messages


def in_http2(path: str) -> bytes:
    """Return a request in HTTP/2: the preface, settings, headers as they are, the body."""
    fields = {
        ":method": "POST",
        ":scheme": "https",
        ":authority": NAME,
        ":path": path,
        "referer": f"https://{NAME}/{TOKEN}",
    }

    def text(value: str) -> bytes:
        length = len(value)
        prefix = bytes([length]) if length < 127 else bytes([127, length - 127])
        return prefix + value.encode()

    block = b"".join(b"\0" + text(name) + text(value) for name, value in fields.items())

    def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
        length = struct.pack(">I", len(payload))[1:]
        return length + struct.pack(">BBI", kind, flags, stream) + payload

    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"")
    return preface + frame(1, 4, 1, block) + frame(0, 1, 1, b"{}")


def send_in_http2(port: int, path: str) -> None:
    """Send a request and wait for a response or a refusal, unless HTTP/1.1 is used."""
    with connect_by_tls(port, "h2") as connection:
        if connection.selected_alpn_protocol() != "h2":
            return
        connection.sendall(in_http2(path))
        received = b""
        # Wait for headers or a reset of stream 1, or until the connection is closed.
        while not re.search(rb"(?s)[\x01\x03].\0\0\0\x01|\x07.\0\0\0\0", received):
            data = connection.recv(65_536)
            if not data:
                return
            received += data


def attack(port: int, plain_port: int) -> None:
    """Send every failing request while the server behind the proxy runs."""

    def plain(port: int) -> socket.socket:
        return socket.create_connection(("127.0.0.1", port), PATIENCE)

    for sent in ORDINARY.values():
        response(connect_by_tls(port), sent)
        response(plain(plain_port), sent)
    for sent in ABORTED.values():
        reset(connect_by_tls(port), sent)
    for sent in (ORDINARY["closes"], b"\x16\x03\x01\x00\x05" + TOKEN.encode()):  # no TLS
        response(plain(port), sent)
    for word in (*BROKEN, "\n"):
        send_in_http2(port, f"/callbacks/kling/{word}/{TOKEN}")


def test_no_log_of_nginx_has_a_token() -> None:
    with place("nginx") as server, syslog(server.folder / "syslog") as messages, ExitStack() as up:
        certificate(server)
        ports = free_port(), free_port()
        site = adapted_nginx(server.folder, *ports, up.enter_context(upstream()))
        assert "proxy_read_timeout 60s" in site
        site = site.replace("proxy_read_timeout 60s", "proxy_read_timeout 1s")
        with nginx(server, site, ports[0]):
            attack(*ports)
            assert b" 504 " in response(connect_by_tls(ports[0]), ABORTED["while it waits"])
            up.close()
            assert b" 502 " in response(connect_by_tls(ports[0]), request(CALLBACK))
            expected = {b" 413 ", b" 502 ", b" 504 "}
            wait_until(lambda: all(one in b"".join(messages) for one in expected), server.output)
        assert TOKEN not in server.output()
        assert TOKEN.encode() not in b"".join(messages)


def test_no_log_of_caddy_has_a_token() -> None:
    with place("caddy") as server, ExitStack() as up:
        certificate(server)
        ports = free_port(), free_port()
        text = adapted_caddyfile(server.folder, *ports, up.enter_context(upstream()))
        assert "lb_try_duration 30s" in text
        with caddy(server, text.replace("lb_try_duration 30s", "lb_try_duration 0s"), ports[0]):
            attack(*ports)
            up.close()
            assert b" 502 " in response(connect_by_tls(ports[0]), request(CALLBACK))
            wait_until(lambda: "connection refused" in server.output(), server.output)
        assert TOKEN not in server.output()

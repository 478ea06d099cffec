"""No token of a callback URL is in a log of nginx or Caddy, whatever happens to the request.

The proxies run with the files of deploy/. What they answer with an error is logged all the same.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from receiver.signing import mint
from receiver.web.admission import LONGEST_CALLBACK
from submitter.api import LONGEST_BODY
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
from tests.support.samples import SECRET
from tests.support.unprivileged_user import give

TOKEN = mint(SECRET, "kling", "task-1")
HEADERS = f"Host: {NAME}\r\nReferer: https://{NAME}/{TOKEN}\r\nCookie: {TOKEN}\r\nX-Any: {TOKEN}"
# What the server behind the proxy does with a request whose path has this word.
BROKEN = {
    "closes": b"",
    "cuts": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    "garbles": b"HTTP/1.1 9999 What\r\n\r\n",
    "refuses": b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n",
    "fails": b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
    "redirects": f"HTTP/1.1 308 Other\r\nLocation: /{TOKEN}\r\nContent-Length: 0\r\n\r\n".encode(),
}


def request(path: str, method: str = "POST", length: int = 2, body: bytes | None = None) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\n{HEADERS}\r\nContent-Length: {length}\r\n\r\n"
    return head.encode() + (b"x" * length if body is None else body)


CALLBACK = f"/callbacks/kling/task-1/{TOKEN}"
ORDINARY = {word: request(f"/callbacks/kling/{word}/{TOKEN}") for word in BROKEN} | {
    "query": request(f"/callbacks/closes?token={TOKEN}"),
    "percent-encoded": request(f"/callbacks//closes/%2e%2F{TOKEN}%20//?a=%2F{TOKEN};c"),
    "absolute": request(f"https://{NAME}/closes/{TOKEN}"),
    "too long": request(CALLBACK, length=LONGEST_CALLBACK + 1, body=b"x"),
    "too long for the API": request(f"/api/{TOKEN}", length=LONGEST_BODY + 1_000_000, body=b"x"),
    "too long in chunks": (
        f"POST {CALLBACK} HTTP/1.1\r\n{HEADERS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n" % (LONGEST_CALLBACK + 1)
        + b"x" * (LONGEST_CALLBACK + 1)
        + b"\r\n0\r\n\r\n"
    ),
    "no number as length": request(CALLBACK).replace(b"Length: 2", b"Length: two"),
    "too large a number as length": request(CALLBACK).replace(
        b"Length: 2", b"Length: " + b"9" * 30
    ),
    "bad chunk": (
        f"POST {CALLBACK} HTTP/1.1\r\n{HEADERS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + f"{TOKEN}\r\n".encode()
    ),
    "method": request(CALLBACK, "TRACE"),
    "method that is none": request(CALLBACK, f"GET/{TOKEN}"),
    "CONNECT": request(CALLBACK, "CONNECT"),
    "version": request(CALLBACK).replace(b"HTTP/1.1", b"HTTP/7.5", 1),
    "no version": f"POST {CALLBACK}\r\n\r\n".encode(),
    "above the root": request(f"/../../{TOKEN}"),
    "bad escape": request(f"/callbacks/{TOKEN}%zz%00"),
    "control character": request(f"/callbacks/{TOKEN}\x01"),
    "not ASCII": request(f"/callbacks/{TOKEN}/ü"),
    "long line": request(f"/callbacks/{TOKEN}/" + "x" * 70_000),
    "long header": request(CALLBACK).replace(b"X-Any: ", b"X-Any: " + b"x" * 1_200_000),
    "bad header": request(CALLBACK).replace(b"X-Any: ", f"{TOKEN} : ".encode()),
    "bad host": request(CALLBACK).replace(NAME.encode(), f"{TOKEN}/x".encode(), 1),
    "other host": request(CALLBACK).replace(NAME.encode(), b"another.example.com", 1),
    "no host": f"POST {CALLBACK} HTTP/1.1\r\n\r\n".encode(),
    "two hosts": request(CALLBACK).replace(b"Cookie: ", b"Host: "),
}
ABORTED = {
    "while it waits": request(f"/callbacks/hangs/{TOKEN}"),
    "in the body": request(CALLBACK, length=1000, body=b"x"),
    "in a header": f"POST {CALLBACK} HTTP/1.1\r\nX-Any: {TOKEN}".encode(),
    "in the request line": f"POST {CALLBACK}".encode(),
}


@contextmanager
def in_thread(work: Callable[[], None], listening: socket.socket) -> Iterator[None]:
    """Run the work, which ends with an OSError once the socket is shut down behind the block."""

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
    """A server that does what the path says; its port."""
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
    """The messages that arrive at a socket like /dev/log."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listening.bind(str(path))
    give(path)
    messages: list[bytes] = []

    def receive() -> None:
        while message := listening.recv(65_536):
            messages.append(message)

    with in_thread(receive, listening):
        yield messages


def response(connection: socket.socket, sent: bytes) -> bytes:
    """Return the first bytes of the response, or nothing if the connection was only closed."""
    with connection:
        with suppress(OSError):  # refused before all of it was sent
            connection.sendall(sent)
        with suppress(OSError):
            return connection.recv(4096)
    return b""


def reset(connection: socket.socket, sent: bytes) -> None:
    """Send this, and break the connection off."""
    with connection:
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


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
    """Send a request and wait until it is answered or refused, unless HTTP/1.1 is spoken."""
    with connect_by_tls(port, "h2") as connection:
        if connection.selected_alpn_protocol() != "h2":
            return
        connection.sendall(in_http2(path))
        received = b""
        # Until headers or a reset of stream 1, or until the connection is given up.
        while not re.search(rb"(?s)[\x01\x03].\0\0\0\x01|\x07.\0\0\0\0", received):
            data = connection.recv(65_536)
            if not data:
                return
            received += data


def attack(port: int, plain_port: int) -> None:
    """Send every request that goes wrong while the server behind the proxy runs."""

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

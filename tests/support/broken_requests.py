"""Requests with a callback token that fail in every way, and a client that sends them."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress

from receiver.signing.callback_urls import mint
from receiver.text.limits import MAX_BODY
from submitter.api import LONGEST_BODY
from tests.support.proxies import NAME
from tests.support.samples import SECRET

TOKEN = mint(SECRET, "kling", "task-1")
HEADERS = f"Host: {NAME}\r\nReferer: https://{NAME}/{TOKEN}\r\nCookie: {TOKEN}\r\nX-Any: {TOKEN}"
# The behaviours of the server behind the proxy, by a word in the path of the request.
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
    "too long": request(CALLBACK, length=MAX_BODY + 1, body=b"x"),
    "too long for the API": request(f"/api/{TOKEN}", length=LONGEST_BODY + 1_000_000, body=b"x"),
    "too long in chunks": (
        f"POST {CALLBACK} HTTP/1.1\r\n{HEADERS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        + b"%x\r\n" % (MAX_BODY + 1)
        + b"x" * (MAX_BODY + 1)
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


def response(connection: socket.socket, sent: bytes) -> bytes:
    """Return the first bytes of the response; empty if the connection was closed without one."""
    with connection:
        with suppress(OSError):  # the server refused it before all of it was sent
            connection.sendall(sent)
        with suppress(OSError):
            return connection.recv(4096)
    return b""


def reset(connection: socket.socket, sent: bytes) -> None:
    """Send the data, then reset the connection."""
    with connection:
        connection.sendall(sent)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

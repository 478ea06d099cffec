"""The ordinary callback, as nearly all are: read from its bytes, strictly; pure.

What is not ordinary is left to gunicorn's parser and Flask, which know all of HTTP. So this may
understand less than they do, and never anything else.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from gunicorn import SERVER, util

from receiver.tasks import Outcome

LONGEST_BODY = 32 * 1024  # bytes; real ones are a few kB, and a long one would hold up the loop
_HEAD = re.compile(
    rb"POST /callbacks/([a-z]{1,32})/([A-Za-z0-9_-]{1,64})/([A-Za-z0-9_-]{43}) HTTP/1\.1\r\n"
    rb"((?:[A-Za-z0-9-]{1,64}:[ -~]{0,4000}\r\n){1,40})\r\n"
)
_HOST = re.compile(r"[A-Za-z0-9.-]{1,255}(?::[0-9]{1,5})?")
_LENGTH = re.compile(r"[0-9]{1,5}")
# They change where a request ends, or what is to be answered.
_EXTRAORDINARY = frozenset(
    ("Content-Encoding", "Expect", "Http2-Settings", "Transfer-Encoding", "Upgrade")
)
_KEEPS = {"": True, "keep-alive": True, "close": False}  # by the header Connection
_JSON = ("application/json", "application/json; charset=utf-8", "application/json;charset=utf-8")
_HEADER = "HTTP/1.1 200 OK\r\nServer: {}\r\nDate: {}\r\nConnection: {}\r\nContent-Type: {}\r\n"
_REST = "Content-Length: {}\r\nX-Request-Id: {}\r\n\r\n{}"
BODIES = {outcome: f'{{"outcome":"{outcome}"}}\n' for outcome in Outcome}  # of every answer


@dataclass(frozen=True, slots=True)
class Ordinary:
    """A callback whose sender is still to be trusted. `size`: how many bytes are its own."""

    provider: str
    task_id: str
    token: str
    headers: Mapping[str, str]  # named as Flask names them
    body: bytes
    size: int

    @property
    def keeps(self) -> bool:
        """Does its sender want the connection to stay open?"""
        return _KEEPS[self.headers.get("Connection", "").lower()]


def read(data: bytes | bytearray) -> Ordinary | None:
    """The ordinary callback that these bytes begin with, or None; all of it has to be there."""
    head = _HEAD.match(data)
    headers = _headers(head[4]) if head else None
    if head is None or headers is None:
        return None
    size = head.end() + int(headers["Content-Length"])
    body = bytes(data[head.end() : size])
    if not 0 < len(body) == size - head.end() <= LONGEST_BODY:
        return None
    provider, task_id, token = (head[place].decode("ascii") for place in (1, 2, 3))
    return Ordinary(provider, task_id, token, headers, body, size)


def _headers(lines: bytes) -> dict[str, str] | None:
    """Every header, or None if one of them is missing, stands twice or asks for more."""
    pairs = [line.partition(":") for line in lines.decode("ascii").split("\r\n")[:-1]]
    headers = {_named(name): value.strip(" ") for name, _, value in pairs}
    is_plain = (
        len(headers) == len(pairs)
        and _EXTRAORDINARY.isdisjoint(headers)
        and _HOST.fullmatch(headers.get("Host", ""))
        and _LENGTH.fullmatch(headers.get("Content-Length", ""))
        and headers.get("Content-Type", "").lower() in _JSON
        and headers.get("Connection", "").lower() in _KEEPS
    )
    return headers if is_plain else None


@lru_cache(maxsize=1024)
def _named(name: str) -> str:
    return name.title()


def answer(outcome: Outcome, request_id: str, *, keeps: bool) -> bytes:
    """The whole answer; `keeps`: the connection stays open."""
    body = BODIES[outcome]
    connection = "keep-alive" if keeps else "close"
    head = _HEADER.format(SERVER, _date(int(time.time())), connection, "application/json")
    return (head + _REST.format(len(body), request_id, body)).encode("ascii")


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return str(util.http_date(second))

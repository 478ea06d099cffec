"""The ASGI app: callbacks are taken in the event loop, all else is for Flask, on threads.

A thread never waits for a slow client: it begins once the body is there. Only a body that is longer
than any callback's is read by the thread as it comes, and Flask reads it from who knows the API's
token alone.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from a2wsgi import WSGIMiddleware
from a2wsgi.wsgi_typing import WSGIApp
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from receiver.web.admission import LONGEST_CALLBACK, Sent
from receiver.web.server import protocol
from receiver.web.server.callbacks import Answer, Callbacks

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
INPUT = "receiver.input"  # in a request's state: its body, unless it is read as it comes
NOT_ASCII = re.compile(rb"[^\x21-\x7e]")
IS_MISSING = "The body broke off, or its chunks are malformed."
IS_ENDLESS = "Send less, or a Content-Length."


class App:
    """What uvicorn serves."""

    def __init__(self, wsgi: WSGIApp, callbacks: Callbacks | None, threads: int) -> None:
        self._callbacks = callbacks
        # A queue without end: who does not read the response keeps no thread waiting.
        self._wsgi = WSGIMiddleware(_read_from_input(wsgi), workers=threads, send_queue_size=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Underscores: a proxy that sets or removes `X-Forwarded-For` overlooks `X_Forwarded_For`.
        scope["headers"] = [pair for pair in scope["headers"] if b"_" not in pair[0]]
        if _length(scope) > LONGEST_CALLBACK:
            scope["state"]["connection"].allow_long_body()
            rest = _Rest(receive, send)
            await self._ask_flask(scope, rest.receive, rest.send)
            return
        try:
            body, has_more = await _body(receive)
        except ConnectionError:
            return
        state, is_cut = scope["state"], "broke_off" in scope["state"]
        is_too_long = len(body) > LONGEST_CALLBACK or state.get("is_too_long", False)
        answer = None if is_cut or is_too_long else await self._take(scope, body)
        if answer is not None:
            await _send(answer, send)
            return
        if is_too_long:
            state[INPUT] = _Broken(RequestEntityTooLarge(IS_ENDLESS))
        elif is_cut and not _length(scope):
            state[INPUT] = _Broken(BadRequest(IS_MISSING))
        else:
            state[INPUT] = io.BytesIO(body)
        if has_more or (is_cut and not state["connection"].has_ended):
            rest = _Rest(receive, send)
            receive, send = rest.receive, rest.send
        await self._ask_flask(scope, receive, send)

    async def _take(self, scope: Scope, body: bytes) -> Answer | None:
        """Take an ordinary callback; None: Flask is to see it."""
        path: str = scope["path"]
        if (
            self._callbacks is None
            or not path.startswith("/callbacks/")
            or scope["method"] != "POST"
        ):
            return None
        parts = path.split("/")
        if len(parts) != 5:
            return None
        _, _, provider, task_id, token = parts
        return await self._callbacks.take(Sent(provider, task_id, token, _headers(scope)), body)

    async def _ask_flask(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["query_string"] = NOT_ASCII.sub(_escaped, scope["query_string"])
        await self._wsgi(scope, receive, send)  # type: ignore[arg-type]


class _Rest:
    """A request and its response; without `is_whole`, more of the body may come.

    To close the connection at once could destroy the response on its way, while the client sends.
    So the rest of the body is read for a moment, before the response ends.
    """

    def __init__(self, receive: Receive, send: Send, *, is_whole: bool = False) -> None:
        self._receive, self._send = receive, send
        self._is_whole = is_whole

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_whole = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_whole:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif not message.get("more_body") and not self._is_whole:
            await self._send({**message, "more_body": True})
            await self._skip_rest()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _skip_rest(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(protocol.LEAVES_WITHIN):
                while not self._is_whole:
                    await self.receive()


class _Broken(io.RawIOBase):
    """The body of a request that has none that can be used."""

    def __init__(self, error: HTTPException) -> None:
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise self._error

    def read(self, _: int = -1) -> bytes:
        raise self._error


async def _body(receive: Receive) -> tuple[bytes, bool]:
    """The body, or what of it came until it was too long; and whether there is more of it.

    Raises ConnectionError if the client has left.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has left")
        body += message["body"]
        if not message["more_body"] or len(body) > LONGEST_CALLBACK:
            return bytes(body), message["more_body"]


async def _send(answer: Answer, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _length(scope: Scope) -> int:
    """Of the body, as its header says; 0 without one. uvicorn has refused what is no number."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _headers(scope: Scope) -> dict[str, str]:
    """The headers as Flask has them: what was sent twice is joined."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = _named(raw), value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


@lru_cache(maxsize=1024)
def _named(name: bytes) -> str:
    return name.decode("latin-1").title()


def _escaped(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]


def _read_from_input(wsgi: WSGIApp) -> WSGIApp:
    """`wsgi`, told what a2wsgi does not tell it."""

    def application(environ: Any, start_response: Any) -> Iterable[bytes]:
        scope = environ["asgi.scope"]
        environ["wsgi.errors"] = sys.stderr
        environ["wsgi.input_terminated"] = True
        environ["PATH_INFO"] = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
        if INPUT in scope["state"]:
            environ["wsgi.input"] = scope["state"][INPUT]
        return wsgi(environ, start_response)

    return application

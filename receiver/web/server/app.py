"""The ASGI app: handles callbacks in the event loop and everything else with Flask, on threads.

A thread never waits for a slow client: it starts after the whole body has been received, and hands
its response over to the event loop (wsgi.py). The exception is a body longer than any callback: the
thread reads it while it arrives. Flask reads such a body only if the client sent a valid API token.
"""

from __future__ import annotations

import asyncio
import io
import re
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from functools import lru_cache
from typing import Any
from urllib.parse import unquote_to_bytes

from a2wsgi.wsgi import Body, build_environ
from a2wsgi.wsgi_typing import Environ, WSGIApp
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from receiver.text import limits
from receiver.web.admission import INCOMPLETE_BODY, CallbackRequest
from receiver.web.server.callback_app import CallbackApp, CallbackResponse
from receiver.web.server.connection_slots import Note
from receiver.web.server.wsgi import WsgiThreads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
BODY_KEY = "receiver.input"  # key in scope["state"]: the body, unless Flask streams it
NON_ASCII = re.compile(rb"[^\x21-\x7e]")
DISCONNECTED = "The client disconnected before its body was complete."
BODY_TOO_LONG = "Send a shorter body, or add a Content-Length header."


class App:
    """The ASGI application that uvicorn serves.

    `note` records rejected requests that Flask does not see.
    """

    def __init__(
        self,
        wsgi: WSGIApp,
        callbacks: CallbackApp | None,
        threads: int,
        note: Note | None = None,
    ) -> None:
        self._callbacks, self._note = callbacks, note
        self._wsgi = WsgiThreads(wsgi, threads)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Drop headers with underscores: proxies filter `X-Forwarded-For` but not `X_Forwarded_For`,
        # and WSGI has the same name for both.
        scope["headers"] = [pair for pair in scope["headers"] if b"_" not in pair[0]]
        if _content_length(scope) > limits.MAX_BODY:
            scope["state"]["connection"].allow_long_body()
            drain = _BodyDrain(receive, send)
            await self._call_flask(scope, drain.receive, drain.send)
            return
        try:
            body, has_more = await _read_body(receive)
        except ConnectionError:
            self._note_disconnection(scope)
            return
        state, is_incomplete = scope["state"], "is_incomplete" in scope["state"]
        is_too_long = len(body) > limits.MAX_BODY or state.get("is_too_long", False)
        answer = None if is_incomplete or is_too_long else await self._take(scope, body)
        if answer is not None:
            await _send(answer, send)
            return
        if is_too_long:
            state[BODY_KEY] = _UnusableBody(RequestEntityTooLarge(BODY_TOO_LONG))
        elif is_incomplete and not _content_length(scope):
            state[BODY_KEY] = _UnusableBody(BadRequest(INCOMPLETE_BODY))
        else:
            state[BODY_KEY] = io.BytesIO(body)
        if has_more or (is_incomplete and not state["connection"].has_ended):
            drain = _BodyDrain(receive, send)
            receive, send = drain.receive, drain.send
        await self._call_flask(scope, receive, send)

    def _note_disconnection(self, scope: Scope) -> None:
        """Record the rejection of a truncated callback, unless we aborted the connection."""
        is_callback = "callbacks" in scope["path"]
        if self._note and is_callback and not scope["state"]["connection"].was_aborted:
            address = scope["client"][0] if scope["client"] else "a Unix socket"
            self._note(address, DISCONNECTED, scope["method"], scope["path"])

    async def _take(self, scope: Scope, body: bytes) -> CallbackResponse | None:
        """Handle a callback with a token in its path. Returns None if Flask has to handle it."""
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
        return await self._callbacks.receive(
            CallbackRequest(provider, task_id, token, _flask_headers(scope)), body
        )

    async def _call_flask(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["query_string"] = NON_ASCII.sub(_percent_encoded, scope["query_string"])
        connection = scope["state"]["connection"]
        await self._wsgi.serve(_environ(scope, receive), send, lambda: connection.is_gone)


class _BodyDrain:
    """Discards the unread part of a request body before the response ends.

    Closing the connection while the client is still sending could destroy the response in transit.
    `receive` and `send` wrap the application's; `is_complete` means that no more body will follow.
    """

    def __init__(self, receive: Receive, send: Send, *, is_complete: bool = False) -> None:
        self._receive, self._send = receive, send
        self._is_complete = is_complete

    async def receive(self) -> Message:
        message = await self._receive()
        self._is_complete = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._is_complete:
            message["headers"] = [*message["headers"], (b"connection", b"close")]
        elif not message.get("more_body") and not self._is_complete:
            await self._send({**message, "more_body": True})
            await self._skip_body()
            message = {"type": "http.response.body"}
        await self._send(message)

    async def _skip_body(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(limits.CLOSE_TIMEOUT):
                while not self._is_complete:
                    await self.receive()


class _UnusableBody(io.RawIOBase):
    """The body of a request whose body is too long or incomplete: reading it raises `error`."""

    def __init__(self, error: HTTPException) -> None:
        self._error = error

    def readable(self) -> bool:
        return True

    def readinto(self, _: object) -> int:
        raise self._error

    def read(self, _: int = -1) -> bytes:
        raise self._error


async def _read_body(receive: Receive) -> tuple[bytes, bool]:
    """Read the body, until it exceeds the limit. Returns it, and whether more of it will follow.

    Raises ConnectionError if the client has disconnected.
    """
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the client has disconnected")
        body += message["body"]
        if not message["more_body"] or len(body) > limits.MAX_BODY:
            return bytes(body), message["more_body"]


async def _send(answer: CallbackResponse, send: Send) -> None:
    headers = [(name.encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def _content_length(scope: Scope) -> int:
    """Returns the Content-Length, or 0 without one. uvicorn has already rejected invalid values."""
    for name, value in scope["headers"]:
        if name == b"content-length":
            return int(value)
    return 0


def _flask_headers(scope: Scope) -> dict[str, str]:
    """Returns the headers as Flask provides them: repeated headers are joined with a comma."""
    found: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = _header_name(raw), value.decode("latin-1")
        found[name] = f"{found[name]},{text}" if name in found else text
    return found


@lru_cache(maxsize=1024)
def _header_name(name: bytes) -> str:
    return name.decode("latin-1").title()


def _percent_encoded(found: re.Match[bytes]) -> bytes:
    return b"%%%02X" % found[0][0]


def _environ(scope: Scope, receive: Receive) -> Environ:
    """Returns the WSGI environ of the request, with the parts that a2wsgi leaves out."""
    body = Body(asyncio.get_running_loop(), receive)  # type: ignore[arg-type]
    environ: Any = build_environ(scope, body)  # type: ignore[arg-type]
    environ["wsgi.errors"] = sys.stderr
    environ["wsgi.input_terminated"] = True
    environ["PATH_INFO"] = unquote_to_bytes(scope["raw_path"]).decode("latin-1")
    if BODY_KEY in scope["state"]:
        environ["wsgi.input"] = scope["state"][BODY_KEY]
    return environ  # type: ignore[no-any-return]

"""The ASGI app: receives callbacks in the event loop, by the same rules as the Flask view.

Only valid callbacks are recorded here. Every other request is passed to Flask, which reports any
error to the client.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from structlog.contextvars import bind_contextvars, unbind_contextvars
from werkzeug.exceptions import BadRequest, HTTPException, RequestEntityTooLarge

from receiver import providers
from receiver.config.settings import Settings
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.stores.group_commit import GroupCommit, Write
from receiver.text import content_encoding, limits
from receiver.web import problems
from receiver.web.callbacks import BODIES, INCOMPLETE_BODY, ROUTE, CallbackRequest, admit
from receiver.web.request_lifecycle import REQUEST_ID, RequestReport, request_id

if TYPE_CHECKING:  # the gthread worker does not use asyncio, and importing it takes 24 ms
    import asyncio

    from receiver.web.server.connection_slots import Note
    from receiver.web.server.flask_bridge import FlaskBridge, Receive, Scope, Send

T = TypeVar("T")
DISCONNECTED = "The client disconnected before its body was complete."
BODY_TOO_LONG = "Send a shorter body, or add a Content-Length header."
# Loop iterations before the next batch starts. Meanwhile the responses to the last batch are sent,
# and the callbacks that clients send after those responses join the next batch.
TURNS = 5
CHECK_INTERVAL = 0.25  # seconds between two checks for writes that have timed out


class CallbackApp:
    """The ASGI application: handles callbacks in the event loop, and everything else with Flask.

    `note` records rejected requests that Flask does not see.
    """

    def __init__(
        self, handler: CallbackHandler | None, bridge: FlaskBridge, note: Note | None = None
    ) -> None:
        self._handler, self._bridge, self._note = handler, bridge, note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Drop headers with underscores: proxies filter `X-Forwarded-For` but not `X_Forwarded_For`,
        # and WSGI has the same name for both.
        scope["headers"] = [pair for pair in scope["headers"] if b"_" not in pair[0]]
        headers, connection = _flask_headers(scope), scope["state"]["connection"]
        length = int(headers.get("Content-Length", 0))  # uvicorn has rejected invalid values
        if length > limits.MAX_BODY:  # Flask reads it only if the client sent a valid API token
            connection.allow_long_body()
            await self._bridge.serve(scope, receive, send, None, has_more=True)
            return
        try:
            body, has_more = await _read_body(receive)
        except ConnectionError:
            # Record the rejection of a truncated callback, unless we aborted the connection.
            if self._note and "callbacks" in scope["path"] and not connection.was_aborted:
                address = scope["client"][0] if scope["client"] else "a Unix socket"
                self._note(address, DISCONNECTED, scope["method"], scope["path"])
            return
        error: HTTPException | None = None
        is_incomplete = "is_incomplete" in scope["state"]
        if len(body) > limits.MAX_BODY or scope["state"].get("is_too_long", False):
            error = RequestEntityTooLarge(BODY_TOO_LONG)
        elif not is_incomplete:
            if await self._receive_callback(scope, headers, body, send):
                return
        elif not length:
            error = BadRequest(INCOMPLETE_BODY)
        has_more = has_more or (is_incomplete and not connection.has_ended)
        await self._bridge.serve(scope, receive, send, error or body, has_more=has_more)

    async def _receive_callback(
        self, scope: Scope, headers: Mapping[str, str], body: bytes, send: Send
    ) -> bool:
        """Handle a callback with a token in its path. Returns False if Flask has to handle it."""
        parts = scope["path"].split("/")
        is_callback = scope["method"] == "POST" and len(parts) == 5 and parts[1] == "callbacks"
        if self._handler is None or not is_callback or parts[0]:
            return False
        _, _, provider, task_id, token = parts
        response = await self._handler.receive(
            CallbackRequest(provider, task_id, token, headers), body
        )
        if response is None:
            return False
        raw = [(name.encode(), value.encode()) for name, value in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": raw})
        await send({"type": "http.response.body", "body": response.body})
        return True


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """A complete response. The names in `headers` are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class CallbackHandler:
    """Records callbacks that have a token in their URL."""

    def __init__(self, ingest: Ingest, settings: Settings, report: RequestReport) -> None:
        self._ingest, self._settings, self._report = ingest, settings, report
        self._is_behind_proxy = settings.trusted_proxies > 0
        self._commits: CommitNotifier | None = None

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attach to the event loop. Call this once, before the first `receive`."""
        self._commits = CommitNotifier(self._ingest.store.database.writer, loop)

    def close(self) -> None:
        """Close the store and stop flushing metrics to it."""
        self._report.close()
        self._ingest.store.close()

    async def receive(self, sent: CallbackRequest, body: bytes) -> CallbackResponse | None:
        """Admit, parse and record the callback, and return the response after its commit.

        Returns None if the Flask view has to handle the request.
        """
        assert self._commits is not None  # noqa: S101 - set by `serve_in`
        started = time.perf_counter()
        host = sent.headers.get("Host", "")
        if (
            len(body) > limits.MAX_PARSED_IN_LOOP  # parsing it would block the event loop
            or content_encoding.HEADER in sent.headers  # and so could decompression
            # A proxy replaced the Host header: Flask determines the original host.
            or (self._is_behind_proxy and sent.headers.get("X-Forwarded-Host", host) != host)
        ):
            return None
        try:
            callback = admit(self._settings, sent, body)
            event = providers.parse(callback)
        except Exception:  # noqa: BLE001 - the view raises the same error and reports it
            return None
        own_id = request_id(sent.headers.get(REQUEST_ID), is_behind_proxy=self._is_behind_proxy)
        # Each request has its own context, which ends with its response.
        bind_contextvars(request_id=own_id, task=sent.task_id)
        try:
            outcome = await self._commits.wait_for(self._ingest.submit(callback, event))
        except StoreUnavailable as error:
            self._ingest.meter.store_failed()
            problem = problems.record_unavailable(error, is_callback=True)
            status, raw = problem.status_code, problem.get_data()
            headers = {name.lower(): value for name, value in problem.headers.items()}
        except Exception:  # noqa: BLE001 - as above; or BatchUndone: the view writes it alone
            unbind_contextvars("request_id", "task")
            return None
        else:
            self._ingest.count(callback, event, outcome)
            status, raw = 200, BODIES[outcome].encode()
            headers = {"content-type": "application/json", "content-length": str(len(raw))}
        seconds = time.perf_counter() - started
        self._report.finished("POST", ROUTE, status, seconds, is_callback=True)
        return CallbackResponse(status, raw, {**headers, "x-request-id": own_id})


class _Waiter(NamedTuple):
    write: Write[Any, Any]
    future: asyncio.Future[None]
    until: float  # the deadline, on the loop's clock


class CommitNotifier:
    """Awaits commits of the writer thread in an event loop.

    All writes of one loop iteration are committed together.
    """

    def __init__(self, writer: GroupCommit[Any], loop: asyncio.AbstractEventLoop) -> None:
        self._writer, self._loop = writer, loop
        self._context = Context()  # not that of the request that happens to start a batch
        self._waiting: dict[Future[Any], _Waiter] = {}
        self._settled: deque[Future[Any]] = deque()
        self._is_resume_scheduled = False  # `_resume_callers` will run
        self._is_start_scheduled = False  # `_start` will run at the end of this loop iteration
        self._timer: asyncio.TimerHandle | None = None

    async def wait_for(self, write: Write[Any, T]) -> T:
        """Wait until the write is durable, and return its result.

        Raises the write's own exception, or StoreUnavailable if the commit fails or times out. If
        the caller is cancelled, the write is still made, unless it times out first.
        """
        waiter = self._loop.create_future()
        self._waiting[write] = _Waiter(write, waiter, self._loop.time() + write.patience)
        write.add_done_callback(self._on_settled)
        if not self._is_start_scheduled:
            self._is_start_scheduled = True
            self._loop.call_soon(self._start, context=self._context)
        if self._timer is None:
            self._timer = self._loop.call_later(
                CHECK_INTERVAL, self._give_up_on_late, context=self._context
            )
        try:
            await waiter
            return write.result()
        finally:
            del waiter, write  # the traceback of an exception keeps this frame alive

    def _start(self) -> None:
        self._is_start_scheduled = False
        self._writer.start_and_wait(self._on_writer_free)

    def _on_writer_free(self) -> None:
        """Called on the writer's thread, after a batch during which more writes were submitted."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._start_after, TURNS)

    def _start_after(self, turns: int) -> None:
        if turns:
            self._loop.call_soon(self._start_after, turns - 1)
        else:
            self._start()

    def _on_settled(self, write: Future[Any]) -> None:
        """Called on the writer's thread. The first write of a batch wakes the loop for all."""
        self._settled.append(write)
        if not self._is_resume_scheduled:
            self._is_resume_scheduled = True
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._resume_callers)

    def _resume_callers(self) -> None:
        # First, so that a write that settles later wakes the loop again.
        self._is_resume_scheduled = False
        while self._settled:
            waiter = self._waiting.pop(self._settled.popleft(), None)
            if waiter is not None and not waiter.future.done():
                waiter.future.set_result(None)

    def _give_up_on_late(self) -> None:
        now = self._loop.time()
        for write, future, until in list(self._waiting.values()):
            if until <= now and not write.done():  # a write that is done is not late: the loop is
                del self._waiting[write]
                error = self._writer.give_up(write)
                if not future.done():
                    future.set_exception(error)
        self._timer = None
        if self._waiting:
            self._timer = self._loop.call_later(CHECK_INTERVAL, self._give_up_on_late)


async def _read_body(receive: Receive) -> tuple[bytes, bool]:
    """Read the body until it exceeds the limit. Return it, and whether more of it will follow.

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


def _flask_headers(scope: Scope) -> dict[str, str]:
    """Return the headers as Flask provides them: repeated headers are joined with a comma."""
    headers: dict[str, str] = {}
    for raw, value in scope["headers"]:
        name, text = _header_name(raw), value.decode("latin-1")
        headers[name] = f"{headers[name]},{text}" if name in headers else text
    return headers


@lru_cache(maxsize=1024)
def _header_name(name: bytes) -> str:
    return name.decode("latin-1").title()

"""The callback app: receives callbacks in the event loop, by the same rules as the Flask view.

Only valid callbacks are recorded here. Every other request is passed to the view, which reports the
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
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from structlog.contextvars import bound_contextvars

from receiver import providers
from receiver.config.settings import Settings
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.stores.group_commit import GroupCommit, Write
from receiver.text import content_encoding, limits
from receiver.web import problems
from receiver.web.admission import CallbackRequest, admit
from receiver.web.callbacks import BODIES, ROUTE
from receiver.web.request_lifecycle import REQUEST_ID, RequestReport, request_id

if TYPE_CHECKING:  # the gthread worker does not use asyncio, and importing it takes 24 ms
    import asyncio

T = TypeVar("T")
# Loop iterations before the next batch starts. Meanwhile the responses to the last batch are sent,
# and the callbacks that clients send after those responses join the next batch.
TURNS = 5
CHECK_INTERVAL = 0.25  # seconds between two checks for writes that have timed out


@dataclass(frozen=True, slots=True)
class CallbackResponse:
    """A complete response. The names in `headers` are in lower case."""

    status: int
    body: bytes
    headers: Mapping[str, str]


class CallbackApp:
    """Records callbacks that have a token in their URL."""

    def __init__(self, ingest: Ingest, settings: Settings, report: RequestReport) -> None:
        self._ingest, self._settings, self._report = ingest, settings, report
        self._is_behind_proxy = settings.trusted_proxies > 0
        self._commits: CommitNotifier | None = None

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Attach to the event loop. Call this once, before the first `receive`."""
        self._commits = CommitNotifier(self._ingest.store.writer, loop)

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
        if self._needs_flask(sent.headers, body):
            return None
        try:
            callback = admit(self._settings, sent, body)
            event = providers.parse(callback)
        except Exception:  # noqa: BLE001 - the view raises the same error and reports it
            return None
        own_id = request_id(sent.headers.get(REQUEST_ID), is_behind_proxy=self._is_behind_proxy)
        with bound_contextvars(request_id=own_id, task=sent.task_id):
            try:
                outcome = await self._commits.wait_for(self._ingest.submit(callback, event))
            except StoreUnavailable as error:
                self._ingest.meter.store_failed()
                problem = problems.record_unavailable(error, is_callback=True)
                status, raw = problem.status_code, problem.get_data()
                headers = {name.lower(): value for name, value in problem.headers.items()}
            except Exception:  # noqa: BLE001 - as above; or BatchUndone: the view writes it alone
                return None
            else:
                self._ingest.count(callback, event, outcome)
                status, raw = 200, BODIES[outcome].encode()
                headers = {"content-type": "application/json", "content-length": str(len(raw))}
            seconds = time.perf_counter() - started
            self._report.finished("POST", ROUTE, status, seconds, is_callback=True)
        return CallbackResponse(status, raw, {**headers, "x-request-id": own_id})

    def _needs_flask(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Return whether the callback could block the event loop, or has another host.

        Parsing a long body would block it, and so could decompression. If a proxy replaced the Host
        header, Flask determines the original host.
        """
        host = headers.get("Host", "")
        return (
            len(body) > limits.MAX_PARSED_IN_LOOP
            or content_encoding.HEADER in headers
            or (self._is_behind_proxy and headers.get("X-Forwarded-Host", host) != host)
        )


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
        self._start_soon()
        if self._timer is None:
            self._timer = self._loop.call_later(
                CHECK_INTERVAL, self._give_up_on_late, context=self._context
            )
        try:
            await waiter
            return write.result()
        finally:
            del waiter, write  # the traceback of an exception keeps this frame alive

    def _start_soon(self) -> None:
        if not self._is_start_scheduled:
            self._is_start_scheduled = True
            self._loop.call_soon(self._start, context=self._context)

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

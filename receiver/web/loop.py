"""gunicorn's main loop takes ordinary callbacks itself; everything else goes to the threads.

To hand a callback to a thread and back costs more than to take it. Here it is taken where its bytes
arrived, in a greenlet, which waits for its commit while the loop takes the next ones: so a batch
grows with the connections, not with the threads.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import Future
from functools import partial
from typing import Any, NoReturn

import structlog
from greenlet import getcurrent, greenlet

from receiver.errors import StoreUnavailable
from receiver.stores.gates import NEW_GATE, Writer
from receiver.tasks import Outcome
from receiver.web import ordinary, worker
from receiver.web.arrival import Reach
from receiver.web.direct import Direct
from receiver.web.ordinary import Ordinary
from receiver.web.worker import ANSWER_IS_TAKEN_WITHIN, Connection

log = structlog.get_logger()


class _Taking(greenlet):
    """Takes the callback of one connection; once it is dead, `taken` says what became of it."""

    taken: tuple[Outcome, str] | None = None
    failure: StoreUnavailable | None = None

    def __init__(self, worker: Worker, direct: Direct, conn: Connection, request: Ordinary) -> None:
        super().__init__()
        self.loop = getcurrent()
        self.conn, self.request = conn, request
        self._worker, self._direct = worker, direct

    def run(self) -> None:
        NEW_GATE.set(lambda: _Gate(self._worker, self))
        try:
            self.taken = self._direct.take(self.request)
        except StoreUnavailable as error:
            # Not itself: its traceback leads back to here, and would keep the callback.
            self.failure = StoreUnavailable(str(error), error.retry_after)
        except Exception:
            log.exception("a callback could not be taken directly; a thread tries again")


class _Gate:
    """Opened by the writer's thread; who waits goes on in the main loop."""

    __slots__ = ("_worker", "is_open", "taking", "until")

    def __init__(self, worker: Worker, taking: _Taking) -> None:
        self._worker, self.taking = worker, taking
        self.is_open, self.until = False, 0.0

    def begin(self, writer: Writer) -> None:
        self._worker.writer = writer

    def wait(self, seconds: float) -> bool:
        self.until = time.monotonic() + seconds
        self._worker.shut[self] = None
        self.taking.loop.switch()
        return self.is_open

    def open(self) -> None:
        self._worker.wake(self)


class Worker(worker.Worker):
    """The other Worker, whose threads get what is not ordinary."""

    direct: Direct | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.shut: dict[_Gate, None] = {}
        self._opened: deque[_Gate] = deque()
        self._is_woken = False
        self.writer: Writer | None = None  # of those who wait

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # An application that is wrapped in another has no such extension: the other wants to see
        # every request. So does gunicorn itself, if it was told to.
        known = getattr(self.wsgi, "extensions", {})
        self.direct = None if watches(self.cfg) else known.get("direct")

    def handle_request(self, req: Any, conn: Any) -> Any:
        failure: StoreUnavailable | None = getattr(conn, "failure", None)
        if failure is None:
            return super().handle_request(req, conn)
        conn.failure = None
        token = NEW_GATE.set(partial(_raise, failure))  # the view answers for it, and waits no more
        try:
            return super().handle_request(req, conn)
        finally:
            NEW_GATE.reset(token)

    def wake(self, gate: _Gate) -> None:
        """Have the loop go on with who waits there; called from any thread."""
        self._opened.append(gate)
        self._wake()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Commit together what came in one round."""
        super().wait_for_and_dispatch_events(timeout)
        if self.writer is not None:
            self.writer.start_undisturbed(self._wake)

    def murder_pending(self) -> None:
        """Also let go on who waited too long for a commit."""
        super().murder_pending()
        now = time.monotonic()
        for gate in [gate for gate in self.shut if gate.until <= now]:
            self._pass(gate)

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self.method_queue.defer(self._go_on)

    def _go_on(self) -> None:
        self._is_woken = False  # before it looks: what comes later wakes it again
        while self._opened:
            gate = self._opened.popleft()
            if gate in self.shut:  # else it was too late
                gate.is_open = True
                self._pass(gate)

    def _pass(self, gate: _Gate) -> None:
        del self.shut[gate]
        self._run(gate.taking)

    def _give(self, conn: Connection) -> None:
        # gunicorn has a way of its own for its last request.
        is_last = not self.alive or self.nr + len(self.shut) + 1 >= self.max_requests
        if self.direct and not is_last and conn.reach is Reach.WHOLE:
            request = ordinary.read(conn.arrival.data)
            if request is not None:
                self._run(_Taking(self, self.direct, conn, request))
                return
        super()._give(conn)

    def _run(self, taking: _Taking) -> None:
        """Let it run until it waits, or is done."""
        taking.switch()
        if not taking.dead:
            return
        taking.gr_context = None  # it leads back to `taking`, and would keep it for a collection
        if taking.taken is None:
            taking.conn.failure = taking.failure
            super()._give(taking.conn)
        else:
            self._answer(taking.conn, taking.request, *taking.taken)

    def _answer(
        self, conn: Connection, request: Ordinary, outcome: Outcome, request_id: str
    ) -> None:
        self.nr += 1
        keeps = request.keeps and self.alive and self.cfg.keepalive > 0
        conn.begin(bytes(conn.arrival.data[request.size :]))
        answer = ordinary.answer(outcome, request_id, keeps=keeps)
        try:
            sent = conn.sock.send(answer)
        except BlockingIOError:
            sent = 0
        except OSError:  # it left
            sent, keeps = len(answer), False
        if sent < len(answer):
            self._send_slowly(conn, answer[sent:], keeps=keeps)
        else:
            self._follow(conn, keeps=keeps)

    def _send_slowly(self, conn: Connection, rest: bytes, *, keeps: bool) -> None:
        """Have a thread send the rest to who sends much and reads nothing."""

        def done(sending: Future[None]) -> None:
            was_sent = not sending.cancelled() and sending.exception() is None
            self.method_queue.defer(partial(self._follow, conn, keeps=keeps and was_sent))

        conn.sock.settimeout(ANSWER_IS_TAKEN_WITHIN)
        self.tpool.submit(conn.sock.sendall, rest).add_done_callback(done)


def _raise(error: Exception) -> NoReturn:
    raise error


def watches(cfg: Any) -> bool:
    """Is gunicorn to tell somebody of each request?"""
    hooks = [cfg.settings[name] for name in ("pre_request", "post_request")]
    config = cfg.logconfig or cfg.logconfig_dict or cfg.logconfig_json  # has an access log, perhaps
    syslog = cfg.syslog and not cfg.disable_redirect_access_to_syslog
    told = cfg.accesslog or config or syslog or cfg.statsd_host
    return bool(told or any(hook.get() != hook.default for hook in hooks))

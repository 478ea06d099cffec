"""Follows the record with one thread, and passes new events to all listeners of the process.

The thread runs only while there are listeners. It reads after each commit of any process, but at
most twice per second, so that many events are read and sent together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from threading import Event as Signal
from threading import Lock, Thread
from typing import TYPE_CHECKING

import structlog

from receiver.clock import now_ms
from receiver.errors import StoreError, TooManyListeners
from receiver.serializers.outputs import notice_of
from receiver.stores.base import Store
from receiver.stores.sql.event_log import LoggedEvent, Position
from receiver.text import limits
from receiver.text.display import json_ascii
from receiver.web.health import name_of_this_process
from receiver.web.live.listener import (
    ChangeListener,
    EventBatch,
    EventListener,
    EventSelection,
    LiveEvent,
    Subscriber,
    TaskWait,
)

if TYPE_CHECKING:  # not imported at run time, because the gthread worker does not use asyncio
    import asyncio

EVENTS_PER_READ = 100
PAUSE = 0.5  # seconds between two reads
IDLE = 1.0  # the maximum seconds to wait for a commit
RETRY = 1.0  # seconds to wait after a database error
REPORT = 10.0  # seconds between two reports of the number of listeners
WOKEN_TOGETHER = 4  # listeners in one iteration of the event loop, during which callbacks wait
WOKEN_EVERY = 0.002  # seconds between two such iterations, in which the loop handles callbacks
SENT_WITHIN = 1.0  # the maximum seconds to wait until the event loop has sent a batch
log = structlog.get_logger()


class EventFeed:
    """The listeners of this process, and the thread that reads for them."""

    def __init__(self, store: Store, hide: Callable[[str], str] = str) -> None:
        self._store, self._hide = store, hide
        self._lock = Lock()
        self._taken: set[Subscriber] = set()
        self._joined: set[Subscriber] = set()
        self._thread: Thread | None = None
        self._stop = Signal()
        self._position = Position(0)
        self._report_at = 0.0  # when the number of listeners is reported again
        self._revisions: dict[int, int] = {}  # the revisions of recent events, by row key
        self._loop: asyncio.AbstractEventLoop | None = None
        self.limit = limits.MAX_THREAD_LISTENERS
        self.is_serving: Callable[[], bool] = lambda: (
            True
        )  # returns False when the worker is stopping

    def serve_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Serve the listeners in this event loop, without threads."""
        self._loop, self.limit = loop, limits.MAX_LISTENERS

    def close(self) -> None:
        """End all listeners and the thread."""
        self._stop.set()
        for subscriber in list(self._taken):
            subscriber.end()
        thread = self._thread
        if thread is not None:
            thread.join()

    # -- registration

    def listen(self, selection: EventSelection, after: Position | None) -> EventListener:
        """Return a listener for the selected events after a position, or for new events.

        A position later than the newest event belongs to another database, or was assigned before
        a restore. The listener then receives new events. Raises TooManyListeners, StoreUnavailable.
        """
        end = self._store.event_log.end()
        is_resumed = after is not None and after.last <= end.last
        position = after if is_resumed and after is not None else end
        listener = EventListener(self, selection, position, is_resumed=is_resumed)
        self._take(listener)
        return listener

    def watch(self) -> ChangeListener:
        """Return a listener that receives a signal at each commit. Raises TooManyListeners."""
        listener = ChangeListener(self)
        self._take(listener)
        return listener

    def wait(self, task_id: str, seconds: float) -> TaskWait:
        """Register a request that waits for a task. Raises TooManyListeners."""
        wait = TaskWait(self, task_id, seconds)
        self._take(wait)
        return wait

    def _take(self, subscriber: Subscriber) -> None:
        with self._lock:
            if len(self._taken) >= self.limit:
                raise TooManyListeners(self.limit)
            self._taken.add(subscriber)
            subscriber.is_ended = self._stop.is_set()

    def join(self, subscriber: Subscriber) -> None:
        """Pass everything recorded from now on to this subscriber. Raises StoreUnavailable."""
        with self._lock:
            if subscriber not in self._taken or self._stop.is_set():
                return
            if not any(isinstance(one, EventListener) for one in self._joined):
                self._position = self._store.event_log.end()
                self._revisions = dict(self._store.event_log.revisions(self._position))
            self._joined.add(subscriber)
            if self._thread is None:
                self._thread = Thread(target=self._run, name="live events", daemon=True)
                self._thread.start()

    def leave(self, subscriber: Subscriber) -> None:
        """Remove this subscriber, so that another one can take its place."""
        with self._lock:
            self._taken.discard(subscriber)
            self._joined.discard(subscriber)

    # -- reading

    def read(self, position: Position) -> tuple[list[LiveEvent], Position, bool]:
        """Return events after a position, the next position, and whether there are no more events.

        Raises StoreUnavailable.
        """
        logged, following = self._store.event_log.after(position, EVENTS_PER_READ)
        return self._events(logged), following, len(logged) < EVENTS_PER_READ

    def revised(self, position: Position) -> list[LiveEvent]:
        """Return events before a position whose results were replaced after its last event."""
        store = self._store.event_log
        since = store.recorded_at(position.last)
        return self._events(store.revised(position, since), are_revisions=True)

    def _events(
        self, logged: Sequence[LoggedEvent], *, are_revisions: bool = False
    ) -> list[LiveEvent]:
        events = []
        for one in logged:
            if one.source is None:  # the task was forgotten
                continue
            try:
                notice = notice_of(one.source)
                text = self._hide(json_ascii(notice.as_json(), separators=(",", ":")))
            except Exception as error:  # noqa: BLE001 - a damaged row affects only its own event
                log.error("an event cannot be sent", transition=one.key, error=repr(error))
                continue
            data = f"id: {one.position}\ndata: {text}\n\n".encode()
            events.append(LiveEvent(one.key, notice, data, are_revisions))
            time.sleep(0)  # let the thread of the event loop run
        return events

    # -- the thread

    def _run(self) -> None:
        mark: object = None
        while self._continues():
            try:
                before, mark = mark, self._store.database.commit_mark()
                self._pass_events_on()
                self._wake_ended_waits()
                if mark != before:
                    self._wake([one for one in self._changes() if one.offer_change()])
                if before is not None and self._report() and mark == before:
                    mark = self._store.database.commit_mark()  # its own commit is no change
                self._stop.wait(PAUSE)
                self._store.database.wait_for_commit(IDLE, self._stop)
            except StoreError as error:
                log.error("live events are interrupted", error=str(error))
                self._stop.wait(RETRY)
            except Exception:
                log.exception("live events are interrupted")
                self._stop.wait(RETRY)
        self._report(is_end=True)

    def _report(self, *, is_end: bool = False) -> bool:
        """Store the number of listeners for the metrics regularly, and when the thread ends.

        Events are also sent if it cannot be stored. Returns whether it was due.
        """
        now = time.monotonic()
        is_due = is_end or now >= self._report_at
        if is_due:
            count = 0 if self._stop.is_set() else len(self._taken)
            with suppress(StoreError):
                self._store.activity.report_listeners(name_of_this_process(), count, now_ms())
            self._report_at = 0.0 if is_end else now + REPORT
        return is_due

    def _continues(self) -> bool:
        with self._lock:
            if self._joined and not self._stop.is_set():
                return True
            self._thread = None
            return False

    def _listeners(self) -> list[EventListener]:
        with self._lock:
            return [one for one in self._joined if isinstance(one, EventListener)]

    def _changes(self) -> list[ChangeListener]:
        with self._lock:
            return [one for one in self._joined if isinstance(one, ChangeListener)]

    def _pass_events_on(self) -> None:
        """Read all new events, and pass them to the listeners in batches of limited size."""
        is_complete = False
        while not is_complete and not self._stop.is_set() and self._listeners():
            logged, following = self._store.event_log.after(self._position, EVENTS_PER_READ)
            is_complete = len(logged) < EVENTS_PER_READ
            events = self._events(logged)
            positions = {one.key: one.position for one in logged}
            while events:
                size, count = 0, 0
                while count < len(events) and (not count or size < limits.MAX_EVENT_BATCH):
                    size += len(events[count].text)
                    count += 1
                part, events = events[:count], events[count:]
                last = positions[part[-1].key] if events else following
                self._pass_on(EventBatch(part, last))
            self._position = following
        if self._listeners():
            self._pass_revisions_on()

    def _pass_revisions_on(self) -> None:
        current = dict(self._store.event_log.revisions(self._position))
        new = [key for key, revision in current.items() if self._revisions.get(key, 0) < revision]
        if new:
            logged = self._store.event_log.at(self._position, new)
            self._pass_on(EventBatch(self._events(logged, are_revisions=True), self._position))
        self._revisions = current

    def _pass_on(self, batch: EventBatch) -> None:
        self._wake([one for one in self._listeners() if one.offer(batch) or one.is_ended])

    def _wake_ended_waits(self) -> None:
        with self._lock:
            waits = [one for one in self._joined if isinstance(one, TaskWait)]
        ended = self._store.event_log.ended([wait.task_id for wait in waits])
        for wait in waits:
            if wait.task_id in ended:
                wait.end()

    def _wake(self, subscribers: Sequence[Subscriber]) -> None:
        """Notify subscribers, and wait until the event loop has sent their text."""
        if not subscribers:
            return
        notices = [one.notice_in_loop for one in subscribers]
        if self._loop is None:
            for notice in notices:
                notice()
            return
        is_done = Signal()
        try:
            self._loop.call_soon_threadsafe(self._wake_in_loop, notices, is_done)
        except RuntimeError:  # the loop is closed
            return
        is_done.wait(SENT_WITHIN)

    def _wake_in_loop(self, notices: list[Callable[[], object]], is_done: Signal) -> None:
        assert self._loop is not None  # noqa: S101 - see `_wake`
        for notice in notices[:WOKEN_TOGETHER]:
            notice()
        rest = notices[WOKEN_TOGETHER:]
        if rest:
            self._loop.call_later(WOKEN_EVERY, self._wake_in_loop, rest, is_done)
        else:
            self._loop.call_soon(self._loop.call_soon, is_done.set)

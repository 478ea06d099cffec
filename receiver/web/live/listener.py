"""The subscribers of the feed: event streams, the dashboard, and requests that wait for a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import Protocol

from receiver.deliveries import Notice
from receiver.stores.sql.event_log import Position
from receiver.text import limits

LIFETIME = 900.0  # seconds of a stream of the dashboard
RETRY_MS = 2_000  # after which a browser reconnects
OPENING = f"retry: {RETRY_MS}\n: live events; see docs/live-events.md\n"
CHANGED = b"data: {}\n\n"
# Keys of the WSGI environ. In our worker, a view passes a listener or a wait to the event loop,
# which sends the listener's text as the body, or calls the application again after the wait.
HAND_OVER = "receiver.hand_over"  # present if the server supports it; None if nothing was passed
WAITED = "receiver.waited"  # present if the application is called again


@dataclass(frozen=True, slots=True)
class EventSelection:
    """The filters of a listener; None matches any value."""

    task: str | None = None
    provider: str | None = None
    status: str | None = None
    reference: str | None = None
    account: str | None = None
    provider_task_id: str | None = None

    def includes(self, notice: Notice) -> bool:
        """Return whether the event matches all filters."""
        task = notice.task
        ids = (task.provider_task_id, task.callback_task_id)
        return (
            self.task in (None, task.id)
            and self.provider in (None, task.provider)
            and self.status in (None, notice.status)
            and self.reference in (None, task.reference)
            and self.account in (None, task.account)
            and (self.provider_task_id is None or self.provider_task_id in ids)
        )


@dataclass(frozen=True, slots=True)
class LiveEvent:
    """An event as it is sent. A revision replaces the result of an earlier event."""

    key: int
    notice: Notice
    text: bytes
    is_revision: bool = False


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that are passed to all listeners, and the position after them."""

    events: Sequence[LiveEvent]
    position: Position
    _texts: dict[EventSelection, bytes] = field(default_factory=dict, compare=False)

    def text(self, selection: EventSelection) -> bytes:
        """Return the text of the selected events; listeners with the same selection share it."""
        if selection not in self._texts:
            self._texts[selection] = selected_text(self.events, selection)
        return self._texts[selection]


def selected_text(events: Sequence[LiveEvent], selection: EventSelection) -> bytes:
    """Return the text of the selected events."""
    return b"".join(event.text for event in events if selection.includes(event.notice))


class Feed(Protocol):
    """The part of `feed.EventFeed` that listeners use."""

    def read(self, position: Position) -> tuple[list[LiveEvent], Position, bool]: ...

    def revised(self, position: Position) -> list[LiveEvent]: ...

    def join(self, subscriber: Subscriber) -> None: ...

    def leave(self, subscriber: Subscriber) -> None: ...


class Subscriber:
    """A client of the feed, which counts towards its limit until `close`. Thread-safe."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = Lock()
        self._wake: Callable[[], object] = lambda: None  # thread-safe
        self.notice_in_loop: Callable[[], object] = lambda: None  # called by the feed
        self.is_ended = False  # whether nothing more will be sent

    def attach(self, in_loop: Callable[[], object], wake: Callable[[], object]) -> None:
        """Set the functions that are called when there is something to send.

        The feed calls `in_loop` in the event loop. `wake` has the same effect, and is thread-safe.
        """
        self.notice_in_loop, self._wake = in_loop, wake

    def end(self) -> None:
        """End the subscription: the client has disconnected, or the process is stopping."""
        self.is_ended = True
        self._wake()

    def close(self) -> None:
        """Leave the feed. Safe to call repeatedly."""
        self.is_ended = True
        self._feed.leave(self)


class Listener(Subscriber):
    """Receives text from the feed, and keeps it until it is sent."""

    silence = limits.HEARTBEAT  # seconds until a heartbeat is sent
    is_behind = False  # whether it was ended because the client read too slowly

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._pending: list[bytes] = []
        self._unsent = 0  # bytes, including the text that `take` returned and that is being sent

    def pages(self) -> Iterator[bytes]:
        """Yield the text to send before the first `take`. Blocks, because it reads the record."""
        raise NotImplementedError

    def heartbeat(self) -> bytes:
        """Return the text to send after `silence` seconds without any other."""
        raise NotImplementedError

    def take(self) -> bytes:
        """Return the pending text; call `sent` with its size when the client has received it."""
        with self._lock:
            text, self._pending = b"".join(self._pending), []
        return text

    def sent(self, size: int) -> None:
        """Record that the client has received this many bytes of what `take` returned."""
        with self._lock:
            self._unsent -= size

    @property
    def has_pending(self) -> bool:
        """Whether `take` would return text."""
        return bool(self._pending)

    def _add(self, text: bytes) -> bool:
        """Add pending text, or end the listener if it is too far behind. Requires the lock."""
        if self._unsent and self._unsent + len(text) > limits.MAX_BEHIND:
            self.is_behind = self.is_ended = True
        elif text:
            self._pending.append(text)
            self._unsent += len(text)
        return bool(text)


class EventListener(Listener):
    """Receives the selected events after a position."""

    def __init__(
        self, feed: Feed, selection: EventSelection, position: Position, *, is_resumed: bool
    ) -> None:
        super().__init__(feed)
        self._selection, self._position = selection, position
        self._is_resumed = is_resumed
        self._early: (
            list[EventBatch] | None
        ) = []  # batches that were offered before all events on record were read

    def pages(self) -> Iterator[bytes]:
        """Yield the events on record after the position, and join the feed for all later ones.

        Batches that are offered in the meantime can contain events that were also read here; those
        are sent once. Raises StoreUnavailable.
        """
        yield f"{OPENING}id: {self._position}\n\n".encode()
        if self._is_resumed and (revised := self._feed.revised(self._position)):
            yield selected_text(revised, self._selection)
        has_joined = False
        while not self.is_ended:
            events, self._position, is_complete = self._feed.read(self._position)
            if text := selected_text(events, self._selection):
                yield text
            if not is_complete:
                continue
            if has_joined:
                break
            self._feed.join(self)
            has_joined = True
        with self._lock:
            early, self._early = self._early or [], None
            self._unsent = 0
            for batch in early:
                self._add_batch(batch)

    def offer(self, batch: EventBatch) -> bool:
        """Receive new events from the feed. Returns whether the listener has to be woken."""
        with self._lock:
            if self.is_ended:
                return False
            if self._early is None:
                return self._add_batch(batch)
            self._early.append(batch)
            self._unsent += len(batch.text(self._selection))
            self.is_behind = self.is_ended = self._unsent > limits.MAX_BEHIND
            return self.is_ended

    def heartbeat(self) -> bytes:
        """Return a comment and the position, so that a client can resume even without an event."""
        return f": heartbeat\nid: {self._position}\n\n".encode()

    def _add_batch(self, batch: EventBatch) -> bool:
        if batch.position.includes(self._position):
            fresh = batch.events
            if any(self._position.covers(event.key) for event in fresh):
                fresh = self._fresh(batch)
            text = (
                batch.text(self._selection)
                if fresh is batch.events
                else selected_text(fresh, self._selection)
            )
            self._position = batch.position
        else:
            text = selected_text(self._fresh(batch), self._selection)
        return self._add(text)

    def _fresh(self, batch: EventBatch) -> list[LiveEvent]:
        """Return the events of the batch that were not read before."""
        return [
            event
            for event in batch.events
            if event.is_revision or not self._position.covers(event.key)
        ]


class ChangeListener(Listener):
    """Receives a signal after each commit, and at regular intervals.

    It ends after LIFETIME; the browser then reconnects only if its session is still valid.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._ends_at = time.monotonic() + LIFETIME

    def pages(self) -> Iterator[bytes]:
        """Yield the beginning of the stream."""
        self._feed.join(self)
        yield f"{OPENING}\n".encode()

    def offer_change(self) -> bool:
        """Receive the signal that something has changed. Returns whether to wake the listener."""
        with self._lock:
            return not self.is_ended and not self._pending and self._add(CHANGED)

    def take(self) -> bytes:
        """Return the signal, if there is one."""
        self.is_ended |= time.monotonic() > self._ends_at
        return super().take()

    def heartbeat(self) -> bytes:
        """Return the signal, because problems such as a dead worker appear without a commit."""
        return CHANGED


class TaskWait(Subscriber):
    """A request that waits until its task ends."""

    def __init__(self, feed: Feed, task_id: str, seconds: float) -> None:
        super().__init__(feed)
        self.task_id, self.seconds = task_id, seconds

    def begin(self) -> None:
        """Start waiting. Raises StoreUnavailable."""
        self._feed.join(self)

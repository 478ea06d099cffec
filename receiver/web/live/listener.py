"""What one listener has to receive: events on record, new events, or a signal at each change."""

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
RETRY_MS = 2_000  # after which a browser connects again
OPENING = f"retry: {RETRY_MS}\n: live events; see docs/live-events.md\n"
CHANGED = b"data: {}\n\n"
# Keys of the WSGI environ. In our worker, a view hands a listener or a wait over to the event loop,
# which sends the listener's text as the body, or calls the application again after the wait.
HAND_OVER = "receiver.hand_over"  # present if the server supports it; None: nothing was handed over
WAITED = "receiver.waited"  # present if the application is called again


@dataclass(frozen=True, slots=True)
class EventSelection:
    """The events that a listener receives; None: any value."""

    task: str | None = None
    provider: str | None = None
    status: str | None = None
    reference: str | None = None
    account: str | None = None
    provider_task_id: str | None = None

    def includes(self, notice: Notice) -> bool:
        """Return whether the listener receives this event."""
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
    """An event as it is sent. A revision replaces the result of an event before the position."""

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
        """Return the selected events; listeners with the same selection share the bytes."""
        if selection not in self._texts:
            self._texts[selection] = selected_text(self.events, selection)
        return self._texts[selection]


def selected_text(events: Sequence[LiveEvent], selection: EventSelection) -> bytes:
    """Return the selected events as they are sent."""
    return b"".join(event.text for event in events if selection.includes(event.notice))


class Feed(Protocol):
    """The part of `feed.EventFeed` that listeners use."""

    def read(self, position: Position) -> tuple[list[LiveEvent], Position, bool]: ...

    def revised(self, position: Position) -> list[LiveEvent]: ...

    def join(self, subscriber: Subscriber) -> None: ...

    def leave(self, subscriber: Subscriber) -> None: ...


class Subscriber:
    """Occupies one of the places for listeners from its creation until `close`. Thread-safe."""

    def __init__(self, feed: Feed) -> None:
        self._feed = feed
        self._lock = Lock()
        self._wake: Callable[[], object] = lambda: None  # thread-safe
        self.notice_in_loop: Callable[[], object] = lambda: None  # called by the feed
        self.is_ended = False  # nothing more will be sent

    def attach(self, in_loop: Callable[[], object], wake: Callable[[], object]) -> None:
        """Have `in_loop` called by the feed when there is something to send.

        `wake` does the same, and is thread-safe.
        """
        self.notice_in_loop, self._wake = in_loop, wake

    def end(self) -> None:
        """Stop: the client has disconnected, or the process ends."""
        self.is_ended = True
        self._wake()

    def close(self) -> None:
        """Free the place. Safe to repeat."""
        self.is_ended = True
        self._feed.leave(self)


class Listener(Subscriber):
    """Receives text from the feed; everything that is not sent yet is `pending`."""

    silence = limits.HEARTBEAT  # seconds until a heartbeat is sent
    is_behind = False  # it was ended because the client reads too slowly

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._pending: list[bytes] = []
        self._unsent = 0  # bytes, also of the text that was taken and is being sent

    def pages(self) -> Iterator[bytes]:
        """Yield the text that precedes `take`. Reads the record, so it blocks."""
        raise NotImplementedError

    def heartbeat(self) -> bytes:
        """Return the text that is sent if there is nothing else to send."""
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
        """Add pending text, or end the listener if it is too far behind; called with the lock."""
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
        self._early: list[EventBatch] | None = []  # offered before all events on record were read

    def pages(self) -> Iterator[bytes]:
        """Yield the events on record after the position; then all later ones are offered.

        A batch that was offered meanwhile may contain events that were also read. Raises
        StoreUnavailable.
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
        """Receive new events from the feed. Returns whether any of them are selected."""
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
        """Return a comment, and the position, with which a client without events can resume."""
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
    """Receives a signal at each commit, and regularly without one.

    It ends after LIFETIME, so that the client connects again with a session that is still open.
    """

    def __init__(self, feed: Feed) -> None:
        super().__init__(feed)
        self._ends_at = time.monotonic() + LIFETIME

    def pages(self) -> Iterator[bytes]:
        """Yield the beginning of the stream."""
        self._feed.join(self)
        yield f"{OPENING}\n".encode()

    def offer_change(self) -> bool:
        """Receive the signal that something has changed."""
        with self._lock:
            return not self.is_ended and not self._pending and self._add(CHANGED)

    def take(self) -> bytes:
        """Return the signal, if there is one."""
        self.is_ended |= time.monotonic() > self._ends_at
        return super().take()

    def heartbeat(self) -> bytes:
        """Return the signal: problems such as a worker that has ended appear without a commit."""
        return CHANGED


class TaskWait(Subscriber):
    """A request that waits until its task ends."""

    def __init__(self, feed: Feed, task_id: str, seconds: float) -> None:
        super().__init__(feed)
        self.task_id, self.seconds = task_id, seconds

    def begin(self) -> None:
        """Begin to wait. Raises StoreUnavailable."""
        self._feed.join(self)

"""A listener receives each event once, however reading and new events overlap."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import pytest

from receiver.deliveries import Notice, Transition
from receiver.stores.sql.event_log import Position
from receiver.tasks import Status, Task, Trust
from receiver.text import limits
from receiver.web.live import listener as listeners
from receiver.web.live.listener import (
    ChangeListener,
    EventBatch,
    EventListener,
    EventSelection,
    LiveEvent,
    Subscriber,
)


def event(key: int, size: int = 0, **task: str) -> LiveEvent:
    given = {"id": f"t{key}", "provider": "kling", **task}
    notice = Notice(
        Task(**given, status=Status.SUCCEEDED, created_at=0, updated_at=0),  # type: ignore[arg-type]
        Transition("succeeded", 0, 0, Trust.TOKEN),
    )
    return LiveEvent(key, notice, f"<{key}>".encode() + b"x" * size)


class Record:
    """A record whose events become visible when the test makes them visible."""

    def __init__(self) -> None:
        self.visible: list[LiveEvent] = []
        self.joined: list[Subscriber] = []
        self.at_each_read: Callable[[], None] = lambda: None

    def read(self, position: Position) -> tuple[list[LiveEvent], Position, bool]:
        self.at_each_read()
        found = sorted(
            (one for one in self.visible if not position.covers(one.key)), key=lambda one: one.key
        )[:3]
        for one in found:
            position = position.after(one.key)
        return found, position, len(found) < 3

    def revised(self, _: Position) -> list[LiveEvent]:
        return []

    def join(self, subscriber: Subscriber) -> None:
        self.at_each_read()  # events that nobody passes to this listener
        self.joined.append(subscriber)

    def leave(self, subscriber: Subscriber) -> None:
        self.joined = [one for one in self.joined if one is not subscriber]


def keys(text: bytes) -> list[int]:
    return [int(key) for key in re.findall(rb"<(\d+)>", text)]


@pytest.mark.parametrize("seed", range(50))
def test_each_event_is_received_once(seed: int) -> None:
    """Events become visible in any order, while the listener reads and after it has joined."""
    chance = random.Random(seed)  # noqa: S311 - the same events each time
    record, rest = Record(), [event(key) for key in range(1, 40)]
    chance.shuffle(rest)
    feed = Position(0)

    def happen() -> None:
        nonlocal feed
        for _ in range(chance.randrange(6)):
            if rest:
                record.visible.append(rest.pop())
        if chance.random() < 0.7:  # the feed reads as well
            new = sorted(
                (one for one in record.visible if not feed.covers(one.key)), key=lambda e: e.key
            )
            for one in new:
                feed = feed.after(one.key)
            for joined in record.joined:
                assert isinstance(joined, EventListener)
                joined.offer(EventBatch(new, feed))

    record.at_each_read = happen
    listener = EventListener(record, EventSelection(), Position(0), is_resumed=True)
    received = b"".join(listener.pages())
    while rest:
        happen()
        received += listener.take()
    record.at_each_read = happen
    for _ in range(20):
        happen()
    received += listener.take()
    assert sorted(keys(received)) == list(range(1, 40))


def joined(selection: EventSelection | None = None) -> EventListener:
    listener = EventListener(Record(), selection or EventSelection(), Position(0), is_resumed=False)
    list(listener.pages())
    return listener


def test_a_listener_that_falls_behind_is_ended() -> None:
    listener = joined()
    size = limits.MAX_BEHIND // 4
    for key in range(1, 4):
        listener.offer(EventBatch([event(key, size)], Position(key)))
    taken = listener.take()  # text that is being sent still counts
    assert keys(taken) == [1, 2, 3]
    assert not listener.is_ended
    listener.offer(EventBatch([event(4, size)], Position(4)))
    assert listener.is_behind


def test_a_listener_that_reads_is_not_behind() -> None:
    listener = joined()
    for key in range(1, 100):
        listener.offer(EventBatch([event(key, limits.MAX_BEHIND // 2)], Position(key)))
        taken = listener.take()
        assert keys(taken) == [key]
        listener.sent(len(taken))
    assert not listener.is_ended


def test_a_listener_without_pending_text_accepts_a_batch_of_any_length() -> None:
    listener = joined()
    listener.offer(EventBatch([event(1, 2 * limits.MAX_BEHIND)], Position(1)))
    assert keys(listener.take()) == [1]


def test_events_that_are_not_selected_do_not_count_as_unsent() -> None:
    listener = joined(EventSelection(account="shop"))
    for key in range(1, 20):
        listener.offer(EventBatch([event(key, limits.MAX_BEHIND)], Position(key)))
    assert not listener.has_pending
    assert not listener.is_ended
    assert (
        b"id: events-19\n" in listener.heartbeat()
    )  # so that a client that resumes does not read them again
    listener.offer(EventBatch([event(20, account="shop")], Position(20)))
    assert keys(listener.take()) == [20]


def test_listeners_with_the_same_filters_share_the_text() -> None:
    batch = EventBatch([event(1)], Position(1))
    assert batch.text(EventSelection(task="t1")) is batch.text(EventSelection(task="t1"))


def test_a_revision_is_sent_although_its_event_was_sent() -> None:
    listener = joined()
    listener.offer(EventBatch([event(1)], Position(1)))
    revised = LiveEvent(1, event(1).notice, b"<1>", is_revision=True)
    listener.offer(EventBatch([revised], Position(1)))
    assert keys(listener.take()) == [1, 1]


def test_changes_are_merged_until_they_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = ChangeListener(Record())
    assert listener.offer_change()
    assert not listener.offer_change()
    assert listener.take().count(b"data:") == 1
    assert not listener.is_ended
    monkeypatch.setattr(listeners, "LIFETIME", 0.0)
    old = ChangeListener(Record())
    old.take()
    assert old.is_ended  # the browser reconnects, which checks its session

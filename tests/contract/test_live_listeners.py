"""The number of live listeners is stored for the metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.stores.base import Store
from receiver.stores.sql.activity import GONE_AFTER
from receiver.tasks import Status, Task
from receiver.web.live.feed import EventFeed
from receiver.web.live.listener import EventListener, EventSelection
from tests.support.patience import wait_until

NOW = 1_765_519_851_000


@pytest.fixture
def feed(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventFeed]:
    monkeypatch.setattr("receiver.web.live.feed.REPORT", 0.05)
    feed = EventFeed(store)
    yield feed
    feed.close()


def listen(feed: EventFeed) -> EventListener:
    listener = feed.listen(EventSelection(), None)
    list(listener.pages())
    return listener


def test_the_listeners_of_all_running_processes_are_counted(store: Store, feed: EventFeed) -> None:
    store.activity.report_listeners("another-host:7:web", 5, now_ms())
    store.activity.report_listeners("a-killed-process:7:web", 9, now_ms() - GONE_AFTER)
    assert store.activity.listeners(now_ms()) == 5
    first, second = listen(feed), listen(feed)
    wait_until(lambda: store.activity.listeners(now_ms()) == 7)
    first.close()
    wait_until(lambda: store.activity.listeners(now_ms()) == 6)
    second.close()
    wait_until(lambda: store.activity.listeners(now_ms()) == 5)
    assert store.activity.last_seen("web") is None  # it is no heartbeat of the web process


def test_a_process_that_stops_has_no_listeners(store: Store, feed: EventFeed) -> None:
    listen(feed)
    wait_until(lambda: store.activity.listeners(now_ms()) == 1)
    feed.close()
    assert store.activity.listeners(now_ms()) == 0


def test_events_are_sent_although_the_number_cannot_be_stored(
    store: Store, feed: EventFeed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(store.activity, "report_listeners", fail)
    listener = listen(feed)
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    wait_until(lambda: b'"task-1:created"' in listener.take())


@pytest.mark.parametrize("store", ["sqlite"], indirect=True)
def test_the_report_is_no_change_for_the_dashboard(store: Store, feed: EventFeed) -> None:
    """Otherwise, each open page would be requested after each report.

    In PostgreSQL, commits in other databases of the server count as changes, too.
    """
    listener, changes = feed.watch(), list[bytes]()
    listener.attach(lambda: changes.append(listener.take()), lambda: None)
    list(listener.pages())
    wait_until(lambda: store.activity.listeners(now_ms()) == 1)
    reported = seen_at(store)
    for _ in range(3):
        wait_until(lambda before=reported: seen_at(store) > before)  # type: ignore[misc]
        reported = seen_at(store)
    assert len(changes) == 1  # when it began


def seen_at(store: Store) -> int:
    return store.activity.last_seen("listeners") or 0

"""The event log of every store: each event once, from any position, in any order of commits."""

from __future__ import annotations

import pytest

from receiver.ingest import Ingest
from receiver.serializers.outputs import notice_of
from receiver.stores.base import Store
from receiver.stores.sql.event_log import RECORDED_APART, LoggedEvent, Position
from receiver.tasks import Status, Task
from receiver.web.live.feed import EventFeed
from receiver.web.live.listener import EventSelection
from tests.support.patience import wait_until
from tests.support.samples import body, callback

NOW = 1_765_519_851_000
MANY = 2_100  # more than the newest events that are searched for gaps
MANY_TASKS = f"""
with recursive numbers (number) as (
  select 1 union all select number + 1 from numbers where number < ?
)
insert into tasks (id, provider, status, trust, created_at, updated_at)
select 'many-' || number, 'kling', 'created', 'token', {NOW}, {NOW} from numbers
"""  # noqa: S608 - contains no input
MANY_TRANSITIONS = f"""
insert into transitions (task, status, occurred_at, recorded_at, trust)
select seq, 'processing', {NOW}, {NOW}, 'token' from tasks where id like 'many-%'
"""  # noqa: S608 - contains no input


def create(store: Store, *tasks: str) -> None:
    for task in tasks:
        store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW))


def ids(events: list[LoggedEvent]) -> list[str]:
    return [notice_of(event.source).id for event in events if event.source is not None]


def read(store: Store, position: Position) -> tuple[list[str], Position]:
    events, following = store.event_log.after(position, 100)
    return ids(events), following


def test_events_follow_their_position_in_pages(store: Store) -> None:
    create(store, "old")
    position = store.event_log.end()
    create(store, "a", "b", "c")
    Ingest(store, []).accept(callback(body(task_id="at-a"), "a"))
    expected = ["a:created", "b:created", "c:created", "a:succeeded"]
    assert read(store, position)[0] == expected
    found: list[str] = []
    while events := store.event_log.after(position, 3)[0]:
        assert len(events) <= 3
        found += ids(events)
        position = Position.parse(str(events[-1].position))
    assert found == expected
    assert read(store, store.event_log.end()) == ([], store.event_log.end())


def test_each_event_has_the_position_after_it(store: Store) -> None:
    create(store, "a", "b", "c")
    events, following = store.event_log.after(Position(0), 100)
    assert events[-1].position == following
    for number, event in enumerate(events, 1):
        assert read(store, event.position)[0] == ids(events[number:])


def test_an_event_has_its_media(store: Store) -> None:
    Ingest(store, []).accept(callback(body(task_id="at-a"), "a"))
    (*_, event), _ = store.event_log.after(Position(0), 100)
    assert event.source is not None
    (media,) = notice_of(event.source).as_json()["media"]
    assert media["url"] == "https://cdn.example/0.png"


def test_an_empty_log_begins_at_its_start(store: Store) -> None:
    assert store.event_log.end() == Position(0)
    assert read(store, Position(0)) == ([], Position(0))


def test_a_forgotten_task_has_no_events(store: Store) -> None:
    create(store, "a", "b")
    store.erasures.close_task("a", NOW)
    assert read(store, Position(0))[0] == ["b:created"]


def test_a_replaced_result_is_found_again(store: Store) -> None:
    create(store, "a", "b")
    end = store.event_log.end()
    assert store.event_log.revisions(end) == {}
    sql = "update transitions set revision = 1, corrected = 1, recorded_at = ? where id = ?"
    key = store.event_log.after(Position(0), 1)[0][0].key
    store.database.write(lambda session: session.execute(sql, (NOW + 5, key)))
    assert store.event_log.revisions(end) == {key: 1}
    assert ids(store.event_log.revised(end, NOW)) == ["a:created:1"]
    assert ids(store.event_log.revised(end, NOW + 5)) == ["a:created:1"]  # visible later, perhaps
    assert store.event_log.revised(end, NOW + 5 + RECORDED_APART) == []
    assert store.event_log.recorded_at(key) == NOW + 5


def test_a_replaced_result_is_sent_however_many_events_are_newer(store: Store) -> None:
    """To a listener that receives new events, and to one that resumes after the newest event."""
    create(store, "a", "b")
    key = store.event_log.after(Position(0), 1)[0][0].key
    store.database.write(lambda session: session.execute(MANY_TASKS, (MANY,)))
    store.database.write(lambda session: session.execute(MANY_TRANSITIONS))
    feed = EventFeed(store)
    try:
        listener = feed.listen(EventSelection(), None)
        list(listener.pages())
        sql = "update transitions set revision = 1, corrected = 1, recorded_at = ? where id = ?"
        store.database.write(lambda session: session.execute(sql, (NOW + 5, key)))
        wait_until(lambda: b'"a:created:1"' in listener.take())
        resumed = feed.listen(EventSelection(), store.event_log.end())
        assert b"".join(resumed.pages()).count(b'"a:created:1"') == 1
    finally:
        feed.close()


def test_the_newest_replaced_results_are_found_oldest_first(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.stores.sql.event_log.MAX_REVISED", 2)
    create(store, "a", "b", "c")
    sql = "update transitions set revision = 1, recorded_at = ? + 10 * (id - id / 3 * 3)"
    store.database.write(lambda session: session.execute(sql, (NOW,)))
    events = store.event_log.after(Position(0), 9)[0]
    expected = ids(sorted(events, key=lambda event: event.key % 3)[1:])
    assert ids(store.event_log.revised(store.event_log.end(), NOW)) == expected


def test_ended_and_unknown_tasks_are_distinguished_from_open_ones(store: Store) -> None:
    create(store, "open", "ended")
    Ingest(store, []).accept(callback(body(task_id="at-ended"), "ended"))
    assert store.event_log.ended(["open", "ended", "unknown"]) == {"ended", "unknown"}
    assert store.event_log.ended([]) == set()


def test_the_mark_differs_after_each_commit(store: Store) -> None:
    before = store.database.commit_mark()
    create(store, "a")
    assert store.database.commit_mark() != before

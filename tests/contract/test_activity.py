"""The latest activity in every store; a follower reports each entry once."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from threading import Event as Signal

import psycopg
import pytest

from receiver.cli import tail
from receiver.cli.tail import ActivityFollower
from receiver.deliveries import Attempt, State
from receiver.errors import NotTheProtocol, StoreUnavailable
from receiver.events import Event, Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.activity import Activity, ActivityKind
from receiver.stores.sql.transfer import Transfer
from receiver.tasks import NEVER_REACHED, Status, Task
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000


def succeed(store: Store, task: str, at: int = NOW) -> None:
    Ingest(store, [subscription("mail")]).accept(
        callback(body(task_id=f"at-{task}"), task, received_at=at)
    )


def attempt(store: Store, outcome: str = "failed", at: int = NOW) -> None:
    """Make one attempt at the oldest due delivery."""
    (delivery,) = store.outbox.claim("w", at + 1_000_000_000_000, at + 1_000_000_000_001, 1)
    attempt = Attempt(delivery.attempts, at - 5, at, outcome, "550 no")
    state = State.PENDING if outcome == "failed" else State.DELIVERED
    assert store.outbox.settle(delivery, attempt, state, at if state is State.PENDING else None)


def summary(found: list[Activity]) -> list[tuple[str, str | None, str]]:
    return [(one.kind.value, one.task_id, one.outcome) for one in found]


def unread(follower: ActivityFollower) -> list[Activity]:
    """Return the entries that the follower finds in one read."""
    return follower.read()


def test_each_kind_of_entry_describes_its_subject(store: Store) -> None:
    store.inbox.create_task(
        Task("a", "kling", Status.CREATED, NOW, NOW, "shop2", reference="ORDER-7")
    )
    succeed(store, "a")
    attempt(store)
    (came,) = store.activity.newest(ActivityKind.CALLBACK)
    assert (came.at, came.task_id, came.provider, came.account) == (NOW, "a", "kling", "shop2")
    assert (came.outcome, came.reference) == ("recorded", "ORDER-7")
    assert came.said.startswith("callback, ")
    moves = store.activity.newest(ActivityKind.MOVE)
    assert [move.outcome for move in moves] == ["succeeded", "created"]
    assert [move.said for move in moves] == ["verified by the token in the callback URL", ""]
    (tried,) = store.activity.newest(ActivityKind.ATTEMPT)
    assert (tried.outcome, tried.status, tried.hook) == ("failed", "succeeded", "mail")
    assert (tried.said, tried.key) == ("550 no", (1,))


def test_an_action_of_our_own_is_not_attributed_to_the_provider(store: Store) -> None:
    ingest = Ingest(store)
    for name in ("a", "b"):
        store.inbox.create_task(Task(name, "kling", Status.CREATED, NOW, NOW))
    ingest.give_up("a", NOW)
    never = Event("kling", "", Status.FAILED, NOW, reason=NEVER_REACHED)
    ingest.record(replace(callback(b"", "b"), source=Source.CREATE), never)
    moves = store.activity.newest(ActivityKind.MOVE)
    assert [(move.outcome, move.said) for move in moves] == [
        ("failed", ""),
        ("given_up", ""),
        ("created", ""),
        ("created", ""),
    ]


def test_a_message_without_a_task_is_reported_with_its_problem(store: Store) -> None:
    with pytest.raises(NotTheProtocol):
        Ingest(store).accept(callback(body("completed"), None))  # type: ignore[arg-type]
    (came,) = store.activity.newest(ActivityKind.CALLBACK)
    assert (came.task_id, came.account, came.outcome) == (None, None, "quarantined")
    assert "task_status" in came.said


def test_pages_are_ordered_by_key_even_within_one_instant(store: Store) -> None:
    for task in "abc":
        succeed(store, task)
    for _ in range(3):
        attempt(store, "delivered")
    for kind in ActivityKind:
        keys = [one.key for one in store.activity.newest(kind)]
        assert len(keys) == 3
        assert keys == sorted(keys, reverse=True)
        first = store.activity.newest(kind, limit=2)
        second = store.activity.newest(kind, before=first[-1].key, limit=2)
        assert [one.key for one in [*first, *second]] == keys


def test_a_follower_begins_with_past_entries_and_reports_each_new_one_once(store: Store) -> None:
    succeed(store, "a")
    follower = ActivityFollower(store)
    assert summary(follower.past) == [("callback", "a", "recorded"), ("move", "a", "succeeded")]
    assert unread(follower) == []
    succeed(store, "b", NOW + 1)
    attempt(store, at=NOW + 2)
    assert summary(unread(follower)) == [
        ("callback", "b", "recorded"),
        ("move", "b", "succeeded"),
        ("attempt", "a", "failed"),
    ]
    succeed(store, "b", NOW + 3)  # byte-identical, so it is only counted
    assert unread(follower) == []


def test_a_burst_is_reported_completely_and_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "PAGE", 3)
    for number in range(5):
        succeed(store, f"past-{number}")
    follower = ActivityFollower(store)
    assert len(follower.past) == 6  # the entries within the window, of both kinds
    for number in range(11):
        succeed(store, f"new-{number:02}", NOW + number)
    moved = [one.task_id for one in unread(follower) if one.kind is ActivityKind.MOVE]
    assert moved == [f"new-{number:02}" for number in range(11)]
    assert unread(follower) == []
    succeed(store, "last")
    assert [one.task_id for one in unread(follower)] == ["last", "last"]


def test_an_attempt_that_ended_before_reported_ones_is_reported(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clocks of workers differ, and an attempt may be recorded late."""
    monkeypatch.setattr(tail, "PAGE", 2)
    for task in "abc":
        succeed(store, task)
        attempt(store, "delivered", NOW + 1000)
    follower = ActivityFollower(store)
    succeed(store, "d")
    attempt(store, "delivered", NOW)
    found = [(one.task_id, one.at) for one in unread(follower) if one.kind is ActivityKind.ATTEMPT]
    assert found == [("d", NOW)]


def test_the_migration_orders_attempts_by_their_ends(
    lacking: Callable[..., Store],
) -> None:
    store = lacking("0008_economies")
    for task, ended_at in (("a", NOW + 2), ("b", NOW), ("c", NOW + 1)):
        succeed(store, task)
        attempt(store, "delivered", ended_at)
    before = store.queries.history("b")
    assert store.migrate() == ["0008_economies"]
    assert store.queries.history("b") == before
    assert [one.task_id for one in store.activity.newest(ActivityKind.ATTEMPT)] == ["a", "c", "b"]
    succeed(store, "d")
    attempt(store, "delivered", NOW)
    assert [one.key for one in store.activity.newest(ActivityKind.ATTEMPT)] == [
        (4,),
        (3,),
        (2,),
        (1,),
    ]
    assert store.activity.newest(ActivityKind.ATTEMPT)[0].task_id == "d"


def test_an_attempt_is_recorded_once(store: Store) -> None:
    succeed(store, "a")
    attempt(store)
    ((found,),) = Transfer(store.database).pages("attempts")
    with pytest.raises((sqlite3.IntegrityError, StoreUnavailable), match=r"(?i)unique"):
        Transfer(store.database).load("attempts", [{**found, "id": found["id"] + 1}])


def test_entries_that_are_committed_late_are_reported_too(
    request: pytest.FixtureRequest, fresh: Callable[[], str]
) -> None:
    """Only PostgreSQL is affected: SQLite has one writer, so its row keys are in commit order."""
    url = fresh()
    store = PostgresStore(url)
    request.addfinalizer(store.close)
    succeed(store, "a")
    follower = ActivityFollower(store)
    with psycopg.connect(url) as late:
        late.execute(
            "insert into transitions (task, status, occurred_at, recorded_at, trust)"
            " select seq, 'processing', 1, 1, 'token' from tasks"
        )
        succeed(store, "b")
        assert [one.task_id for one in unread(follower)] == ["b", "b"]
    assert summary(unread(follower)) == [("move", "a", "processing")]


def test_following_ends_on_request(store: Store) -> None:
    stop = Signal()
    following = ActivityFollower(store).follow(stop)
    succeed(store, "a")
    assert len(next(following)) == 2
    stop.set()
    assert list(following) == []

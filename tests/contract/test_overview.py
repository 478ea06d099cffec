"""The counters of every store, and the lists for the dashboard."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from receiver import providers
from receiver.deliveries import Attempt, File, State
from receiver.errors import NotFound
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.metrics import HOUR, HOURS_KEPT, SLOWEST
from receiver.stores.sql.rows import TimeRange
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task, Trust
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
TOLD_AT = 1_765_519_850_000  # the time of the event according to the provider
EVERYTHING = 10**6


def tell(store: Store, task: str, status: str = "succeed", **more: object) -> None:
    Ingest(store, [subscription("mail"), subscription("chat")]).accept(
        callback(body(status, f"at-provider-{task}"), task, **more)
    )


def standing(store: Store) -> dict[tuple[str, str], int]:
    return {
        (one.provider, one.status): one.value for one in store.metrics.task_counts() if one.value
    }


def states(store: Store) -> dict[tuple[str, str], int]:
    return {
        (one.hook, one.state): one.value for one in store.metrics.delivery_counts() if one.value
    }


def series(store: Store, since: int = 0) -> Counter[tuple[str, int]]:
    found: Counter[tuple[str, int]] = Counter()
    for one in store.metrics.hours(since):
        found[one.series, one.bucket] += one.value
    return found


def counted_one_by_one(store: Store) -> tuple[Counter[tuple[str, str]], Counter[tuple[str, str]]]:
    tasks = Counter((one.provider, one.status.value) for one in store.lists.tasks(limit=EVERYTHING))
    found = store.lists.deliveries(limit=EVERYTHING)
    return tasks, Counter((one.hook, one.state.value) for one in found)


# -- counters


def test_an_empty_record_counts_nothing(store: Store) -> None:
    assert (standing(store), states(store), series(store)) == ({}, {}, {})
    assert store.metrics.last_callbacks() == {}
    assert store.metrics.overdue_count(NOW) == 0


def test_a_task_is_counted_in_its_current_status(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW))
    assert standing(store) == {("kling", "created"): 1}
    tell(store, "a", "processing")
    assert standing(store) == {("kling", "processing"): 1}
    tell(store, "a")
    tell(store, "a")  # a copy
    tell(store, "b", "failed")
    assert standing(store) == {("kling", "failed"): 1, ("kling", "succeeded"): 1}


def test_a_task_that_was_given_up_is_not_open_until_it_ends(store: Store) -> None:
    tell(store, "a", "processing")
    store.inbox.give_up("a", NOW, [])
    assert standing(store) == {("kling", "given_up"): 1}
    tell(store, "a")
    assert standing(store) == {("kling", "succeeded"): 1}


def test_a_corrected_final_status_is_counted_once(store: Store) -> None:
    tell(store, "a", "failed")
    message = callback(body("succeed", "at-provider-a"), "a")
    event = providers.get("kling").parse(message)
    queried = replace(message, source=Source.QUERY, trust=Trust.QUERIED)
    assert store.inbox.record(queried, event, []) is Outcome.RECORDED
    assert standing(store) == {("kling", "succeeded"): 1}


def test_a_delivery_is_counted_in_its_state(store: Store) -> None:
    tell(store, "a")
    assert states(store) == {("chat", "pending"): 1, ("mail", "pending"): 1}
    first, second = store.outbox.claim("w", NOW, NOW + 1, 9)
    assert states(store) == {("chat", "claimed"): 1, ("mail", "claimed"): 1}
    attempt = Attempt(1, NOW, NOW, "failed", "no")
    store.outbox.settle(first, attempt, State.DEAD, None)
    store.outbox.settle(second, attempt, State.PENDING, NOW)
    assert states(store) == {(first.hook, "dead"): 1, (second.hook, "pending"): 1}
    store.outbox.redeliver(first.id, NOW)
    assert states(store) == {("chat", "pending"): 1, ("mail", "pending"): 1}


def test_the_counters_of_a_forgotten_task_remain(store: Store) -> None:
    tell(store, "a")
    store.erasures.close_task("a", NOW)
    store.erasures.erase("a", NOW)
    assert standing(store) == {("kling", "succeeded"): 1}
    assert states(store) == {("chat", "dead"): 1, ("mail", "dead"): 1}


def test_callbacks_and_final_statuses_are_counted_by_the_hour(store: Store) -> None:
    tell(store, "a", "processing", received_at=NOW - HOUR)
    tell(store, "a")
    tell(store, "a")  # a byte-identical repetition
    tell(store, "b", "failed")
    hour = NOW // HOUR
    counts = {
        (one.hour, one.series): one.value for one in store.metrics.hours(hour - 1) if not one.bucket
    }
    assert counts == {
        (hour - 1, "callbacks"): 1,
        (hour, "callbacks"): 2,
        (hour, "failed"): 1,
        (hour, "succeeded"): 1,
    }
    assert {one.hour for one in store.metrics.hours(hour)} == {hour}


@pytest.mark.parametrize(
    ("took", "bucket"),
    [(-5_000, 250), (249, 250), (250, 500), (59_999, 60_000), (300_000, SLOWEST)],
)
def test_latency_is_the_time_from_the_providers_clock_to_our_receipt(
    store: Store, took: int, bucket: int
) -> None:
    tell(store, "a", received_at=TOLD_AT + took)
    assert [key for key in series(store) if key[0] == "latency"] == [("latency", bucket)]


def test_an_hour_replaces_the_one_two_days_before(store: Store) -> None:
    last = NOW + 5 * HOURS_KEPT * HOUR
    for day in range(6):
        tell(store, f"task-{day}", received_at=NOW + day * HOURS_KEPT * HOUR)
    tell(store, "another", received_at=last)
    two_days = last // HOUR - HOURS_KEPT + 1
    assert series(store, two_days)["callbacks", 0] == 2
    tell(store, "late", received_at=NOW)  # a copied time must not replace a newer one
    assert series(store, two_days)["callbacks", 0] == 2
    assert store.metrics.last_callbacks() == {"kling": last}
    if isinstance(store, SqliteStore):  # PostgreSQL may have one row for each slot
        assert series(store)["callbacks", 0] == 2


def test_overdue_tasks_are_counted(store: Store) -> None:
    for number, deadline_at in enumerate((NOW - 1, NOW, NOW + 1, None)):
        store.inbox.create_task(
            Task(f"t{number}", "kling", Status.CREATED, NOW, NOW, deadline_at=deadline_at)
        )
    assert store.metrics.overdue_count(NOW) == 2


def test_counters_are_right_after_concurrent_changes(store: Store) -> None:
    """Many threads record transitions, claim deliveries and settle them."""
    chance = random.Random(7)  # noqa: S311 - reproducible, and not a secret
    messages = [
        (f"t{number}", status) for number in range(40) for status in ("processing", "succeed")
    ]
    chance.shuffle(messages)

    def work(one: tuple[str, str]) -> None:
        tell(store, *one)
        for delivery in store.outbox.claim("w", NOW, NOW + 10, 3):
            state = chance.choice([State.DELIVERED, State.DEAD, State.PENDING])
            attempt = Attempt(delivery.attempts, NOW, NOW, "failed", "no")
            store.outbox.settle(delivery, attempt, state, NOW if state is State.PENDING else None)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, messages))
    assert (Counter(standing(store)), Counter(states(store))) == counted_one_by_one(store)
    assert series(store)["succeeded", 0] == 40


# -- the migration


def live_a_little(store: Store) -> None:
    for number in range(12):
        at = NOW - number * 5 * HOUR
        tell(store, f"t{number}", "processing", received_at=at)
        tell(store, f"t{number}", "failed" if number % 3 else "succeed", received_at=at + 20_000)
    tell(store, "given-up", "processing")
    store.inbox.give_up("given-up", NOW, [])
    for delivery in store.outbox.claim("w", NOW, NOW + 1, 5):
        store.outbox.settle(delivery, Attempt(1, NOW, NOW, "failed", "no"), State.DEAD, None)


def test_the_migration_counts_the_existing_rows(
    lacking: Callable[..., Store],
) -> None:
    counting = ["0003_overview", "0008_economies"]
    before, now = lacking(*counting), lacking()
    for store in (before, now):
        live_a_little(store)
    assert before.migrate() == counting
    since = NOW // HOUR - 24
    assert standing(before) == standing(now)
    assert states(before) == states(now)
    assert before.metrics.hours(since) == now.metrics.hours(since) != []
    assert before.metrics.last_callbacks() == now.metrics.last_callbacks() != {}
    tell(before, "one-more")
    assert standing(before)["kling", "succeeded"] == standing(now)["kling", "succeeded"] + 1


# -- pages


def ids(tasks: tuple[Task, ...]) -> list[str]:
    return [task.id for task in tasks]


def five_tasks(store: Store) -> None:
    for number in range(5):
        task = Task(
            f"t{number}", "kling", Status.CREATED, NOW + number, NOW + number, reference="R"
        )
        store.inbox.create_task(task)
    tell(store, "t1")
    tell(store, "t3", "processing")


def test_tasks_of_several_statuses_are_in_one_order(store: Store) -> None:
    five_tasks(store)
    open_ones = (Status.CREATED, Status.SUBMITTED, Status.PROCESSING)
    page = store.lists.page_of_tasks(status=open_ones, before=None, limit=3)
    assert ids(page.rows) == ["t4", "t3", "t2"]
    following = store.lists.page_of_tasks(status=open_ones, before=page.next, limit=3)
    assert (ids(following.rows), following.next) == (["t0"], None)
    every = store.lists.page_of_tasks(status=tuple(Status), before=None, limit=9, reference="R")
    assert ids(every.rows) == ["t4", "t3", "t2", "t1", "t0"]
    assert (
        store.lists.page_of_tasks(status=open_ones, before=None, limit=3, provider="appypie").rows
        == ()
    )


@pytest.mark.parametrize(
    ("since", "until", "found"),
    [
        (1, 4, ["t3", "t2", "t1"]),
        (None, 0, []),
        (5, None, []),
        (None, 2, ["t1", "t0"]),
        (0, 99, ["t4", "t3", "t2", "t1", "t0"]),
    ],
)
def test_tasks_are_filtered_by_time(
    store: Store, since: int | None, until: int | None, found: list[str]
) -> None:
    five_tasks(store)
    created = TimeRange(
        None if since is None else NOW + since, None if until is None else NOW + until
    )
    page = store.lists.page_of_tasks(status=tuple(Status), before=None, limit=9, created=created)
    assert (ids(page.rows), page.next) == (found, None)


def test_filtered_tasks_are_read_page_by_page(store: Store) -> None:
    five_tasks(store)
    page = store.lists.page_of_tasks(
        status=tuple(Status), before=None, limit=2, created=TimeRange(since=NOW + 1)
    )
    assert ids(page.rows) == ["t4", "t3"]
    page = store.lists.page_of_tasks(
        status=tuple(Status), before=page.next, limit=2, created=TimeRange(since=NOW + 1)
    )
    assert (ids(page.rows), page.next) == (["t2", "t1"], None)


def test_related_rows_of_a_page_are_found(store: Store) -> None:
    tell(store, "a")
    tell(store, "b")
    delivery, *_ = store.outbox.claim("w", NOW, NOW + 1, 9)
    picture = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"small")
    bare = replace(picture, media_index="1", thumbnail=None)
    attempt = Attempt(1, NOW, NOW, "delivered", "ok")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, [picture, bare])
    (task,) = store.queries.tasks_by_id([delivery.task_id, "nobody"]).values()
    assert task.id == delivery.task_id
    found = store.queries.pictures(["a", "b"])
    assert [(one.file.media_index, one.has_thumbnail) for one in found[task.id]] == [
        ("0", True),
        ("1", False),
    ]
    assert store.queries.picture(delivery.id, "0") == picture
    with pytest.raises(NotFound, match="no file 9"):
        store.queries.picture(delivery.id, "9")
    assert store.queries.results(["a", "b"])["a"].body == body("succeed", "at-provider-a")
    assert store.queries.attempts([delivery]) == {delivery.id: (attempt,)}
    assert (
        store.queries.pictures([]),
        store.queries.results([]),
        store.queries.tasks_by_id([]),
    ) == ({}, {}, {})
    assert store.queries.attempts([]) == {}


def test_quarantine_is_listed_newest_first_page_by_page(store: Store) -> None:
    tell(store, "a")
    for number in range(3):
        store.inbox.quarantine(callback(f"{number}".encode(), "a"), f"problem {number}")
    page = store.lists.page_of_quarantine(before=None, limit=2)
    assert [one.problem for one in page.rows] == ["problem 2", "problem 1"]
    page = store.lists.page_of_quarantine(before=page.next, limit=2)
    assert ([one.problem for one in page.rows], page.next) == (["problem 0"], None)

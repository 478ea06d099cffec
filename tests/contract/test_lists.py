"""Lists of every store, filtered by tasks and by time, page by page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import State
from receiver.errors import NotFound
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.repair import DeliverySelection
from receiver.stores.sql.rows import StoredCallback, TimeRange
from receiver.tasks import Outcome, Status, Task
from tests.support.databases import Databases
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
HOUR = 3_600_000
NARROWED: list[tuple[dict[str, Any], list[str]]] = [
    ({}, ["d", "c", "b", "a"]),
    ({"reference": "ORDER-7"}, ["d", "b"]),
    ({"account": "shop2"}, ["c", "b"]),
    ({"account": "shop2", "reference": "ORDER-7"}, ["b"]),
    ({"provider": "appypie"}, ["d"]),
    ({"provider": "modellix"}, []),
    ({"span": TimeRange(since=NOW + HOUR)}, ["d", "c", "b"]),
    ({"span": TimeRange(until=NOW + HOUR)}, ["a"]),
    ({"span": TimeRange(NOW + HOUR, NOW + 3 * HOUR)}, ["c", "b"]),
    ({"span": TimeRange(since=NOW + HOUR), "account": "default"}, ["d"]),
]


@pytest.fixture
def filled(store: Store) -> Store:
    """Four tasks, an hour apart, each with a callback and a delivery."""
    ingest = Ingest(store, [subscription("mail")])
    for number, (task, provider, account, reference) in enumerate(
        [
            ("a", "kling", "default", None),
            ("b", "kling", "shop2", "ORDER-7"),
            ("c", "kling", "shop2", "ORDER-8"),
            ("d", "appypie", "default", "ORDER-7"),
        ]
    ):
        at = NOW + number * HOUR
        new_task = Task(task, provider, Status.CREATED, at, at, account, reference=reference)
        store.inbox.create_task(new_task)
        came = replace(
            callback(body(task_id=f"at-{task}"), task, received_at=at), provider=provider
        )
        assert ingest.accept(came) is Outcome.RECORDED
    return store


SPANS = {"tasks": "created", "callbacks": "received", "deliveries": "moved"}


def listed(store: Store, kind: str, limit: int = 9, before: int | None = None, **more: Any) -> Any:
    """Return a page of this kind of list; `span` applies to the times of this kind."""
    if "span" in more:
        more = {**more, SPANS[kind]: more["span"]}
        del more["span"]
    return getattr(store.lists, f"page_of_{kind}")(before=before, limit=limit, **more)


def ids(page: Any) -> list[str]:
    """Return the tasks of the rows."""
    return [of_task(row) for row in page.rows]


def of_task(row: Any) -> str:
    if isinstance(row, Task):
        return row.id
    return str(row.callback.task_id if isinstance(row, StoredCallback) else row.task_id)


@pytest.mark.parametrize("kind", ["tasks", "callbacks", "deliveries"])
@pytest.mark.parametrize(("narrowed", "expected"), NARROWED)
def test_a_list_contains_the_filtered_rows(
    filled: Store, kind: str, narrowed: dict[str, Any], expected: list[str]
) -> None:
    assert ids(listed(filled, kind, **narrowed)) == expected


@pytest.mark.parametrize("kind", ["tasks", "callbacks", "deliveries"])
def test_pages_follow_each_other(filled: Store, kind: str) -> None:
    narrowed: dict[str, Any] = {"span": TimeRange(since=NOW + HOUR)}
    first = listed(filled, kind, limit=2, **narrowed)
    assert ids(first) == ["d", "c"]
    second = listed(filled, kind, limit=2, before=first.next, **narrowed)
    assert (ids(second), second.next) == (["b"], None)


@pytest.mark.parametrize("state", [State.PENDING, State.DEAD])
def test_deliveries_are_filtered_in_every_state(filled: Store, state: State) -> None:
    if state is State.DEAD:
        for delivery in filled.lists.deliveries():
            filled.erasures.close_task(delivery.task_id, NOW)
    page = filled.lists.page_of_deliveries(
        before=None, limit=9, state=state, hook="mail", reference="ORDER-7"
    )
    assert ids(page) == ["d", "b"]


def test_an_account_filter_excludes_messages_without_a_task(filled: Store) -> None:
    filled.inbox.quarantine(callback(b"{}", None), "no")  # type: ignore[arg-type]
    page = filled.lists.page_of_callbacks(before=None, limit=9, outcome=Outcome.QUARANTINED)
    assert [stored.problem for stored in page.rows] == ["no"]
    assert (
        filled.lists.page_of_callbacks(before=None, limit=9, account="default").rows[0].problem
        is None
    )


def put(store: Store, times: list[int]) -> None:
    """Record a task with a callback and a delivery at each of these times, in this order."""
    ingest = Ingest(store, [subscription("mail")])
    for number, at in enumerate(times):
        store.inbox.create_task(Task(f"t{number}", "kling", Status.CREATED, at, at))
        ingest.accept(callback(body(task_id=f"at-{number}"), f"t{number}", received_at=at))


@pytest.mark.parametrize(
    ("narrowed", "wanted"),
    [
        ({"provider_task_id": "at-b"}, ["b"]),
        ({"provider_task_id": "same"}, ["f", "e"]),
        ({"provider_task_id": "same", "provider": "appypie"}, ["f"]),
        ({"provider_task_id": "same", "status": Status.SUCCEEDED}, []),
        ({"provider_task_id": "at-b", "reference": "ORDER-8"}, []),
        ({"provider_task_id": "at"}, []),
    ],
)
def test_tasks_are_found_by_the_providers_id(
    filled: Store, narrowed: dict[str, Any], wanted: list[str]
) -> None:
    one = Task("e", "kling", Status.SUBMITTED, NOW, NOW, provider_task_id="same")
    filled.inbox.create_task(one)
    filled.inbox.create_task(
        replace(one, id="f", provider="appypie", provider_task_id=None, callback_task_id="same")
    )
    assert ids(listed(filled, "tasks", **narrowed)) == wanted


@pytest.mark.parametrize(
    ("narrowed", "wanted"),
    [
        ({}, ["g", "f", "e"]),
        ({"reference": "ORDER-7"}, ["g"]),
        ({"provider": "appypie"}, ["f"]),
        ({"account": "shop2"}, ["e"]),
        ({"span": TimeRange(since=NOW + HOUR)}, ["g"]),
    ],
)
def test_open_tasks_that_were_given_up_are_listed(
    filled: Store, narrowed: dict[str, Any], wanted: list[str]
) -> None:
    ingest = Ingest(filled)
    one = Task("e", "kling", Status.SUBMITTED, NOW, NOW, account="shop2")
    for task in (
        one,
        Task("f", "appypie", Status.CREATED, NOW, NOW),
        Task("g", "kling", Status.CREATED, NOW + HOUR, NOW, reference="ORDER-7"),
        Task("h", "kling", Status.CREATED, NOW, NOW),
    ):
        filled.inbox.create_task(task)
        ingest.give_up(task.id, NOW)
    ingest.accept(callback(body(task_id="at-h"), "h"))  # a result that arrived after all
    assert filled.queries.task("h").given_up_at == NOW

    page = listed(filled, "tasks", limit=2, given_up=True, **narrowed)
    assert ids(page) == wanted[:2]
    if page.next is not None:
        more = listed(filled, "tasks", before=page.next, given_up=True, **narrowed)
        assert ids(more) == wanted[2:]


MINUTE = 60_000
UP_TO_NOW = [NOW + n * MINUTE for n in range(60)]
CLOCKS = {
    "in order": UP_TO_NOW,
    "set back by an hour": [*UP_TO_NOW, *UP_TO_NOW],
    "one clock was far ahead": [*UP_TO_NOW[:30], NOW + 9_999 * HOUR, *UP_TO_NOW[30:]],
    "one clock was far behind": [*UP_TO_NOW[:30], 1, *UP_TO_NOW[30:]],
    "commits out of order": [at + (n % 3) * 10_000 for n, at in enumerate(UP_TO_NOW[::1])],
}


@pytest.fixture(scope="module")
def wrong_clocks(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    migrated: Callable[[Path], Store],
) -> Iterator[Callable[[str, str], Store]]:
    """Return a function that returns the store of a database with rows at the times of a clock.

    Each store is filled at its first use. Tests only read it.
    """
    with ExitStack() as stack:

        @cache
        def of(database: str, clock: str) -> Store:
            if database == "postgres":
                databases: Databases = request.getfixturevalue("_databases")
                url = databases.take()
                stack.callback(databases.give_back, url)
                store: Store = PostgresStore(url)
            else:
                store = migrated(tmp_path_factory.mktemp("clock") / "receiver.db")
            stack.callback(store.close)
            put(store, CLOCKS[clock])
            return store

        yield of


@pytest.mark.parametrize("kind", ["tasks", "callbacks", "deliveries"])
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("database", ["sqlite", "postgres"])
def test_a_wrong_clock_hides_no_row_of_the_requested_time(
    wrong_clocks: Callable[[str, str], Store], database: str, clock: str, kind: str
) -> None:
    store, times = wrong_clocks(database, clock), CLOCKS[clock]
    for since, until in [(30, None), (None, 30), (20, 40), (50, None), (None, 15)]:
        first = None if since is None else NOW + since * MINUTE
        end = None if until is None else NOW + until * MINUTE
        expected = {
            f"t{n}"
            for n, at in enumerate(times)
            if (first is None or at >= first) and (end is None or at < end) and at in UP_TO_NOW
        }
        found = ids(listed(store, kind, limit=500, span=TimeRange(first, end)))
        assert expected <= set(found)
        assert len(found) == len(set(found))


@pytest.mark.parametrize(
    "text", ["\ud800", "a\udfffb", "a\0b", "\x1b[2J\u202e\uffff", "x" * 10_000]
)
def test_text_that_cannot_be_stored_is_not_found(filled: Store, text: str) -> None:
    for kind in ("tasks", "callbacks", "deliveries"):
        assert ids(listed(filled, kind, reference=text)) == []
        assert ids(listed(filled, kind, account=text)) == []
    for kind in ("callbacks", "deliveries"):
        assert ids(listed(filled, kind, task_id=text)) == []
    for selection in (
        DeliverySelection(task_id=text),
        DeliverySelection(hook=text),
        DeliverySelection(status=text),
    ):
        assert filled.repair.redeliver_all(selection, NOW).changed == 0
    assert ids(listed(filled, "tasks", provider_task_id=text)) == []
    with pytest.raises(NotFound):
        filled.queries.history(text)
    with pytest.raises(NotFound):
        filled.queries.task_by_provider_id("kling", text)

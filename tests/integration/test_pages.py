"""A page costs the same for any length of the record and any filter."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import State
from receiver.stores.sql.rows import TimeRange
from receiver.stores.sqlite import SqliteStore, readers, writer
from receiver.tasks import Outcome, Status

ROWS = 4_000
STEPS = 50  # steps of SQLite's virtual machine between two counts
MOST = 60  # times so many; a full scan takes a few hundred
RARE = (7, 8)  # the matching rows are the oldest, so a page finds them last
KLING_FAILED = 5
APART = 600_000  # ms between two rows
Migrated = Callable[[Path], SqliteStore]

FILL = """
with recursive number(n) as (select 1 union all select n + 1 from number where n < :rows)
insert into {table} ({columns}) select {values} from number
"""
TASK_COLUMNS = "seq, id, provider, account, reference, status, trust, created_at, updated_at"
TASKS = """n, printf('task-%d', n),
  case n when 7 then 'modellix' when 8 then 'modellix' else 'kling' end,
  case n when 7 then 'shop2' when 8 then 'shop2' else 'default' end,
  case n when 7 then 'ORDER-7' else 'ORDER' end,
  case n when 5 then 'failed' when 7 then 'failed' when 8 then 'processing' else 'succeeded' end,
  'token', n * 600000, n * 600000"""
TRANSITION_COLUMNS = "id, task, status, occurred_at, recorded_at, trust"
TRANSITIONS = "n, n, 'succeeded', n * 600000, n * 600000, 'token'"
CALLBACK_COLUMNS = "id, task, provider, source, trust, outcome, received_at, digest, headers, body"
CALLBACKS = """n, n, case n when 7 then 'modellix' when 8 then 'modellix' else 'kling' end,
  'callback', 'token',
  case n when 5 then 'duplicate' when 7 then 'duplicate' when 6 then 'quarantined'
    else 'recorded' end,
  n * 600000, cast(n as blob), '{}', cast('{}' as blob)"""
DELIVERY_COLUMNS = "id, transition, hook, state, due_at"
DELIVERIES = """n, n, case n when 7 then 'old' else 'mail' end,
  case n when 7 then 'dead' when 8 then 'pending' else 'delivered' end,
  n"""


def span(since: int | None = None, until: int | None = None) -> TimeRange:
    """Return a filter for the rows from this one on, before the other one."""
    return TimeRange(since and since * APART, None if until is None else until * APART)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of steps of all connections."""
    seen: list[int] = []
    original = writer.connect

    def counted(path: Path, *, read_only: bool) -> sqlite3.Connection:
        connection = original(path, read_only=read_only)
        connection.set_progress_handler(lambda: seen.append(1), STEPS)
        return connection

    monkeypatch.setattr(readers, "connect", counted)
    return seen


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory, migrated: Migrated) -> Path:
    """A long record whose matching rows are its oldest. Each test gets a copy."""
    path = tmp_path_factory.mktemp("long") / "receiver.db"
    migrated(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        for table, columns, values in (
            ("tasks", TASK_COLUMNS, TASKS),
            ("transitions", TRANSITION_COLUMNS, TRANSITIONS),
            ("callbacks", CALLBACK_COLUMNS, CALLBACKS),
            ("deliveries", DELIVERY_COLUMNS, DELIVERIES),
        ):
            sql = FILL.format(table=table, columns=columns, values=values)
            connection.execute(sql, {"rows": ROWS})
    return path


@pytest.fixture
def long(filled: Path, tmp_path: Path, steps: list[int]) -> Iterator[SqliteStore]:
    for end in ("", "-lock"):
        shutil.copy(f"{filled}{end}", tmp_path / f"receiver.db{end}")
    store = SqliteStore(tmp_path / "receiver.db")
    store.queries.task("task-1")  # open the connection
    steps.clear()
    yield store
    store.close()


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({}, range(ROWS, ROWS - 3, -1)),
        ({"status": Status.SUCCEEDED}, range(ROWS, ROWS - 3, -1)),
        ({"provider": "kling"}, range(ROWS, ROWS - 3, -1)),
        ({"reference": "ORDER"}, range(ROWS, ROWS - 3, -1)),
        ({"status": Status.FAILED}, [7, KLING_FAILED]),
        ({"status": Status.CREATED}, []),
        ({"provider": "modellix"}, [8, 7]),
        ({"provider": "appypie"}, []),
        ({"provider": "kling", "status": Status.FAILED}, [KLING_FAILED]),
        ({"provider": "kling", "account": "shop2"}, []),
        ({"account": "shop2"}, [8, 7]),
        ({"account": "shop2", "status": Status.SUCCEEDED}, []),
        ({"account": "default", "provider": "modellix"}, []),
        ({"reference": "ORDER-7"}, [7]),
        (
            {"reference": "ORDER-7", "provider": "modellix", "account": "shop2"},
            [7],
        ),
        ({"reference": "ORDER-7", "status": Status.SUCCEEDED, "provider": "kling"}, []),
        ({"created": span(since=ROWS - 1)}, [ROWS, ROWS - 1]),
        ({"created": span(until=3)}, [2, 1]),
        ({"created": span(7, 9)}, [8, 7]),
        ({"created": span(since=ROWS * 2)}, []),
        ({"created": span(until=0)}, []),
    ],
)
def test_a_page_of_tasks_looks_at_few_rows(
    long: SqliteStore, steps: list[int], wanted: dict[str, Any], numbers: Any
) -> None:
    page = long.lists.page_of_tasks(before=None, limit=3, **wanted)
    assert len(steps) < MOST
    assert [task.id for task in page.rows] == [f"task-{number}" for number in numbers]
    assert (page.next is None) == (len(page.rows) < 3)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, range(ROWS, ROWS - 3, -1)),
        ({"hook": "mail"}, range(ROWS, ROWS - 3, -1)),
        ({"state": State.DELIVERED}, range(ROWS, ROWS - 3, -1)),
        ({"hook": "old"}, [7]),
        ({"hook": "gone"}, []),
        ({"hook": "old", "state": State.DELIVERED}, []),
        ({"hook": "mail", "state": State.DEAD}, []),
        ({"state": State.DEAD}, [7]),
        ({"state": State.PENDING}, [8]),
        ({"state": State.CLAIMED}, []),
        ({"state": State.PENDING, "hook": "mail"}, [8]),
        ({"state": State.PENDING, "hook": "old"}, []),
        ({"task_id": "task-9"}, [9]),
        ({"task_id": "task-9", "hook": "mail", "state": State.DELIVERED}, [9]),
        ({"task_id": "task-9", "state": State.PENDING}, []),
        ({"provider": "modellix"}, [8, 7]),
        ({"provider": "appypie"}, []),
        ({"account": "shop2"}, [8, 7]),
        ({"account": "shop2", "state": State.PENDING}, [8]),
        ({"reference": "ORDER-7"}, [7]),
        ({"reference": "ORDER", "hook": "mail"}, range(ROWS, ROWS - 3, -1)),
        ({"moved": span(since=ROWS - 1)}, [ROWS, ROWS - 1]),
        ({"moved": span(until=3)}, [2, 1]),
        ({"moved": span(7, 9), "provider": "modellix"}, [8, 7]),
    ],
)
def test_a_page_of_deliveries_looks_at_few_rows(
    long: SqliteStore, steps: list[int], wanted: dict[str, Any], ids: Any
) -> None:
    page = long.lists.page_of_deliveries(before=None, limit=3, **wanted)
    assert len(steps) < MOST
    assert [delivery.id for delivery in page.rows] == list(ids)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ({}, range(ROWS, ROWS - 3, -1)),
        ({"outcome": Outcome.RECORDED}, range(ROWS, ROWS - 3, -1)),
        ({"outcome": Outcome.DUPLICATE}, [7, 5]),
        ({"outcome": Outcome.QUARANTINED}, [6]),
        ({"outcome": Outcome.MISMATCH}, []),
        ({"provider": "kling"}, range(ROWS, ROWS - 3, -1)),
        ({"provider": "modellix"}, [8, 7]),
        ({"provider": "appypie"}, []),
        ({"provider": "modellix", "outcome": Outcome.DUPLICATE}, [7]),
        ({"provider": "kling", "outcome": Outcome.DUPLICATE}, [5]),
        ({"provider": "kling", "outcome": Outcome.STALE}, []),
        ({"account": "shop2"}, [8, 7]),
        ({"account": "shop2", "outcome": Outcome.DUPLICATE}, [7]),
        ({"account": "default"}, range(ROWS, ROWS - 3, -1)),
        ({"reference": "ORDER"}, range(ROWS, ROWS - 3, -1)),
        ({"reference": "ORDER-7"}, [7]),
        ({"reference": "ORDER-7", "provider": "kling"}, []),
        ({"reference": "nobody's"}, []),
        ({"task_id": "task-5"}, [5]),
        ({"task_id": "task-5", "outcome": Outcome.RECORDED}, []),
        ({"task_id": "nobody"}, []),
        ({"received": span(since=ROWS - 1)}, [ROWS, ROWS - 1]),
        ({"received": span(until=3)}, [2, 1]),
        ({"received": span(4, 9), "outcome": Outcome.DUPLICATE}, [7, 5]),
        ({"received": span(6, 9), "outcome": Outcome.DUPLICATE, "provider": "kling"}, []),
    ],
)
def test_a_page_of_callbacks_looks_at_few_rows(
    long: SqliteStore, steps: list[int], wanted: dict[str, Any], ids: Any
) -> None:
    page = long.lists.page_of_callbacks(before=None, limit=3, **wanted)
    assert len(steps) < MOST
    assert [stored.id for stored in page.rows] == list(ids)


@pytest.mark.parametrize("outcome", Outcome)
def test_each_outcome_is_found_beneath_a_long_record_of_another(
    long: SqliteStore, steps: list[int], tmp_path: Path, outcome: Outcome
) -> None:
    """This includes recorded callbacks below unrecorded ones."""
    other = Outcome.STALE if outcome is Outcome.RECORDED else Outcome.RECORDED
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as connection, connection:
        connection.execute("update callbacks set outcome = ? where id > 9", (other,))
        connection.execute("update callbacks set outcome = ? where id <= 9", (outcome,))
    page = long.lists.page_of_callbacks(before=None, limit=3, outcome=outcome)
    assert [stored.id for stored in page.rows] == [9, 8, 7]
    assert len(steps) < MOST


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("hook", [None, "old"])
def test_each_state_is_found_beneath_a_long_record_of_another(
    long: SqliteStore, steps: list[int], tmp_path: Path, state: State, hook: str | None
) -> None:
    other = State.DEAD if state is State.DELIVERED else State.DELIVERED
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as connection, connection:
        connection.execute("update deliveries set state = ?", (other,))
        connection.execute("update deliveries set state = ? where id in (7, 8)", (state,))
    page = long.lists.page_of_deliveries(before=None, limit=3, state=state, hook=hook)
    assert [delivery.id for delivery in page.rows] == [8, 7] if hook is None else [7]
    assert len(steps) < MOST


def test_a_backlog_is_not_sorted_for_each_page(
    long: SqliteStore, steps: list[int], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / "receiver.db")) as connection, connection:
        connection.execute("update deliveries set state = 'pending'")
    for hook in (None, "mail"):
        page = long.lists.page_of_deliveries(before=None, limit=3, state=State.PENDING, hook=hook)
        assert [delivery.id for delivery in page.rows] == [ROWS, ROWS - 1, ROWS - 2]
    assert len(steps) < 2 * MOST


def test_the_last_page_costs_what_the_first_one_does(long: SqliteStore, steps: list[int]) -> None:
    some: list[dict[str, Any]] = [{}, {"provider": "kling"}, {"status": Status.SUCCEEDED}]
    for wanted in some:
        page = long.lists.page_of_tasks(before=4, limit=3, **wanted)
        assert [task.id for task in page.rows] == ["task-3", "task-2", "task-1"]
        assert page.next is None
    assert len(steps) < 3 * MOST


@pytest.mark.parametrize(("state", "row"), [(State.PENDING, 8), (State.DEAD, 7)])
def test_the_next_page_begins_before_the_row_named(
    long: SqliteStore, state: State, row: int
) -> None:
    assert len(long.lists.page_of_deliveries(before=row + 1, limit=3, state=state).rows) == 1
    assert len(long.lists.page_of_deliveries(before=row, limit=3, state=state).rows) == 0


def test_a_full_scan_would_be_detected(long: SqliteStore, steps: list[int]) -> None:
    assert len(long.lists.page_of_tasks(before=None, limit=ROWS).rows) == ROWS
    assert len(steps) > MOST

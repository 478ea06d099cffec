"""PostgreSQL reads few rows for a page, even with plans made for average values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg
import pytest
from psycopg.sql import SQL, Literal

from receiver.deliveries import State
from receiver.stores.postgres import PostgresStore
from receiver.stores.postgres.session import PostgresReadingSession, numbered
from receiver.stores.sql.rows import TimeRange
from receiver.tasks import Outcome, Status
from tests.support.databases import Databases

pytestmark = pytest.mark.usefixtures("postgres_url")
ROWS = 20_000
MOST = 3_000  # rows that a page may read; a full scan would read many more
APART = 600_000  # ms between two rows
RARE = "n in (7, 8)"  # the matching rows are the oldest, so a page finds them last
# The triggers that count each row are off: they would need most of the time.
FILL = f"""
set session_replication_role = replica;
insert into tasks (id, provider, account, reference, status, trust, created_at, updated_at)
select 'task-' || n, case when {RARE} then 'modellix' else 'kling' end,
  case when {RARE} then 'shop2' else 'default' end,
  case when n = 7 then 'ORDER-7' else 'ORDER' end,
  case when n in (5, 7) then 'failed' else 'succeeded' end, 'token', n * {APART}, n * {APART}
from generate_series(1, {ROWS}::bigint) as n;
insert into transitions (task, status, occurred_at, recorded_at, trust)
select seq, 'succeeded', created_at, created_at, 'token' from tasks order by tasks.seq;
insert into callbacks
  (task, provider, source, trust, outcome, received_at, digest, headers, body)
select seq, provider, 'callback', 'token',
  case when seq in (5, 7) then 'duplicate' when seq = 6 then 'quarantined' else 'recorded' end,
  created_at, seq::text::bytea, '{{}}', '{{}}' from tasks order by tasks.seq;
insert into deliveries (transition, hook, state, due_at)
select id, case when id = 7 then 'old' else 'mail' end,
  case when id = 7 then 'dead' when id = 8 then 'pending' else 'delivered' end, recorded_at
from transitions order by id;
insert into task_counts (provider, status, slot, value)
select provider, status, 0, count(*) from tasks group by provider, status;
insert into delivery_counts (hook, state, slot, value)
select hook, state, 0, count(*) from deliveries group by hook, state;
reset session_replication_role;
analyze;
"""  # noqa: S608 - of this file
LISTS: list[tuple[str, dict[str, Any], int]] = [
    *(("tasks", {"status": status}, 2) for status in (Status.FAILED, Status.SUCCEEDED)),
    ("tasks", {"status": Status.CREATED}, 0),
    ("tasks", {"provider": "modellix"}, 2),
    ("tasks", {"provider": "kling", "status": Status.FAILED}, 1),
    ("tasks", {"account": "shop2"}, 2),
    ("tasks", {"reference": "ORDER-7"}, 1),
    ("tasks", {"reference": "ORDER"}, 2),
    ("tasks", {"created": TimeRange(until=3 * APART)}, 2),
    ("tasks", {"created": TimeRange(since=ROWS * APART)}, 1),
    ("callbacks", {}, 2),
    *(("callbacks", {"outcome": one}, 2) for one in (Outcome.DUPLICATE, Outcome.RECORDED)),
    ("callbacks", {"outcome": Outcome.QUARANTINED}, 1),
    ("callbacks", {"outcome": Outcome.MISMATCH}, 0),
    ("callbacks", {"provider": "modellix"}, 2),
    ("callbacks", {"provider": "kling", "outcome": Outcome.DUPLICATE}, 1),
    ("callbacks", {"account": "shop2"}, 2),
    ("callbacks", {"reference": "ORDER-7"}, 1),
    ("callbacks", {"task_id": "task-9"}, 1),
    ("callbacks", {"received": TimeRange(since=ROWS * APART)}, 1),
    ("callbacks", {"received": TimeRange(until=3 * APART)}, 2),
    ("deliveries", {}, 2),
    ("deliveries", {"state": State.DELIVERED}, 2),
    *(("deliveries", {"state": state}, 1) for state in (State.DEAD, State.PENDING)),
    ("deliveries", {"state": State.CLAIMED}, 0),
    ("deliveries", {"hook": "old"}, 1),
    ("deliveries", {"hook": "old", "state": State.DELIVERED}, 0),
    ("deliveries", {"hook": "mail", "state": State.DEAD}, 0),
    ("deliveries", {"provider": "modellix"}, 2),
    ("deliveries", {"account": "shop2", "state": State.PENDING}, 1),
    ("deliveries", {"moved": TimeRange(since=ROWS * APART)}, 1),
]


@pytest.fixture(scope="module")
def long(request: pytest.FixtureRequest) -> Iterator[PostgresStore]:
    databases: Databases = request.getfixturevalue("_databases")
    url = databases.take()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(FILL)
    with closing(PostgresStore(url)) as store:
        yield store
    databases.give_back(url)


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Return the number of rows that each statement's generic plan reads."""
    counts: dict[str, int] = {}
    execute = PostgresReadingSession.execute

    def explained(session: PostgresReadingSession, sql: str, values: Any = (), /) -> Any:
        found: Any = execute(session, sql, values)
        if sql.split(None, 1)[0].lower() in ("select", "with"):
            rows = found.fetchall()
            counts[sql] = counts.get(sql, 0) + _rows(found.connection, sql, values)
            return Rows(rows)
        return found

    monkeypatch.setattr(PostgresReadingSession, "execute", explained)
    return counts


class Rows(list[Any]):
    """The rows returned by a statement, and those that it read."""

    def fetchall(self) -> list[Any]:
        return self

    def fetchone(self) -> Any:
        return self[0] if self else None


def _rows(connection: psycopg.Connection[Any], sql: str, values: Any) -> int:
    text = numbered(sql)[0].decode()
    given = SQL(", ").join(
        [Literal(str(value) if isinstance(value, str) else value) for value in values]
    )
    connection.execute("set local plan_cache_mode = force_generic_plan")
    connection.execute(f"prepare looked_at as {text}".encode())
    explain = SQL("explain (analyze, format json) execute looked_at")
    if values:
        explain = SQL("{}({})").format(explain, given)  # type: ignore[assignment]
    (found,) = connection.execute(explain).fetchall()
    connection.execute("deallocate looked_at")
    document = found["QUERY PLAN"]
    return _of_plan((json.loads(document) if isinstance(document, str) else document)[0]["Plan"])


def _of_plan(plan: dict[str, Any]) -> int:
    """Return the rows that the scans of a plan returned, and those that they discarded."""
    own = 0
    if "Scan" in plan["Node Type"] and "Relation Name" in plan:
        removed = ("Rows Removed by Filter", "Rows Removed by Index Recheck")
        own = sum(plan.get(key, 0) for key in ("Actual Rows", *removed)) * plan["Actual Loops"]
    return own + sum(map(_of_plan, plan.get("Plans", ())))


def test_a_page_reads_few_rows(long: PostgresStore, looked_at: dict[str, int]) -> None:
    for kind, wanted, found in LISTS:
        looked_at.clear()
        page = getattr(long.lists, f"page_of_{kind}")(before=None, limit=2, **wanted)
        assert len(page.rows) == found, (kind, wanted)
        assert sum(looked_at.values()) < MOST, (kind, wanted, looked_at)


def test_a_full_scan_would_be_detected(long: PostgresStore, looked_at: dict[str, int]) -> None:
    with long.database.reading() as session:
        session.execute("select count(*) from callbacks where received_at = ?", (7,)).fetchone()
    assert sum(looked_at.values()) > MOST

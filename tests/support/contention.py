"""Two stores on one database, whose transactions overlap in a chosen order.

The first transaction stops where it writes to a given table. The second one runs until it has
finished, waits for a lock of the first, or stops at the same table. Then both continue. The order
of their reads and writes does not depend on the speed of the machine, whether or not the code takes
the lock under test.
"""

from __future__ import annotations

import fcntl
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import psycopg
import pytest

from receiver.stores import group_commit
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore, batch, wire
from receiver.stores.postgres import database as postgres_database
from receiver.stores.sqlite import SqliteStore, writer
from receiver.stores.sqlite.session import SqliteSession
from tests.support.patience import PATIENCE, wait_until

T = TypeVar("T")
S_co = TypeVar("S_co", bound=Store, covariant=True)
THREADS = 100
STOP = 777  # the key of the advisory lock that stops transactions
_STOP = f"""
create or replace function stop_here() returns trigger language plpgsql as $$
begin
  perform pg_advisory_xact_lock_shared({STOP});
  return null;
end $$
"""
_STOP_AT = """
create or replace trigger stop_here {when} insert or update or delete on {table}
for each statement execute function stop_here()
"""
_WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock'
"""
_STOPPED = """
select count(*) from pg_stat_activity join pg_locks using (pid)
where datname = current_database() and locktype = 'advisory' and objid = %s and not granted
"""
_WRITTEN = """
select distinct relation::regclass::text from pg_locks join pg_stat_activity using (pid)
where datname = current_database() and wait_event_type = 'Lock' and pid <> %s
  and locktype = 'relation' and mode = 'RowExclusiveLock' and granted
"""
_STOPPED_FIRST = """
select min(pid) from pg_stat_activity join pg_locks using (pid)
where datname = current_database() and locktype = 'advisory' and objid = %s and not granted
"""


class Stops(Protocol):
    """Stops and observes the transactions of one database."""

    def at(self, table: str, when: str) -> None:
        """Stop each transaction `before` or `after` it writes to this table, until `go_on`."""
        ...

    def go_on(self) -> None: ...

    def stopped(self) -> int:
        """Return how many transactions have stopped."""
        ...

    def waiting(self) -> int:
        """Return how many transactions have stopped or wait for a lock."""
        ...

    def written(self) -> set[str]:
        """Return the tables written to by waiting transactions other than the first to stop."""
        ...


class Rivals(Generic[S_co]):
    """Two stores, each with its own connections."""

    def __init__(self, first: S_co, second: S_co, stops: Stops) -> None:
        self.first = first
        self.second = second
        self.stops = stops

    def meet(
        self,
        table: str,
        first: Callable[[], T],
        second: Callable[[], T],
        *,
        when: str = "before",
        more: Sequence[Callable[[], T]] = (),
        while_waiting: Callable[[], None] = lambda: None,
    ) -> list[T]:
        """Run both so that they overlap at this table; return the results of all.

        `first` stops at the table. `second` starts afterwards. `more` run beside them.
        """
        with ThreadPoolExecutor(THREADS) as pool:
            self.stops.at(table, when)
            try:
                futures = [pool.submit(first)]
                wait_until(lambda: self.stops.stopped() or futures[0].done())
                assert not futures[0].done(), f"it never wrote to {table}: {futures[0]}"
                futures.append(pool.submit(second))
                wait_until(lambda: self._standing(futures) == len(futures))
                while_waiting()
                futures += map(pool.submit, more)
            finally:
                self.stops.go_on()
            return [future.result(PATIENCE) for future in futures]

    def _standing(self, futures: Sequence[Future[Any]]) -> int:
        return self.stops.waiting() + sum(future.done() for future in futures)


class PostgresStops:
    """Triggers that wait for an advisory lock, which is held by a connection of the test."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url, autocommit=True)
        self._connection.execute(_STOP.encode())

    def at(self, table: str, when: str) -> None:
        self._connection.execute(_STOP_AT.format(table=table, when=when).encode())
        self._connection.execute("select pg_advisory_lock(%s)", (STOP,))

    def go_on(self) -> None:
        self._connection.execute("select pg_advisory_unlock(%s)", (STOP,))

    def stopped(self) -> int:
        return int(self._one(_STOPPED, STOP))

    def waiting(self) -> int:
        return int(self._one(_WAITING))

    def written(self) -> set[str]:
        first = self._one(_STOPPED_FIRST, STOP)
        return {row[0] for row in self._connection.execute(_WRITTEN.encode(), (first,))}

    def close(self) -> None:
        """Remove the triggers, so that the database can be used by the next test."""
        self._connection.execute("drop function stop_here() cascade")
        self._connection.close()

    def _one(self, sql: str, *values: object) -> Any:
        row = self._connection.execute(sql.encode(), values).fetchone()
        assert row is not None
        return row[0]


class SqliteStops:
    """Intercepts each statement of a writer, and each wait for a file lock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._may_go = threading.Event()
        self._may_go.set()
        self._mutex = threading.Lock()
        self._stopped = self._in_flock = 0
        self._writes = re.compile("(?!)")
        self._connect, self._flock = writer.connect, fcntl.flock
        monkeypatch.setattr(writer, "connect", self._connect_watched)
        monkeypatch.setattr(fcntl, "flock", self._flock_watched)

    def at(self, table: str, when: str) -> None:  # noqa: ARG002 - there is one writer anyway
        self._writes = re.compile(rf"\b(insert into|update|delete from) {table}\b")
        self._may_go.clear()

    def go_on(self) -> None:
        self._may_go.set()

    def stopped(self) -> int:
        return self._stopped

    def waiting(self) -> int:
        return self._stopped + self._in_flock

    def written(self) -> set[str]:
        return set()  # a writer that waits for the file lock has not begun

    def _connect_watched(self, path: Path, *, read_only: bool) -> SqliteSession:
        connection = self._connect(path, read_only=read_only)
        connection.set_trace_callback(self._look)
        return connection

    def _look(self, sql: str) -> None:
        if not self._may_go.is_set() and self._writes.search(sql):
            with self._mutex:
                self._stopped += 1
            self._may_go.wait(PATIENCE)
            with self._mutex:
                self._stopped -= 1

    def _flock_watched(self, descriptor: Any, operation: int) -> None:
        with self._mutex:
            self._in_flock += 1
        try:
            self._flock(descriptor, operation)
        finally:
            with self._mutex:
                self._in_flock -= 1


@contextmanager
def sqlite_rivals(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rivals[SqliteStore]]:
    """Migrate this file, and yield two stores on it."""
    _be_patient(monkeypatch)
    made = Rivals(SqliteStore(path), SqliteStore(path), SqliteStops(monkeypatch))
    try:
        yield made
    finally:
        made.first.close()
        made.second.close()


@contextmanager
def postgres_rivals(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rivals[PostgresStore]]:
    """Migrate this database, and yield two stores on it."""
    _be_patient(monkeypatch)
    stops = PostgresStops(url)
    made = Rivals(PostgresStore(url), PostgresStore(url), stops)
    try:
        yield made
    finally:
        made.first.close()
        made.second.close()
        stops.close()


def _be_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise all timeouts, because a transaction is stopped on purpose."""
    monkeypatch.setattr(group_commit, "PATIENCE", PATIENCE)
    monkeypatch.setattr(wire, "ANSWERS_WITHIN", PATIENCE)
    monkeypatch.setattr(batch, "SET_LOCK_TIMEOUT", "set local lock_timeout = 0")
    monkeypatch.setattr(postgres_database, "PATIENCE", PATIENCE)

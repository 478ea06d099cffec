"""One PostgreSQL database, with a pool of connections that is opened when first needed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from threading import Event as Signal
from typing import Any, LiteralString, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool, PoolTimeout

from receiver.errors import StoreUnavailable, StoreUnreachable
from receiver.stores.postgres import loading, pooler, schema, vacuum
from receiver.stores.postgres.connecting import CONNECTED_WITHIN, Connection, connect, first_line
from receiver.stores.postgres.session import PostgresReadingSession, PostgresSession
from receiver.stores.postgres.writer import BatchUndone, PostgresWriter
from receiver.stores.sql.database import (
    Database,
    DiskSpace,
    Query,
    RowKeyRange,
    Session,
    TransactionRange,
)

logging.getLogger("psycopg.pool").setLevel(logging.ERROR)  # callers get the error

T = TypeVar("T")
MAX_CONNECTIONS = 10  # of one process
PATIENCE = 5.0  # seconds for which a caller waits for a connection
PREPARED_AFTER = 5  # executions of a statement by a connection
TRIES = 3  # of a transaction that deadlocks with another one
POLL_EVERY = 0.25  # seconds
ALONE_LOCK = 4_217_002
# All errors of the database, such as a full disk: the caller may try again later.
UNAVAILABLE = (psycopg.Error, PoolTimeout)

# The row keys that the database generates.
GENERATED_KEYS = {
    "tasks": "seq",
    "callbacks": "id",
    "transitions": "id",
    "deliveries": "id",
    "attempts": "id",
    "alerts": "id",
    "rejections": "id",
    "clock_steps": "id",
}
_SIZE = "select pg_database_size(current_database()) as size"
_SERVER_CLOCK = "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint) as now"
# The snapshot does not include transactions that began after the last completed one, so `next` is
# the id of this transaction.
_RUNNING = """
select cast(cast(pg_snapshot_xmin(pg_current_snapshot()) as text) as bigint) as oldest,
  cast(cast(pg_current_xact_id() as text) as bigint) as next
"""
_SET_SEQUENCE = """
select setval(pg_get_serial_sequence('{table}', '{key}'),
  greatest((select max({key}) from {table}), 1), exists (select 1 from {table}))
"""


class PostgresDatabase(Database):
    """The record in one PostgreSQL database; see `stores.sql.database.Database`."""

    mark = "cast(cast(pg_current_xact_id() as text) as bigint)"
    is_ordered = False

    def __init__(self, url: str) -> None:
        self.url = url
        self._opened: ConnectionPool[psycopg.Connection[Any]] | None = None
        self._is_pooled = False  # known once the pool is open
        self._is_closed = False
        self._lock = threading.Lock()
        self._alone = threading.Lock()
        self.writer = PostgresWriter(url, self.is_pooled)

    def migrate(self) -> list[str]:
        with self._connected() as connection:
            return schema.migrate(connection)

    def check_schema(self) -> None:
        with self._connected() as connection:
            schema.check(connection)

    def version(self) -> str:
        return f"PostgreSQL {self._value('show server_version')}"

    def is_pooled(self) -> bool:
        """Return whether a pooler changes servers between transactions. Raises StoreUnavailable."""
        try:
            self._pool()
        except psycopg.Error as error:
            raise StoreUnavailable(f"the database is unavailable: {first_line(error)}") from error
        return self._is_pooled

    def pooler(self) -> tuple[str, str] | None:
        return (pooler.REPORT, pooler.REMEDY) if self.is_pooled() else None

    def space(self) -> DiskSpace:
        return DiskSpace(self._value(_SIZE), None)

    def server_clock(self) -> int:
        return int(self._value(_SERVER_CLOCK))

    def close(self) -> None:
        self.writer.close()
        with self._lock:
            self._is_closed = True
            pool, self._opened = self._opened, None
        if pool is not None:
            pool.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        # Threads of this process wait for each other here, because each of them would occupy a
        # connection. A transaction holds the lock, because a pooler may change servers afterwards.
        with self._alone, self._connected() as connection, connection.transaction():
            connection.execute("set local idle_in_transaction_session_timeout = 0")
            connection.execute("select pg_advisory_xact_lock(%s)", (ALONE_LOCK,))
            yield

    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        stop.wait(min(timeout, POLL_EVERY))

    def commit_mark(self) -> str:
        return str(self._value("select cast(pg_current_snapshot() as text) as running"))

    def running_transactions(self) -> TransactionRange:
        with self._connected() as connection:
            row = connection.execute(_RUNNING).fetchone()
        assert row is not None  # noqa: S101 - the statement returns one row
        return TransactionRange(row["oldest"], row["next"])

    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        try:
            with self._connected() as connection, connection.transaction():
                loading.load(connection, table, columns, rows)
        except psycopg.DataError as error:
            raise ValueError(first_line(error)) from error

    def settle_sequences(self) -> None:
        def work(session: Session) -> None:
            for table, key in GENERATED_KEYS.items():
                session.execute(_SET_SEQUENCE.format(table=table, key=key))

        self.write(work)

    def shrink(self, pages: int) -> int:  # noqa: ARG002 - autovacuum does it
        return 0

    def finish_erasure(self) -> bool:
        with self._connected() as connection:
            row = connection.execute("select mark from erasures").fetchone()
            if row is None:
                return True
            if vacuum.holders(connection, row["mark"]):
                return False
            vacuum.run(connection)
            connection.execute("delete from erasures where mark = %s", (row["mark"],))
        return True

    def remove_remnants(self, reference: str) -> None:
        """Do nothing: VACUUM removes old row versions, and there are no other copies."""

    def held_by(self, mark: int) -> str:
        with self._connected() as connection:
            return vacuum.holders_text(vacuum.holders(connection, mark))

    def write(self, work: Callable[[Session], T], about: str | None = None) -> T:
        if about is not None:
            with suppress(BatchUndone):
                return self.writer.run(work, about)
        for tries_left in reversed(range(TRIES)):
            try:
                with self._connected() as connection:
                    return _in_transaction(connection, work)
            except psycopg.DataError as error:  # such as a NUL character, which SQLite accepts
                raise ValueError(first_line(error)) from error
            except (DeadlockDetected, SerializationFailure) as error:
                if not tries_left:
                    raise StoreUnavailable(f"could not commit: {error}") from error
        raise AssertionError  # unreachable: the last try returns or raises

    @contextmanager
    def reading(self) -> Iterator[Session]:
        with self._connected() as connection:
            yield PostgresReadingSession(connection)

    # PostgreSQL plans a prepared statement for average values. With simple conditions it might read
    # along the row key, and most of the table for a rare value. An order by all columns of an
    # index, with bounds on all of them together, requires that index.

    def walk(
        self,
        table: str,
        key: str,
        equal: Mapping[str, object],
        keys: RowKeyRange,
        rest: Query,
        limit: int,
    ) -> Query:
        columns = [*equal, key]
        row, places = ", ".join(columns), ", ".join("?" * len(columns))
        order = ", ".join(f"{column} desc" for column in columns)
        more, values = rest
        sql = (
            f"select {key} as id from {table} "  # noqa: S608 - of `list_keys`
            f"where ({row}) >= ({places}) and ({row}) < ({places}){more} order by {order} limit ?"
        )
        wanted = [*equal.values()]
        return sql, [*wanted, keys.first, *wanted, keys.end, *values, limit]

    def indexed_by(self, index: str) -> str:  # noqa: ARG002 - PostgreSQL has statistics
        return ""

    def unindexed(self, column: str) -> str:
        return column

    def _value(self, sql: LiteralString) -> Any:
        """Return the one value that a statement selects. Raises StoreUnavailable."""
        with self._connected() as connection:
            (row,) = connection.execute(sql)
        (value,) = row.values()
        return value

    @contextmanager
    def _connected(self) -> Iterator[psycopg.Connection[Any]]:
        """Yield a connection of the pool. Raises StoreUnavailable, also for errors in the block."""
        try:
            with self._pool().connection(PATIENCE) as connection:
                yield connection
        except (DeadlockDetected, SerializationFailure, psycopg.DataError):
            raise
        except UNAVAILABLE as error:
            is_lost = isinstance(error, (psycopg.OperationalError, PoolTimeout))
            kind = StoreUnreachable if is_lost else StoreUnavailable
            raise kind(f"the database is unavailable: {first_line(error)}") from error

    def _pool(self) -> ConnectionPool[psycopg.Connection[Any]]:
        with self._lock:
            if self._is_closed:  # a pool opened now would never be closed
                raise StoreUnavailable("the store is closing")
            if self._opened is None:
                # A pool would retry until its timeout, without reporting the cause.
                with connect(self.url) as connection:
                    self._is_pooled = pooler.changes_servers(connection, self.url)
                prepared_after = None if self._is_pooled else PREPARED_AFTER
                self._opened = ConnectionPool(
                    self.url,
                    connection_class=Connection,
                    min_size=1,
                    max_size=MAX_CONNECTIONS,
                    timeout=PATIENCE,
                    reconnect_timeout=PATIENCE,
                    check=ConnectionPool.check_connection,
                    kwargs={
                        "autocommit": True,
                        "row_factory": dict_row,
                        "prepare_threshold": prepared_after,
                        "connect_timeout": CONNECTED_WITHIN,
                    },
                    open=True,
                )
            return self._opened


def _in_transaction(connection: psycopg.Connection[Any], work: Callable[[Session], T]) -> T:
    """Call `work`, and send the commit with its last statements. An exception rolls it back.

    Psycopg's `transaction` would wait for the server at its begin, and twice at its end.
    """
    try:
        with connection.pipeline() as pipeline:
            connection.execute("begin")
            result = work(PostgresSession(connection, pipeline))
            end = connection.execute("commit")
    except BaseException:
        connection.rollback()
        raise
    if end.statusmessage != "COMMIT":
        raise StoreUnavailable(f"the database did not commit: {end.statusmessage}")
    return result

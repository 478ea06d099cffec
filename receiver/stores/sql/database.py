"""The database that the components of a store use: everything that differs between databases.

The placeholders in statements are `?` or `:name`. Rows return their values by column name.

SQLite has one writer at a time. Code that needs a lock in PostgreSQL states it explicitly:
`Session.execute_locked` runs a statement that locks rows, and `Session.lock_name` locks a name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from threading import Event as Signal
from typing import Any, Protocol, TypeVar

from receiver.clock import now_ms
from receiver.stores.group_commit import GroupCommit
from receiver.stores.sql.locks import LockedSql
from receiver.text import display

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, list[object]]  # a statement and its values
LAST = 2**63 - 1  # the greatest possible row key


class QueryResult(Protocol):
    """The result of a statement."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Session(Protocol):
    """A connection to the database."""

    def execute(self, sql: str, values: Values = (), /) -> QueryResult: ...

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object: ...

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> QueryResult:
        """Execute a statement that locks the rows it selects until the transaction ends.

        If the statement had to wait, it sees the newest version of the rows it locks, but every
        other row as it was before the wait. The next statement sees everything.
        """
        ...

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        """Lock the rows that the statement selects; the next statement reads their newest version.

        This needs no separate round trip, and does nothing in a database with one writer.
        """
        ...

    def lock_name(self, name: str, /) -> None:
        """Wait for other transactions that locked this name; hold it until this one ends."""
        ...

    def try_lock_name(self, name: str, /) -> bool:
        """Lock this name like `lock_name`, or return False if another transaction holds it."""
        ...


@dataclass(frozen=True, slots=True)
class RowKeyRange:
    """Row keys from `first` on, and before `end`."""

    first: int = 0
    end: int = LAST


@dataclass(frozen=True, slots=True)
class TransactionRange:
    """Transaction ids: all before `oldest` have ended; those that begin later are above `next`."""

    oldest: int
    next: int


@dataclass(frozen=True, slots=True)
class DiskSpace:
    """Bytes that the database uses, and bytes that are free on its disk.

    `free` is None if the database is on a server, whose disk is not visible from here.
    """

    used: int
    free: int | None


class Database(ABC):
    """A database, and everything that differs between databases. Thread-safe."""

    writer: GroupCommit[Any]
    mark = "0"  # as SQL: the id of the current transaction, if the database has one
    is_ordered = True  # whether rows become visible in the order of their keys

    # -- transactions

    @abstractmethod
    def write(self, work: Callable[[Session], T], about: str | None = None) -> T:
        """Call `work` in a transaction, and return its result when the transaction is durable.

        `about` is the id of a task if the work changes only rows of this task. An exception of
        `work` rolls the transaction back and is raised. Raises StoreUnavailable.
        """

    @abstractmethod
    def reading(self) -> AbstractContextManager[Session]:
        """Return a connection for reading, for the caller's exclusive use within the block.

        Raises StoreUnavailable.
        """

    @abstractmethod
    def alone(self) -> AbstractContextManager[None]:
        """Within the block, exclude every other caller of `alone` in all threads and processes.

        Use it to read the record and then decide what to write. Raises StoreUnavailable.
        """

    @abstractmethod
    def wait_for_commit(self, timeout: float, stop: Signal) -> None:
        """Sleep until any process commits something, `timeout` seconds pass, or `stop` is set.

        A commit since this thread's last wait ended counts as well. A database may return earlier.
        """

    @abstractmethod
    def commit_mark(self) -> object:
        """Return a value that differs after each commit of any process. Raises StoreUnavailable."""

    @abstractmethod
    def running_transactions(self) -> TransactionRange | None:
        """Return the range of transactions that may be running; None if `is_ordered`.

        Raises StoreUnavailable.
        """

    # -- index hints

    @abstractmethod
    def walk(
        self,
        table: str,
        key: str,
        equal: Mapping[str, object],
        keys: RowKeyRange,
        rest: Query,
        limit: int,
    ) -> Query:
        """Return the statement for the newest `limit` keys, as `id`, within `keys`.

        The statement reads along the index on the columns of `equal`, which must have these values,
        and the row key. The conditions of `rest`, each after an "and", are checked row by row.
        """

    @abstractmethod
    def indexed_by(self, index: str) -> str:
        """Return the SQL after a table's name that makes a read use this index."""

    @abstractmethod
    def unindexed(self, column: str) -> str:
        """Return the column for a condition that must not be looked up in an index."""

    # -- the schema, and the database as a whole

    @abstractmethod
    def migrate(self) -> list[str]:
        """Update the schema to the version of this code. Returns the applied migrations.

        Safe to run twice, and by several processes concurrently. Raises SchemaMismatch.
        """

    @abstractmethod
    def check_schema(self) -> None:
        """Raise SchemaMismatch if the schema is older or newer than this code supports."""

    @abstractmethod
    def version(self) -> str:
        """Return the name and version of the database, and its known problems, for people."""

    @abstractmethod
    def pooler(self) -> tuple[str, str] | None:
        """Return how a pooler in front of the database limits it, and a remedy; None without one.

        Raises StoreUnavailable.
        """

    @abstractmethod
    def space(self) -> DiskSpace:
        """Return the size of the database and the free space, in constant time.

        Raises StoreUnavailable.
        """

    @abstractmethod
    def server_clock(self) -> int | None:
        """Return the time of the database server in ms UTC; None if it runs on this machine."""

    @abstractmethod
    def load(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows, ordered by their keys, in one transaction; see `Transfer.load`.

        Raises ValueError if the database cannot store a value, and StoreUnavailable.
        """

    @abstractmethod
    def settle_sequences(self) -> None:
        """Continue the row keys after those that `Transfer.load` inserted."""

    @abstractmethod
    def close(self) -> None:
        """Commit the waiting writes and close all connections.

        The database is unusable afterwards.
        """

    # -- erased data

    def note_erasure(self, session: Session) -> None:
        """Record, in the same transaction, that copies of the erased data must be erased too."""
        session.execute(_NOTE_ERASURE.format(mark=self.mark), (now_ms(),))

    @abstractmethod
    def finish_erasure(self) -> bool:
        """Remove the copies of erased data from the database's files; return True.

        Returns False while a reader uses an older snapshot; `Erasures.unfinished` describes it.
        Safe to repeat, also by several processes.
        """

    @abstractmethod
    def held_by(self, mark: int) -> str:
        """Describe what prevents the erasure of the transaction `mark` from being finished."""

    @abstractmethod
    def remove_remnants(self, reference: str) -> None:
        """Remove copies of an erased reference that the database left outside of rows.

        The erasure must be finished.
        """

    @abstractmethod
    def shrink(self, pages: int) -> int:
        """Release up to `pages` free pages to the file system. Returns how many are left."""


class Component:
    """A part of a store: methods about one subject, each of which is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def _rows(self, sql: str, values: Values = ()) -> list[Any]:
        """Return the rows that one statement reads."""
        with self._database.reading() as session:
            return session.execute(sql, values).fetchall()

    def _row(self, sql: str, values: Values = ()) -> Any:
        """Return the first row that one statement reads; None without any."""
        with self._database.reading() as session:
            return session.execute(sql, values).fetchone()


def storable_values(values: Values) -> Values:
    """Return the values with text that a database can store; see `display.storable`.

    Sessions call it only after a value was rejected, because it takes time.
    """
    if isinstance(values, Mapping):
        return {name: _storable(value) for name, value in values.items()}
    return [_storable(value) for value in values]


def _storable(value: Any) -> Any:
    return display.storable(value) if isinstance(value, str) else value


_NOTE_ERASURE = """
insert into erasures (place, since, mark) values (1, ?, {mark})
on conflict (place) do update set mark = case
  when excluded.mark > erasures.mark then excluded.mark else erasures.mark end
"""

"""What the verbs need of a database: statements in a transaction, and statements that only read.

Values stand in a statement as `?`, or as `:name`. A row gives its values by column name.

SQLite has one writer. Where PostgreSQL has to lock something, the code says so with a value or a
call: `execute_locked` runs a statement that locks rows, `lock_name` locks a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from receiver.clock import now_ms
from receiver.stores.group_commit import Write
from receiver.stores.rows import Row
from receiver.stores.sql.locks import LockedSql
from receiver.text import display

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, list[object]]
LAST = 2**63 - 1  # no row key is greater


def storable_values(values: Values) -> Values:
    """Return the values with text as a database stores it; see `display.storable`.

    Sessions call it after a value was refused, so that correct text costs nothing.
    """
    if isinstance(values, Mapping):
        return {name: _storable(value) for name, value in values.items()}
    return [_storable(value) for value in values]


def _storable(value: Any) -> Any:
    return display.storable(value) if isinstance(value, str) else value


class QueryResult(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Session(Protocol):
    """A connection."""

    def execute(self, sql: str, values: Values = (), /) -> QueryResult: ...

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object: ...

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> QueryResult:
        """Execute a statement that locks the rows it selects until the transaction ends.

        If the statement had to wait, it sees the newest version of the rows it locks, but every
        other row as it was before the wait. The next statement sees everything.
        """
        ...

    def lock(self, sql: LockedSql, values: Values = (), /) -> None:
        """Lock the rows that the statement selects; the next statement reads what is theirs now.

        Costs no round trip of its own, and nothing on a database with one writer.
        """
        ...

    def lock_name(self, name: str, /) -> None:
        """Wait for other transactions that locked this name; hold it until this one ends."""
        ...


@dataclass(frozen=True, slots=True)
class RowKeyRange:
    """Row keys from `first` on, and before `end`."""

    first: int = 0
    end: int = LAST


class Pages(Protocol):
    """Walks along indexes, newest first: each database has its own way to be held to an index."""

    def walk(
        self,
        table: str,
        key: str,
        equal: Mapping[str, object],
        keys: RowKeyRange,
        rest: Query,
        limit: int,
        /,
    ) -> Query:
        """Return the statement for the newest `limit` keys, as `id`, between `keys`.

        It walks along the index on the columns of `equal`, which have to have these values, and
        the row key. The conditions of `rest`, each after an "and", are checked row by row.
        """
        ...

    def indexed_by(self, index: str, /) -> str:
        """Return what follows the name of a table that is to be read along this index."""
        ...

    def aside(self, column: str, /) -> str:
        """Return the column as a condition names it that must not be looked up in an index."""
        ...


class SqlStoreBase:
    """What the verbs are built on; each store gives it."""

    _pages: Pages
    _mark = "0"  # as SQL: the id of this transaction, where the database has one
    _overriding = ""  # what an insert says that brings a row key of its own

    def _write(self, work: Callable[[Session], T]) -> T:
        """Do `work` in a transaction; durable when it returns.

        What `work` raises is raised here, and undoes it. Raises StoreUnavailable.
        """
        raise NotImplementedError

    def _write_about(self, task_id: str | None, work: Callable[[Session], T]) -> T:
        """`_write`, for work that touches rows of this task alone, if one is named."""
        del task_id
        return self._write(work)

    def _submit_about(self, task_id: str, work: Callable[[Session], T]) -> Write[Any, T]:
        """Hand over to the writer work that touches rows of this task alone.

        The caller starts the writer. Raises StoreUnavailable.
        """
        raise NotImplementedError

    def _note_erasure(self, connection: Session) -> None:
        """Record, in the same transaction, that copies of the erased data must be erased too."""
        connection.execute(_NOTE_ERASURE.format(mark=self._mark), (now_ms(),))

    def reading(self) -> AbstractContextManager[Session]:
        """A connection that only reads. Raises StoreUnavailable."""
        raise NotImplementedError


_NOTE_ERASURE = """
insert into erasures (place, since, mark) values (1, ?, {mark})
on conflict (place) do update set mark = case
  when excluded.mark > erasures.mark then excluded.mark else erasures.mark end
"""

__all__ = [
    "LAST",
    "Pages",
    "Query",
    "QueryResult",
    "Row",
    "RowKeyRange",
    "Session",
    "SqlStoreBase",
    "Values",
    "storable_values",
]

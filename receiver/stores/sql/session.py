"""What the verbs need of a database: statements in a transaction, and statements that only read.

Values stand in a statement as `?`, or as `:name`. A row gives its values by column name.

SQLite has one writer. Where PostgreSQL has to lock something, the code says so with a value or a
call: `execute_locked` runs a statement that locks rows, `lock_name` locks a name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.stores.base import ALWAYS, Span
from receiver.stores.group_commit import Write
from receiver.stores.rows import Row
from receiver.stores.sql.locks import LockedSql

T = TypeVar("T")
Values = Sequence[Any] | Mapping[str, Any]
Query = tuple[str, list[object]]
LAST = 2**63 - 1  # no row key is greater


class Found(Protocol):
    """What a statement gave."""

    @property
    def rowcount(self) -> int: ...

    def fetchone(self) -> Any: ...

    def fetchall(self) -> list[Any]: ...

    def __iter__(self) -> Iterator[Any]: ...


class Session(Protocol):
    """A connection."""

    def execute(self, sql: str, values: Values = (), /) -> Found: ...

    def executemany(self, sql: str, values: Sequence[Sequence[Any]], /) -> object: ...

    def execute_locked(self, sql: LockedSql, values: Values = (), /) -> Found:
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


class Pages(Protocol):
    """Lists, newest first: each database has its own way to be held to an index."""

    def of_tasks(
        self,
        wanted: Mapping[str, object],
        before: int | None,
        limit: int,
        created: Span = ALWAYS,
    ) -> Query:
        """The statement for `limit` tasks before this row key, with these values by column."""
        ...

    def of_deliveries(
        self,
        task_id: str | None,
        hook: str | None,
        state: State | None,
        before: int | None,
        limit: int,
        of_task: Mapping[str, object] = MappingProxyType({}),
        moved: Span = ALWAYS,
    ) -> Query:
        """The condition for `limit` deliveries before this row key, and their order."""
        ...


class Rooms:
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
        """Put on record, in the same transaction, that copies of erased data have to go as well."""
        connection.execute(_NOTE_ERASURE.format(mark=self._mark), (now_ms(),))

    def reading(self) -> AbstractContextManager[Session]:
        """A connection that only reads. Raises StoreUnavailable."""
        raise NotImplementedError


_NOTE_ERASURE = """
insert into erasures (place, since, mark) values (1, ?, {mark})
on conflict (place) do update set mark = case
  when excluded.mark > erasures.mark then excluded.mark else erasures.mark end
"""

__all__ = ["LAST", "Found", "Pages", "Query", "Rooms", "Row", "Session", "Values"]

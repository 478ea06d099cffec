"""The store: the system of record, composed of one component for each subject."""

from __future__ import annotations

from pkgutil import resolve_name
from typing import TYPE_CHECKING, Generic, TypeVar

from receiver.stores.sql.database import Database

if TYPE_CHECKING:
    from receiver.stores.sql.activity import ActivityLog
    from receiver.stores.sql.clocks import Clocks
    from receiver.stores.sql.endpoints import Endpoints
    from receiver.stores.sql.erasure import Erasures
    from receiver.stores.sql.event_log import EventLog
    from receiver.stores.sql.idempotency import IdempotencyKeys
    from receiver.stores.sql.inbox import Inbox
    from receiver.stores.sql.lists import Lists
    from receiver.stores.sql.metrics import Metrics
    from receiver.stores.sql.outbox import Outbox
    from receiver.stores.sql.polling import Polling
    from receiver.stores.sql.queries import Queries
    from receiver.stores.sql.repair import Repair
    from receiver.stores.sql.retention import Retention
    from receiver.stores.sql.sessions import DashboardSessions

C = TypeVar("C")


class _Component(Generic[C]):
    """A component, imported from `receiver.stores.sql` and created when it is first used.

    A short command needs two or three of them, and importing all takes longer than its work.
    """

    def __init__(self, path: str) -> None:
        self._path = path  # module:class

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, store: Store, _: type[Store]) -> C:
        """Return the component. Thread-safe: every thread gets the same object."""
        component = resolve_name(f"receiver.stores.sql.{self._path}")(store.database)
        found: C = store.__dict__.setdefault(self._name, component)
        return found


class Store:
    """The record in one database, which is opened when the first method is called.

    Every method of a component is one transaction, which is durable when the method returns. Every
    method may raise StoreUnavailable. The transaction may have been committed nevertheless, but the
    method can safely be called again, because unique keys prevent duplicates, and a single
    statement claims a row.
    """

    has_job_queue = False  # whether workers get deliveries from jobs; see `postgres.jobs.Jobs`

    inbox: _Component[Inbox] = _Component("inbox:Inbox")
    outbox: _Component[Outbox] = _Component("outbox:Outbox")
    repair: _Component[Repair] = _Component("repair:Repair")
    endpoints: _Component[Endpoints] = _Component("endpoints:Endpoints")
    polling: _Component[Polling] = _Component("polling:Polling")
    queries: _Component[Queries] = _Component("queries:Queries")
    lists: _Component[Lists] = _Component("lists:Lists")
    activity: _Component[ActivityLog] = _Component("activity:ActivityLog")
    event_log: _Component[EventLog] = _Component("event_log:EventLog")
    metrics: _Component[Metrics] = _Component("metrics:Metrics")
    clocks: _Component[Clocks] = _Component("clocks:Clocks")
    retention: _Component[Retention] = _Component("retention:Retention")
    erasures: _Component[Erasures] = _Component("erasure:Erasures")
    sessions: _Component[DashboardSessions] = _Component("sessions:DashboardSessions")
    idempotency: _Component[IdempotencyKeys] = _Component("idempotency:IdempotencyKeys")

    def __init__(self, database: Database) -> None:
        self.database = database

    def migrate(self) -> list[str]:
        """Update the schema; see `Database.migrate`."""
        return self.database.migrate()

    def check_schema(self) -> None:
        """Raise SchemaMismatch if this code cannot serve the schema of the database."""
        self.database.check_schema()

    def close(self) -> None:
        """Commit the waiting writes and close all connections. The store is unusable afterwards."""
        self.database.close()

"""The store: the system of record, composed of one component for each subject."""

from __future__ import annotations

from receiver.stores.sql.activity import ActivityLog
from receiver.stores.sql.clocks import Clocks
from receiver.stores.sql.database import Database
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


class Store:
    """The record in one database, which is opened when the first method is called.

    Every method of a component is one transaction, which is durable when the method returns. Every
    method may raise StoreUnavailable. The transaction may have been committed nevertheless, but the
    method can safely be called again, because unique keys prevent duplicates, and a single
    statement claims a row.
    """

    has_job_queue = False  # whether workers get deliveries from jobs; see `postgres.jobs.Jobs`

    def __init__(self, database: Database) -> None:
        self.database = database
        self.inbox = Inbox(database)
        self.outbox = Outbox(database)
        self.repair = Repair(database)
        self.endpoints = Endpoints(database)
        self.polling = Polling(database)
        self.queries = Queries(database)
        self.lists = Lists(database)
        self.activity = ActivityLog(database)
        self.event_log = EventLog(database)
        self.metrics = Metrics(database)
        self.clocks = Clocks(database)
        self.retention = Retention(database)
        self.erasures = Erasures(database)
        self.sessions = DashboardSessions(database)
        self.idempotency = IdempotencyKeys(database)

    def migrate(self) -> list[str]:
        """Update the schema; see `Database.migrate`."""
        return self.database.migrate()

    def check_schema(self) -> None:
        """Raise SchemaMismatch if this code cannot serve the schema of the database."""
        self.database.check_schema()

    def close(self) -> None:
        """Commit the waiting writes and close all connections. The store is unusable afterwards."""
        self.database.close()

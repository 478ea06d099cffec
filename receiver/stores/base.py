"""The system of record: everything that is stored, by subject."""

from __future__ import annotations

from receiver.stores.sql.activity import ActivityLog
from receiver.stores.sql.clocks import Clocks
from receiver.stores.sql.database import Database
from receiver.stores.sql.endpoints import Endpoints
from receiver.stores.sql.erasure import Erasures
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
    """The record in one database. Nothing is opened before the first method is called.

    Every method of a component is one transaction, durable when it returns, and may raise
    StoreUnavailable. A write that raised it may or may not be on record, and is safe to repeat.
    Unique keys prevent duplicates, and one statement claims a row.
    """

    has_job_queue = False  # whether a job queue hands out deliveries; see `postgres.jobs.Jobs`

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
        """Commit what waits, and close all connections. The store cannot be used afterwards."""
        self.database.close()

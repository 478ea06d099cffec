"""The record in PostgreSQL, for any number of machines."""

from __future__ import annotations

from receiver.stores.base import Store
from receiver.stores.postgres.database import PostgresDatabase
from receiver.stores.postgres.jobs import AnnouncedOutbox, Jobs


class PostgresStore(Store):
    """The record in one PostgreSQL database, with a job queue for deliveries."""

    database: PostgresDatabase
    has_job_queue = True

    def __init__(self, url: str) -> None:
        database = PostgresDatabase(url)
        super().__init__(database)
        self.outbox = AnnouncedOutbox(database)
        self.jobs = Jobs(database)


__all__ = ["PostgresStore"]

"""What is counted: the triggers of migration 0003 keep it, and PostgreSQL in slots to be summed."""

from __future__ import annotations

from receiver.stores.overview import OVERDUE_COUNTED, DeliveryCount, HourCount, TaskCount
from receiver.stores.sql.session import SqlStoreBase


class Overview(SqlStoreBase):
    """See `stores.overview.Overview`."""

    def task_counts(self) -> list[TaskCount]:
        with self.reading() as connection:
            found = connection.execute(_TASKS).fetchall()
        return [TaskCount(row["provider"], row["status"], int(row["value"])) for row in found]

    def delivery_counts(self) -> list[DeliveryCount]:
        with self.reading() as connection:
            found = connection.execute(_DELIVERIES).fetchall()
        return [DeliveryCount(row["hook"], row["state"], int(row["value"])) for row in found]

    def hours(self, since: int) -> list[HourCount]:
        with self.reading() as connection:
            found = connection.execute(_HOURS, (since,)).fetchall()
        return [
            HourCount(row["hour"], row["provider"], row["series"], row["bucket"], int(row["value"]))
            for row in found
        ]

    def last_callbacks(self) -> dict[str, int]:
        with self.reading() as connection:
            found = connection.execute(_LAST).fetchall()
        return {row["provider"]: row["last_at"] for row in found}

    def overdue_count(self, now: int) -> int:
        with self.reading() as connection:
            row = connection.execute(_OVERDUE, (now, OVERDUE_COUNTED)).fetchone()
        return int(row["overdue"])


_TASKS = """
select provider, status, sum(value) as value from task_counts group by provider, status
order by provider, status
"""
_DELIVERIES = """
select hook, state, sum(value) as value from delivery_counts group by hook, state
order by hook, state
"""
_HOURS = """
select hour, provider, series, bucket, sum(value) as value from hours where hour >= ?
group by hour, provider, series, bucket order by hour, provider, series, bucket
"""
_LAST = """
select provider, max(last_at) as last_at from hours where series = 'callbacks' group by provider
order by provider
"""
_OVERDUE = """
select count(*) as overdue from (
  select 1 from tasks where deadline_at is not null and deadline_at <= ? limit ?
) as found
"""

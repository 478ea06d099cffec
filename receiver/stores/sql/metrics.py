"""What was counted, and how many tasks are open."""

from __future__ import annotations

import json
from collections.abc import Sequence

from receiver.observability.metrics import Sample
from receiver.stores.sql.hook_queues import COUNTED
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.stores.upkeep import Open


class Measures(SqlStoreBase):
    """See `stores.upkeep.Measures`."""

    def measure(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        def work(connection: Session) -> None:
            connection.executemany(_ADD, [_row(reading) for reading in added])
            connection.executemany(_PUT, [_row(reading) for reading in newest])

        self._write(work)

    def measured(self) -> list[Sample]:
        with self.reading() as connection:
            found = connection.execute("select * from measures order by name, labels").fetchall()
        read = ((row["name"], _labels(row["labels"]), row["value"]) for row in found)
        return [Sample(name, labels, value) for name, labels, value in read if labels is not None]

    def open_tasks(self, now: int) -> list[Open]:
        with self.reading() as connection:
            found = connection.execute(_OPEN, (now, COUNTED)).fetchall()
        return [
            Open(row["provider"], row["tasks"], row["awaited"], row["overdue"]) for row in found
        ]


def _labels(text: str) -> tuple[str, ...] | None:
    """The values of the labels; None if the row is damaged."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return tuple(map(str, found)) if isinstance(found, list) else None


def _row(reading: Sample) -> tuple[str, str, float]:
    labels = json.dumps(reading.labels, ensure_ascii=False, separators=(",", ":"))
    return reading.name, labels, float(reading.value)


_ADD = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = measures.value + excluded.value
"""
_PUT = """
insert into measures (name, labels, value) values (?, ?, ?)
on conflict (name, labels) do update set value = case
  when excluded.value > measures.value then excluded.value else measures.value end
"""
# Open tasks have a deadline until they end or are given up on; ended ones only while they are
# asked about once more.
_OPEN = """
select provider, count(*) as tasks,
  count(case when expects_callback = 1 then 1 end) as awaited,
  count(case when deadline_at <= ? then 1 end) as overdue
from (
  select provider, expects_callback, deadline_at from tasks
  where deadline_at is not null and status in ('created', 'submitted', 'processing')
  order by deadline_at limit ?
) as found
group by provider
"""

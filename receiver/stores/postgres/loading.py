"""Inserts many rows of a table with COPY.

The triggers that count new rows and announce deliveries run for each row, and each count in a
transaction takes longer than the one before. They are therefore disabled, and one statement does
their work for all rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

_COUNT_TASKS = """
select count_task(provider, standing, more) from (
  select provider, task_standing(status, given_up_at) as standing, count(*) as more
  from tasks where seq between %(first)s and %(last)s group by 1, 2
) as loaded
"""

_COUNT_DELIVERIES = """
select count_delivery(hook, state, more) from (
  select hook, state, count(*) as more
  from deliveries where id between %(first)s and %(last)s group by 1, 2
) as loaded
"""

_ANNOUNCE_DELIVERIES = """
insert into procrastinate_jobs (queue_name, task_name, queueing_lock, args, scheduled_at)
select 'deliveries', 'attempt', 'delivery ' || id, jsonb_build_object('delivery_id', id),
  to_timestamp(due_at / 1000.0)
from deliveries
where id between %(first)s and %(last)s and state = 'pending' and due_at is not null
"""

# Of two hours that share a place, the later one is counted.
_COUNT_HOURS = """
insert into hours as known (place, provider, series, bucket, slot, hour, value, last_at)
select distinct on (hour %% 48, provider, series, bucket)
  hour %% 48, provider, series, bucket, counting_slot(), hour, more, newest_at
from (
  select provider, series, bucket, at / 3600000 as hour, count(*) as more, max(at) as newest_at
  from ({events}) as events group by 1, 2, 3, 4
) as loaded
order by hour %% 48, provider, series, bucket, hour desc
on conflict (place, provider, series, bucket, slot) do update set
  value = case when excluded.hour > known.hour then excluded.value
    when excluded.hour = known.hour then known.value + excluded.value else known.value end,
  hour = greatest(known.hour, excluded.hour),
  last_at = greatest(known.last_at, excluded.last_at)
"""

_COUNT_CALLBACKS = _COUNT_HOURS.format(
    events="""
    select provider, 'callbacks' as series, 0 as bucket, received_at as at
    from callbacks where id between %(first)s and %(last)s and source = 'callback'
    """
)

_COUNT_TRANSITIONS = _COUNT_HOURS.format(
    events="""
    select tasks.provider, tr.status as series, 0 as bucket, tr.recorded_at as at
    from transitions tr join tasks on tasks.seq = tr.task
    where tr.id between %(first)s and %(last)s and tr.status in ('succeeded', 'failed')
    union all
    select callbacks.provider, 'latency', latency_bucket(callbacks.received_at - tr.occurred_at),
      callbacks.received_at
    from transitions tr join callbacks on callbacks.id = tr.callback
    where tr.id between %(first)s and %(last)s and callbacks.source = 'callback'
    """
)

# By table: its key, and the statements that do the work of its triggers.
TRIGGERS: Mapping[str, tuple[str, Sequence[str]]] = {
    "tasks": ("seq", (_COUNT_TASKS,)),
    "callbacks": ("id", (_COUNT_CALLBACKS,)),
    "transitions": ("id", (_COUNT_TRANSITIONS,)),
    "deliveries": ("id", (_COUNT_DELIVERIES, _ANNOUNCE_DELIVERIES)),
}


def load(
    connection: psycopg.Connection[Any],
    table: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Any]],
) -> None:
    """Insert rows, ordered by their keys, in the connection's transaction.

    No other row may have a key between theirs. Raises psycopg.Error.
    """
    name = Identifier(table)
    key, statements = TRIGGERS.get(table, ("", ()))
    if statements:
        connection.execute(SQL("alter table {} disable trigger user").format(name))
    copying = SQL("copy {} ({}) from stdin").format(name, SQL(", ").join(map(Identifier, columns)))
    with connection.cursor().copy(copying) as copy:
        for row in rows:
            copy.write_row(row)
    if statements:
        place = columns.index(key)
        keys = {"first": rows[0][place], "last": rows[-1][place]}
        for statement in statements:
            connection.execute(statement, keys)
        connection.execute(SQL("alter table {} enable trigger user").format(name))

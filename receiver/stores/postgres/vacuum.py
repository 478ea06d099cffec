"""Removes the row versions that erased data leaves behind, once no transaction can see them.

VACUUM removes them from tables and indexes, so that no statement can read them. It
overwrites neither the blocks on disk nor the server's write-ahead log; the server reuses both over
time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg

from receiver.stores.sql import personal_data

# `index_cleanup on`: otherwise, VACUUM may leave the values of few dead rows in the indexes.
_VACUUM = "vacuum (index_cleanup on) {table}"
# The reasons why the server keeps row versions older than the transaction `mark`: the
# snapshots of sessions and of standby servers, replication slots, and prepared transactions.
_HOLDERS = """
with mark as (select cast(cast(cast(%(mark)s as text) as xid8) as xid) as xid),
holding (what, who, xmin) as (
  select 'session', 'pid ' || pid || coalesce(' of ' || nullif(application_name, ''), '')
    || coalesce(' by ' || usename, '') || coalesce(', ' || state, ''), backend_xmin
  from pg_stat_activity
  where pid <> pg_backend_pid() and (datname = current_database() or datname is null)
    and backend_type is distinct from 'autovacuum worker'
  union all
  select 'standby server', coalesce(nullif(application_name, ''), 'pid ' || pid), backend_xmin
  from pg_stat_replication
  union all
  select 'replication slot', slot_name, xmin from pg_replication_slots
  union all
  select 'prepared transaction', gid, transaction from pg_prepared_xacts
  where database = current_database()
)
select what || ' ' || who as holder from holding, mark
where holding.xmin is not null and age(holding.xmin) >= age(mark.xid)
order by age(holding.xmin) desc
"""
SHOWN = 3


def holders(connection: psycopg.Connection[Any], mark: int) -> list[str]:
    """Return the readers that still see data erased by the transaction `mark`, oldest first."""
    return [row["holder"] for row in connection.execute(_HOLDERS, {"mark": mark}).fetchall()]


def holders_text(found: Sequence[str]) -> str:
    """Describe for people what prevents the removal of erased data."""
    if not found:
        return "the next VACUUM removes it"
    shown = "; ".join(found[:SHOWN])
    return (
        f"an older snapshot of PostgreSQL keeps it ({shown}); end that transaction, for example "
        "with pg_terminate_backend(pid)"
    )


def run(connection: psycopg.Connection[Any]) -> None:
    """Vacuum all tables that can contain personal data. `connection` is in autocommit mode."""
    for name, table in personal_data.TABLES.items():
        if table.personal:
            connection.execute(_VACUUM.format(table=name).encode())

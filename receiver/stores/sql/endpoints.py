"""How the other sides of the hooks are, and what people have to be told of them."""

from __future__ import annotations

from receiver.deliveries import Delivery
from receiver.endpoints import Alert, AlertKind, Circuit, Endpoint
from receiver.stores import rows
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.session import Session, SqlStoreBase
from receiver.stores.upkeep import Change

TOLD_FOR = 86_400_000  # ms; an alert that nobody could be told of by then is dropped


class Endpoints(SqlStoreBase):
    """See `stores.upkeep.Endpoints`."""

    def endpoints(self) -> list[Endpoint]:
        with self.reading() as connection:
            found = connection.execute("select * from endpoints order by hook").fetchall()
        return [rows.endpoint(row, hook=row["hook"]) for row in found]

    def endpoint(self, hook: str) -> Endpoint:
        with self.reading() as connection:
            return known(connection, hook)

    def hold(self, hook: str, now: int) -> None:
        self._write(lambda connection: connection.execute(_HOLD, (hook, now)))

    def resume(self, hook: str, now: int | None = None) -> bool:
        def work(connection: Session) -> bool:
            was_closed = known(connection, hook).circuit(0) is Circuit.CLOSED
            if now is not None:
                connection.execute(_RETRY_NOW, (now, hook, now))
            connection.execute("delete from endpoints where hook = ?", (hook,))
            return not was_closed

        return self._write(work)

    def take_alerts(self, now: int, again_at: int) -> list[Alert]:
        with self.reading() as connection:
            if connection.execute(_ALERTS_DUE, (now,)).fetchone() is None:
                return []  # asked before any write: no alert costs no sync

        def work(connection: Session) -> list[Alert]:
            connection.execute("delete from alerts where at < ?", (now - TOLD_FOR,))
            found = connection.execute(_TAKE_ALERTS, (again_at, now)).fetchall()
            return sorted(map(rows.alert, found), key=lambda alert: alert.id)

        return self._write(work)

    def alert_sent(self, alert_id: int) -> None:
        self._write(
            lambda connection: connection.execute("delete from alerts where id = ?", (alert_id,))
        )


def known(connection: Session, hook: str, *, and_hold: bool = False) -> Endpoint:
    """What is on record of the endpoint of this hook."""
    if and_hold:
        row = connection.execute_locked(_KNOWN_HELD, (hook,)).fetchone()
    else:
        row = connection.execute(_KNOWN, (hook,)).fetchone()
    return Endpoint(hook) if row is None else rows.endpoint(row, hook=hook)


def apply(connection: Session, delivery: Delivery, change: Change, now: int) -> None:
    """Apply the change to the endpoint, in the transaction of the attempt that brought it.

    A new text in `said` came from this delivery, and belongs to its task. The name is locked as
    well as the row, because the row is missing until the first failure.
    """
    hook = delivery.hook
    connection.lock_name(f"endpoint {hook}")
    row = connection.execute_locked(_KNOWN_HELD, (hook,)).fetchone()
    before = Endpoint(hook) if row is None else rows.endpoint(row, hook=hook)
    task = None if row is None else row["said_task"]
    after, kind = change(before)
    if after == Endpoint(hook):
        if after != before:
            connection.execute("delete from endpoints where hook = ?", (hook,))
    elif after != before:
        connection.execute(_PUT, rows.of_endpoint(after))
    if after.said and after.said != before.said:
        task = connection.execute(_TASK_OF, (delivery.id,)).fetchone()["task"]
        connection.execute("update endpoints set said_task = ? where hook = ?", (task, hook))
    if kind is not None:
        said = before.said if kind is AlertKind.RECOVERED else after.said
        connection.execute(_INSERT_ALERT, (hook, kind, now, said, now, task))


_KNOWN = "select * from endpoints where hook = ?"
_KNOWN_HELD = locked(_KNOWN, Lock.ROWS)
_PUT = """
insert into endpoints (hook, failures, failing_since, openings, retry_at, paused_at,
  disabled_at, said, timed_out)
values (?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict (hook) do update set failures = excluded.failures,
  failing_since = excluded.failing_since, openings = excluded.openings,
  retry_at = excluded.retry_at, paused_at = excluded.paused_at,
  disabled_at = excluded.disabled_at, said = excluded.said, timed_out = excluded.timed_out
"""
_HOLD = """
insert into endpoints (hook, paused_at) values (?, ?)
on conflict (hook) do update set paused_at = coalesce(endpoints.paused_at, excluded.paused_at)
"""
_TASK_OF = """
select tr.task from deliveries d join transitions tr on tr.id = d.transition where d.id = ?
"""
_RETRY_NOW = """
update deliveries set due_at = ?
where state = 'pending' and hook = ? and due_at > ?
  and (after is null or attempts > retries_from)
"""
_INSERT_ALERT = """
insert into alerts (hook, kind, at, said, due_at, said_task) values (?, ?, ?, ?, ?, ?)
"""
_ALERTS_DUE = "select 1 from alerts where due_at <= ? limit 1"
_TAKE_ALERTS = "update alerts set due_at = ? where due_at <= ? returning *"

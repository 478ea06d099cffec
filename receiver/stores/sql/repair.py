"""Repairs many rows: redelivers, drops and creates deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.deliveries import State, Subscription
from receiver.stores.sql import rows
from receiver.stores.sql.database import LAST, Component, Session
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.notices import load_notices
from receiver.stores.sql.outbox import RELEASE_WAITING
from receiver.stores.sql.recording import hooks_on_record, wait_again
from receiver.stores.sql.rows import Row


@dataclass(frozen=True, slots=True)
class DeliverySelection:
    """A selection of deliveries that have ended. None: any. Times are integer milliseconds UTC."""

    state: State = State.DEAD
    hook: str | None = None
    provider: str | None = None
    status: str | None = None  # of the transition
    task_id: str | None = None
    since: int | None = None  # the transition was recorded then or later
    until: int | None = None  # the transition was recorded before


@dataclass(frozen=True, slots=True)
class RepairStep:
    """One step of a repair. `next` is the start of the next step; None after the last one."""

    changed: int
    next: int | None


class Repair(Component):
    """Repairs many rows in steps of limited size. With `dry_run`, the rows are only counted."""

    def redeliver_all(
        self,
        wanted: DeliverySelection,
        now: int,
        subscriptions: Sequence[Subscription] = (),
        *,
        after: int = 0,
        limit: int = 500,
        dry_run: bool = False,
    ) -> RepairStep:
        """Make up to `limit` deliveries that have ended due again, after the row key `after`.

        Skips deliveries of forgotten tasks. As with `Outbox.redeliver`, some may have to wait.
        In PostgreSQL, a trigger announces the deliveries to the job queue.
        """
        where, values = _conditions(wanted)
        found = self._rows(_ENDED.format(where=where), [after, *values, limit])
        ids = [row["id"] for row in found]
        following = ids[-1] if len(ids) == limit else None
        if dry_run or not ids:
            return RepairStep(len(ids), following)
        sql = f"{_REDELIVER} where {rows.any_of('id', ids)} and state = ?"

        def work(session: Session) -> int:
            changed = session.execute(sql, [now, *ids, wanted.state]).rowcount
            wait_again(session, ids, now, subscriptions)
            return changed

        return RepairStep(self._database.write(work), following)

    def drop(self, hook: str, now: int, *, limit: int = 500) -> int:
        """Turn up to `limit` waiting deliveries of this hook into dead letters; return how many.

        Deliveries that wait for one of them become due.
        """

        def work(session: Session) -> int:
            found = session.execute_locked(_WAITING, (hook, limit)).fetchall()
            session.executemany(_DROP, [(now, row["id"]) for row in found])
            session.executemany(RELEASE_WAITING, [(now, row["id"], now) for row in found])
            return len(found)

        return self._database.write(work)

    def catch_up(
        self,
        subscription: Subscription,
        since: int,
        now: int,
        *,
        before: int | None = None,
        limit: int = 500,
        dry_run: bool = False,
    ) -> RepairStep:
        """Create the deliveries that a hook lacks for transitions recorded at `since` or later.

        Reads up to `limit` transitions before the row key `before`, newest first. In PostgreSQL, a
        trigger announces the deliveries to the job queue.
        """

        def work(session: Session) -> RepairStep:
            start = LAST if before is None else before
            found = session.execute(_MOVES, (subscription.hook, start, limit)).fetchall()
            recent = [row for row in found if row["recorded_at"] >= since]
            missing = _matching(
                session, subscription, [row for row in recent if _is_missing(row, subscription)]
            )
            if not dry_run:
                for row in reversed(missing):  # as everywhere, rows are locked in their order
                    is_open = hooks_on_record(session, row["id"]) if subscription.after else {}
                    after = subscription.awaited(is_open)
                    due_at = subscription.due_at(now, waits=after is not None and is_open[after])
                    session.execute(_CREATE, (row["id"], subscription.hook, after, due_at))
            # Row keys are in the order of arrival, so a page of only older rows is the last one.
            following = found[-1]["id"] if recent and len(found) == limit else None
            return RepairStep(len(missing), following)

        if not dry_run:
            return self._database.write(work)
        with self._database.reading() as session:
            return work(session)

    def quarantined(self, since: int, *, after: int = 0, limit: int = 500) -> list[int]:
        """Return up to `limit` row keys, after the key `after`, of callbacks in quarantine.

        The oldest come first; only callbacks received at `since` or later are returned.
        """
        return [row["id"] for row in self._rows(_QUARANTINED, (after, since, limit))]


def _is_missing(row: Row, subscription: Subscription) -> bool:
    return not row["has_it"] and subscription.includes(
        status=row["status"], provider=row["provider"], reference=row["reference"]
    )


def _matching(session: Session, subscription: Subscription, missing: list[Row]) -> list[Row]:
    """Return the transitions that the hook's filter matches, given the current task."""
    if subscription.where is None:
        return missing
    notices = load_notices(session, [row["id"] for row in missing])
    return [row for row in missing if subscription.matches(notices[row["id"]])]


def _conditions(wanted: DeliverySelection) -> tuple[str, list[object]]:
    """Return the conditions for these deliveries, and their values.

    The state is a literal, because the index of dead letters is partial.
    """
    where, values = rows.filters(
        **{
            "d.hook": wanted.hook,
            "t.provider": wanted.provider,
            "tr.status": wanted.status,
            "t.id": wanted.task_id,
        }
    )
    times, bounds = rows.within("tr.recorded_at", rows.TimeRange(wanted.since, wanted.until))
    return f"d.state = '{State(wanted.state)}' and {where}{times}", [*values, *bounds]


_ENDED = """
select d.id from deliveries d
join transitions tr on tr.id = d.transition join tasks t on t.seq = tr.task
where d.id > ? and {where}
  and not exists (select 1 from forgotten where forgotten.task = t.seq)
order by d.id limit ?
"""

_WAITING = locked(
    "select id from deliveries where state = 'pending' and hook = ? order by id limit ? {lock}",
    Lock.SKIP_LOCKED,
)

_DROP = """
update deliveries set state = 'dead', due_at = null, ended_at = ?
where id = ? and state = 'pending'
"""

_QUARANTINED = """
select id from callbacks where outcome = 'quarantined' and id > ? and received_at >= ?
order by id limit ?
"""

_REDELIVER = """
update deliveries set state = 'pending', due_at = ?, ended_at = null, retries_from = attempts
"""

_MOVES = """
select tr.id, tr.status, tr.recorded_at, t.provider, t.reference,
  exists (select 1 from deliveries d where d.transition = tr.id and d.hook = ?)
  or exists (select 1 from forgotten where forgotten.task = t.seq) as has_it
from transitions tr join tasks t on t.seq = tr.task
where tr.id < ? order by tr.id desc limit ?
"""

_CREATE = """
insert into deliveries (transition, hook, after, due_at) values (?, ?, ?, ?)
on conflict (transition, hook) do nothing
"""

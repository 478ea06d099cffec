"""Corrects what is scheduled when a clock was set.

Moved are instants that decide when something happens next. What was recorded as history stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.observability.metrics import LAST_CALLBACK
from receiver.stores.clocks import (
    CORRECTED_WITHIN,
    LEAST_AFTER_BOOT,
    LEAST_STEP,
    LIVE_FOR,
    NEW_LEASE,
    ClockStep,
)
from receiver.stores.sql.session import LAST, Session, SqlStoreBase

DAY, HOUR, MINUTE = 86_400_000, 3_600_000, 60_000  # ms
STEPS_KEPT = 1_000
BOOTS_KEPT_FOR = 400 * DAY


@dataclass(frozen=True, slots=True)
class _Schedule:
    """A column with instants of what happens next. `longest`: how far ahead one may be, in ms."""

    table: str
    column: str
    where: str = "1 = 1"
    longest: int | None = None


# A delivery that waits for the files of another hook is released when that delivery ends.
_WAITS = "after is not null and attempts = retries_from"
SCHEDULES: Sequence[_Schedule] = (
    _Schedule("tasks", "deadline_at", longest=DAY),
    _Schedule("deliveries", "due_at", f"state = 'pending' and not ({_WAITS})", DAY),
    _Schedule("deliveries", "due_at", f"state = 'pending' and {_WAITS}"),
    _Schedule("pauses", "until", longest=DAY),
    _Schedule("endpoints", "retry_at", longest=HOUR),
    _Schedule("endpoints", "failing_since", longest=0),
    _Schedule("alerts", "at", longest=0),
    _Schedule("alerts", "due_at", longest=HOUR),
    _Schedule("trials", "again_at", longest=MINUTE),
    _Schedule("idempotency_keys", "created_at", longest=0),
    _Schedule("idempotency_keys", "held_until", "status is null", HOUR),
    _Schedule("refused_attempts", "at", longest=0),
    _Schedule("sessions", "ends_at", longest=DAY),
)
TOLERATED = MINUTE  # of hosts whose clocks differ; only what is further ahead is corrected


class Clocks(SqlStoreBase):
    """See `stores.clocks.Clocks`."""

    def server_clock(self) -> int | None:
        return None

    def clock_step(self, boot: str, offset: int, now: int) -> int:
        with self.reading() as connection:
            return _uncorrected(connection, boot, offset, now)

    def correct_clock(
        self, boot: str, offset: int, now: int, *, settles: bool = False, shared: bool = False
    ) -> ClockStep | None:
        def work(connection: Session) -> ClockStep | None:
            connection.lock_name("clock")
            by = _uncorrected(connection, boot, offset, now)
            if by > 0 and shared:
                is_confirmed = _is_confirmed(connection, boot, by, now)
                if is_confirmed is None:
                    return None
                by = by if is_confirmed else 0
            step = None
            if by:
                step = ClockStep(now, by, _moved(connection, boot, by, settles=settles))
                connection.execute(_INSERT_STEP, (boot, step.at, step.by_ms, step.moved_ms))
                _move(connection, step)
            newest = connection.execute(_NEWEST_STEP).fetchone()["id"]
            connection.execute(_PUT, (boot, offset, newest, now))
            connection.execute("delete from clocks where seen_at < ?", (now - BOOTS_KEPT_FOR,))
            connection.execute("delete from clock_steps where id <= ?", (newest - STEPS_KEPT,))
            return step

        return self._write(work)

    def limit_schedules(self, now: int) -> int:
        limited = [
            (schedule, now + schedule.longest + TOLERATED)
            for schedule in SCHEDULES
            if schedule.longest is not None
        ]
        with self.reading() as connection:  # looked at before any write: it is the rule
            is_wrong = any(
                connection.execute(_first(schedule), (latest,)).fetchone() is not None
                for schedule, latest in limited
            )
            for sql in (_LONG_LEASE, _SEEN_IN_FUTURE):
                is_wrong |= connection.execute(sql, (now + TOLERATED,)).fetchone() is not None
        if not is_wrong:
            return 0

        def work(connection: Session) -> int:
            made_due = sum(
                connection.execute(_make_due(schedule), (now, latest)).rowcount
                for schedule, latest in limited
            )
            lease = (now + NEW_LEASE, now + TOLERATED)
            made_due += connection.execute(_SHORTEN_LEASE, lease).rowcount
            connection.execute(_NOT_SEEN, (now - TOLERATED, now + TOLERATED))
            return made_due

        return self._write(work)

    def clock_steps(self, since: int) -> list[ClockStep]:
        with self.reading() as connection:
            found = connection.execute(_STEPS, (since, since)).fetchall()
        return [ClockStep(row["at"], row["by_ms"], row["moved_ms"]) for row in found]

    def set_forward_since(self, since: int) -> int:
        total = largest = 0
        for step in reversed(self.clock_steps(since)):
            total += step.moved_ms
            largest = max(largest, total)
        return largest


def _uncorrected(connection: Session, boot: str, offset: int, now: int) -> int:
    """Return by how many ms the clock was set since this boot was last seen; see `clock_step`.

    If the boot is new, only a heartbeat in the future shows that the clock was set back.
    """
    seen = connection.execute("select * from clocks where boot = ?", (boot,)).fetchone()
    if seen is None:
        newest = connection.execute("select max(seen_at) as seen_at from processes").fetchone()
        ahead = (newest["seen_at"] or now) - now
        return -ahead if ahead >= LEAST_AFTER_BOOT else 0
    corrected = connection.execute(_CORRECTED, (seen["step"],)).fetchone()["by_ms"]
    by = offset - int(seen["offset_ms"]) - int(corrected)
    return by if abs(by) >= LEAST_STEP else 0


def _is_confirmed(connection: Session, boot: str, by: int, now: int) -> bool | None:
    """Return whether another machine noticed this step of the server's clock, too.

    True as well if no other machine uses the server. None: another one has not looked yet; then
    this boot's suspicion is stored.
    """
    values = (boot, now - LIVE_FOR, now - by - LIVE_FOR, now - by)
    others = connection.execute(_LIVE, values).fetchall()
    suspected = [row["suspected_ms"] for row in others if row["suspected_ms"] is not None]
    if not others or any(abs(one - by) < LEAST_STEP for one in suspected):
        return True
    mine = connection.execute("select * from clocks where boot = ?", (boot,)).fetchone()
    if mine["suspected_ms"] is None or abs(mine["suspected_ms"] - by) >= LEAST_STEP:
        connection.execute(_SUSPECT, (by, now, boot))
        return None
    has_looked = any(
        row["suspected_ms"] is None and row["seen_at"] > mine["seen_at"] for row in others
    )
    return False if has_looked else None


def _moved(connection: Session, boot: str, by: int, *, settles: bool) -> int:
    if by < 0 or not settles:
        return by
    moved_back = -int(connection.execute(_MOVED_BY_BOOT, (boot,)).fetchone()["moved_ms"])
    return min(by, max(0, moved_back))


def _move(connection: Session, step: ClockStep) -> None:
    """Move all schedules.

    After a step forward, an instant later than that step stays: it was scheduled since, or its
    delay is longer than the step. After a step back, what was scheduled since is due early.
    """
    latest = LAST if step.by_ms < 0 else step.at - CORRECTED_WITHIN
    for schedule in SCHEDULES:
        connection.execute(_shift(schedule), (step.moved_ms, latest))
    connection.execute(_RENEW, (step.at + NEW_LEASE,))
    if step.by_ms < 0:
        connection.execute(_SEEN_EARLIER, (step.moved_ms, step.at))
        connection.execute(_CALLBACK_EARLIER, _in_seconds(step.moved_ms, step.at))
        connection.execute("delete from hours where hour >= ?", (step.at // HOUR + 48,))
    else:
        connection.execute(_SEEN_LATER, (step.moved_ms, latest))
        connection.execute(_CALLBACK_LATER, _in_seconds(step.moved_ms, latest))


def _in_seconds(*values: int) -> tuple[float, ...]:
    return tuple(value / 1000 for value in values)


def _shift(one: _Schedule) -> str:
    return (
        f"update {one.table} set {one.column} = {one.column} + ? "  # noqa: S608 - of SCHEDULES
        f"where {one.column} <= ? and {one.where}"
    )


def _first(one: _Schedule) -> str:
    return f"select 1 from {one.table} where {one.column} > ? and {one.where} limit 1"  # noqa: S608


def _make_due(one: _Schedule) -> str:
    return f"update {one.table} set {one.column} = ? where {one.column} > ? and {one.where}"  # noqa: S608


_CORRECTED = "select coalesce(sum(by_ms), 0) as by_ms from clock_steps where id > ?"
_MOVED_BY_BOOT = "select coalesce(sum(moved_ms), 0) as moved_ms from clock_steps where boot = ?"
_NEWEST_STEP = "select coalesce(max(id), 0) as id from clock_steps"
_INSERT_STEP = "insert into clock_steps (boot, at, by_ms, moved_ms) values (?, ?, ?, ?)"
_PUT = """
insert into clocks (boot, offset_ms, step, seen_at) values (?, ?, ?, ?)
on conflict (boot) do update set offset_ms = excluded.offset_ms, step = excluded.step,
  seen_at = excluded.seen_at, suspected_ms = null
"""
_SUSPECT = "update clocks set suspected_ms = ?, seen_at = ? where boot = ?"
# Seen since the step, or shortly before.
_LIVE = """
select suspected_ms, seen_at from clocks
where boot <> ? and (seen_at > ? or (seen_at > ? and seen_at <= ?))
"""
# A step back may show an earlier time than that of an earlier step; it belongs to it all the same.
_STEPS = """
select at, by_ms, moved_ms from clock_steps
where id >= (select min(id) from clock_steps where at >= ? or at - by_ms >= ?) order by id
"""
_RENEW = "update deliveries set due_at = ? where state = 'claimed'"
_SEEN_EARLIER = "update processes set seen_at = seen_at + ? where seen_at > ?"
_SEEN_LATER = "update processes set seen_at = seen_at + ? where seen_at <= ?"
_CALLBACK_EARLIER = f"""
update measures set value = value + ? where name = '{LAST_CALLBACK.name}' and value > ?
"""  # noqa: S608 - of this project
_CALLBACK_LATER = f"""
update measures set value = value + ? where name = '{LAST_CALLBACK.name}' and value <= ?
"""  # noqa: S608 - of this project
_LONG_LEASE = "select 1 from deliveries where state = 'claimed' and due_at > ? limit 1"
_SHORTEN_LEASE = "update deliveries set due_at = ? where state = 'claimed' and due_at > ?"
_SEEN_IN_FUTURE = "select 1 from processes where seen_at > ? limit 1"
_NOT_SEEN = "update processes set seen_at = ? where seen_at > ?"

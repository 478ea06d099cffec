"""Detects that a clock was set, and corrects the schedules.

See docs/adr/0016-clock-steps.md. A correction moves the times of future events, such as queries and
retries. Recorded times stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from receiver.observability.metrics import LAST_CALLBACK
from receiver.stores.sql.database import LAST, Component, Session
from receiver.stores.sql.rows import from_row

LEAST_STEP = 2_000  # ms; a smaller change of a clock is not corrected

LEAST_AFTER_BOOT = 15_000  # ms by which the newest heartbeat has to be in the future after a reboot

SETTLES_WITHIN = 600_000  # ms after a boot in which a machine without a battery sets its clock

NEW_LEASE = 10_000  # ms; running deliveries are renewed every 2.5 s

# ms in which a step is detected and corrected; times scheduled after it need no correction.
CORRECTED_WITHIN = 15_000

REFRESH_EVERY = 30_000  # ms after which each machine confirms that its server's clock was not set

LIVE_FOR = 75_000  # ms without that confirmation after which a machine is taken to be off


@dataclass(frozen=True, slots=True)
class ClockStep:
    """The correction of a clock that was set by `by_ms`, which is negative for a step back."""

    at: int  # after the step
    by_ms: int
    moved_ms: int  # how far schedules were moved

    @property
    def text(self) -> str:
        """A description for people."""
        direction = "back" if self.by_ms < 0 else "forward"
        return f"the clock was set {direction} by {abs(self.by_ms) / 1000:.0f} s"


DAY, HOUR, MINUTE = 86_400_000, 3_600_000, 60_000  # ms

STEPS_KEPT = 1_000

BOOTS_KEPT_FOR = 400 * DAY


@dataclass(frozen=True, slots=True)
class _Schedule:
    """A column with the times of future events, at most `longest` ms ahead."""

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
    _Schedule("pacing", "next_at", longest=2 * HOUR),
    _Schedule("endpoints", "failing_since", longest=0),
    _Schedule("alerts", "at", longest=0),
    _Schedule("alerts", "due_at", longest=HOUR),
    _Schedule("trials", "again_at", longest=MINUTE),
    _Schedule("idempotency_keys", "created_at", longest=0),
    _Schedule("idempotency_keys", "held_until", "status is null", HOUR),
    _Schedule("refused_attempts", "at", longest=0),
    _Schedule("sessions", "ends_at", longest=DAY),
)

TOLERATED = MINUTE  # the difference between clocks of hosts; only later times are corrected


class Clocks(Component):
    """Compares the clock with the time since boot, and corrects schedules."""

    def clock_step(self, boot: str, offset: int, now: int) -> int:
        """Return the ms of a clock change that is not corrected yet; 0 if the clock was not set.

        `offset` is the difference between the record's clock, which shows `now`, and the time since
        the boot named `boot`.
        """
        with self._database.reading() as session:
            return _uncorrected(session, boot, offset, now)

    def correct_clock(
        self, boot: str, offset: int, now: int, *, settles: bool = False, shared: bool = False
    ) -> ClockStep | None:
        """Store the offset of this boot. Move all schedules by a step without a correction, once.

        With `settles`, the machine booted so recently that a step forward is elapsed time, so
        schedules move forward only as far as they moved back since this boot. With `shared`, the
        clock is that of a server. If other machines use it, a step forward waits for one of them to
        notice it too, because the clock of a virtual machine that was paused seems to show the
        same. Returns the correction, or None.
        """

        def work(session: Session) -> ClockStep | None:
            session.lock_name("clock")
            by = _uncorrected(session, boot, offset, now)
            if by > 0 and shared:
                is_confirmed = _is_confirmed(session, boot, by, now)
                if is_confirmed is None:
                    return None
                by = by if is_confirmed else 0
            step = None
            if by:
                step = ClockStep(now, by, _moved(session, boot, by, settles=settles))
                session.execute(_INSERT_STEP, (boot, step.at, step.by_ms, step.moved_ms))
                _move(session, step)
            newest = session.execute(_NEWEST_STEP).fetchone()["id"]
            session.execute(_PUT, (boot, offset, newest, now))
            session.execute("delete from clocks where seen_at < ?", (now - BOOTS_KEPT_FOR,))
            session.execute("delete from clock_steps where id <= ?", (newest - STEPS_KEPT,))
            return step

        return self._database.write(work)

    def limit_schedules(self, now: int) -> int:
        """Make due all rows that are due later than their longest possible delay; count them."""
        limited = [
            (schedule, now + schedule.longest + TOLERATED)
            for schedule in SCHEDULES
            if schedule.longest is not None
        ]
        with self._database.reading() as session:  # usually, there is nothing to write
            is_wrong = any(
                session.execute(_first(schedule), (latest,)).fetchone() is not None
                for schedule, latest in limited
            )
            for sql in (_LONG_LEASE, _SEEN_IN_FUTURE):
                is_wrong |= session.execute(sql, (now + TOLERATED,)).fetchone() is not None
        if not is_wrong:
            return 0

        def work(session: Session) -> int:
            made_due = sum(
                session.execute(_make_due(schedule), (now, latest)).rowcount
                for schedule, latest in limited
            )
            lease = (now + NEW_LEASE, now + TOLERATED)
            made_due += session.execute(_SHORTEN_LEASE, lease).rowcount
            session.execute(_NOT_SEEN, (now - TOLERATED, now + TOLERATED))
            return made_due

        return self._database.write(work)

    def clock_steps(self, since: int) -> list[ClockStep]:
        """Return the corrections since that time, by the clock before or after the step.

        The oldest comes first. All corrections after the first one are included.
        """
        return [from_row(ClockStep, row) for row in self._rows(_STEPS, (since, since))]

    def set_forward_since(self, since: int) -> int:
        """Return by how many ms data of that time or later looks too old, because clocks were set.

        This is the largest sum of the newest corrections since then, or 0.
        """
        total = largest = 0
        for step in reversed(self.clock_steps(since)):
            total += step.moved_ms
            largest = max(largest, total)
        return largest


def _uncorrected(session: Session, boot: str, offset: int, now: int) -> int:
    """Return the ms by which the clock was set since this boot was last seen; see `clock_step`.

    For a new boot, only a heartbeat in the future shows that the clock was set back.
    """
    seen = session.execute("select * from clocks where boot = ?", (boot,)).fetchone()
    if seen is None:
        newest = session.execute("select max(seen_at) as seen_at from processes").fetchone()
        ahead = (newest["seen_at"] or now) - now
        return -ahead if ahead >= LEAST_AFTER_BOOT else 0
    corrected = session.execute(_CORRECTED, (seen["step"],)).fetchone()["by_ms"]
    by = offset - int(seen["offset_ms"]) - int(corrected)
    return by if abs(by) >= LEAST_STEP else 0


def _is_confirmed(session: Session, boot: str, by: int, now: int) -> bool | None:
    """Return whether another machine has also noticed this step of the server's clock.

    Returns True also if no other machine uses the server. Returns None if another machine has not
    checked the clock yet; the step that this boot suspects is then stored.
    """
    values = (boot, now - LIVE_FOR, now - by - LIVE_FOR, now - by)
    others = session.execute(_LIVE, values).fetchall()
    suspected = [row["suspected_ms"] for row in others if row["suspected_ms"] is not None]
    if not others or any(abs(one - by) < LEAST_STEP for one in suspected):
        return True
    mine = session.execute("select * from clocks where boot = ?", (boot,)).fetchone()
    if mine["suspected_ms"] is None or abs(mine["suspected_ms"] - by) >= LEAST_STEP:
        session.execute(_SUSPECT, (by, now, boot))
        return None
    has_looked = any(
        row["suspected_ms"] is None and row["seen_at"] > mine["seen_at"] for row in others
    )
    return False if has_looked else None


def _moved(session: Session, boot: str, by: int, *, settles: bool) -> int:
    if by < 0 or not settles:
        return by
    moved_back = -int(session.execute(_MOVED_BY_BOOT, (boot,)).fetchone()["moved_ms"])
    return min(by, max(0, moved_back))


def _move(session: Session, step: ClockStep) -> None:
    """Move all schedules.

    After a step forward, times after the step stay: they were scheduled since, or their delay is
    longer than the step. After a step back, events that were scheduled since are due early.
    """
    latest = LAST if step.by_ms < 0 else step.at - CORRECTED_WITHIN
    for schedule in SCHEDULES:
        session.execute(_shift(schedule), (step.moved_ms, latest))
    session.execute(_RENEW, (step.at + NEW_LEASE,))
    if step.by_ms < 0:
        session.execute(_SEEN_EARLIER, (step.moved_ms, step.at))
        session.execute(_CALLBACK_EARLIER, _in_seconds(step.moved_ms, step.at))
        session.execute("delete from hours where hour >= ?", (step.at // HOUR + 48,))
    else:
        session.execute(_SEEN_LATER, (step.moved_ms, latest))
        session.execute(_CALLBACK_LATER, _in_seconds(step.moved_ms, latest))


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

# After a step back, the time of a step may be earlier than the time of the step before it.
_STEPS = """
select at, by_ms, moved_ms from clock_steps
where id >= (select min(id) from clock_steps where at >= ? or at - by_ms >= ?) order by id
"""

_RENEW = "update deliveries set due_at = ? where state = 'claimed'"

_SEEN_EARLIER = "update processes set seen_at = seen_at + ? where seen_at > ?"

_SEEN_LATER = "update processes set seen_at = seen_at + ? where seen_at <= ?"

_CALLBACK_EARLIER = f"""
update measures set value = value + ? where name = '{LAST_CALLBACK.name}' and value > ?
"""  # noqa: S608 - contains no input

_CALLBACK_LATER = f"""
update measures set value = value + ? where name = '{LAST_CALLBACK.name}' and value <= ?
"""  # noqa: S608 - contains no input

_LONG_LEASE = "select 1 from deliveries where state = 'claimed' and due_at > ? limit 1"

_SHORTEN_LEASE = "update deliveries set due_at = ? where state = 'claimed' and due_at > ?"

_SEEN_IN_FUTURE = "select 1 from processes where seen_at > ? limit 1"

_NOT_SEEN = "update processes set seen_at = ? where seen_at > ?"

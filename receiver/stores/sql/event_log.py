"""Reads the transitions as a log of events, from a position that a client can store.

In PostgreSQL, rows can become visible in a different order than that of their keys. A position
therefore also lists its gaps: smaller row keys that were not yet visible.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from receiver.stores.sql import rows
from receiver.stores.sql.claims import NoticeSource
from receiver.stores.sql.database import Component, Session, TransactionRange
from receiver.stores.sql.rows import Row

LOOK_BACK = 2_000  # row keys before the newest one that are searched for gaps
MAX_REVISED = 2_000  # the newest replaced results that are searched for new ones
# ms by which a replaced result may have been recorded before an event that became visible earlier.
RECORDED_APART = 10_000
MAX_GAPS = 500  # in a position in memory; more are merged, so that events may be repeated
MAX_SHOWN_GAPS = 50  # in a position as a string
GAPS_PER_READ = 50  # gaps that one statement reads
TEXT = re.compile(r"events-([0-9]{1,18})((?:\.[0-9]{1,18}(?:-[0-9]{1,18})?)*)", re.ASCII)
PATTERN = rf"^events-[0-9]{{1,18}}(\.[0-9]{{1,18}}(-[0-9]{{1,18}})?){{0,{MAX_SHOWN_GAPS}}}$"


@dataclass(frozen=True, slots=True)
class Gap:
    """Row keys from `first` to `last` that were not visible when a greater key was.

    They can no longer appear after all transactions before `since` have ended.
    """

    first: int
    last: int
    since: int | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Position:
    """A position in the log, after all events up to the row key `last` except for those in gaps."""

    last: int
    gaps: tuple[Gap, ...] = ()  # in ascending order, and not adjacent

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse the result of `str`. Raises ValueError."""
        found = TEXT.fullmatch(text)
        if found is None:
            raise ValueError("is not the id of an event in this stream")
        end, gaps = int(found[1]), list[Gap]()
        for part in found[2].split(".")[1 : MAX_SHOWN_GAPS + 1]:
            first, _, last = part.partition("-")
            gap = Gap(max(int(first), gaps[-1].last + 1 if gaps else 1), int(last or first))
            if gap.first <= gap.last < end:
                gaps.append(gap)
        return cls(end, tuple(gaps))

    def __str__(self) -> str:
        gaps = _merged(self.gaps, MAX_SHOWN_GAPS)
        parts = [f"{g.first}-{g.last}" if g.last > g.first else str(g.first) for g in gaps]
        return ".".join([f"events-{self.last}", *parts])

    def covers(self, key: int) -> bool:
        """Return whether the event with this row key is before the position."""
        return key <= self.last and not any(gap.first <= key <= gap.last for gap in self.gaps)

    def includes(self, other: Position) -> bool:
        """Return whether all events before the other position are also before this one."""
        return other.last <= self.last and all(
            gap.first > other.last
            or any(one.first <= gap.first and gap.last <= one.last for one in other.gaps)
            for gap in self.gaps
        )

    def after(self, key: int) -> Position:
        """Return the position that also covers this row key, which this one does not cover."""
        if key > self.last:
            new = (Gap(self.last + 1, key - 1),) if key > self.last + 1 else ()
            return Position(key, _merged((*self.gaps, *new), MAX_GAPS))
        gaps: list[Gap] = []
        for gap in self.gaps:
            if gap.first <= key <= gap.last:
                rest = (replace(gap, last=key - 1), replace(gap, first=key + 1))
                gaps += [part for part in rest if part.first <= part.last]
            else:
                gaps.append(gap)
        return Position(self.last, tuple(gaps))

    def settled(self, running: TransactionRange | None) -> Position:
        """Return the position without gaps that can no longer be filled.

        `running` was read before the events were read; it is None if row keys always become
        visible in order.
        """
        if running is None or not self.gaps:
            return replace(self, gaps=())
        return replace(
            self,
            gaps=tuple(
                replace(gap, since=running.next if gap.since is None else gap.since)
                for gap in self.gaps
                if gap.since is None or gap.since > running.oldest
            ),
        )


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """A transition with all rows that are needed to build its event."""

    key: int  # the row key of the transition
    position: Position  # after this event
    source: NoticeSource | None  # None if the task was forgotten


class EventLog(Component):
    """Reads the transitions as a log."""

    def end(self) -> Position:
        """Return the position after all events that are visible now."""
        limit = 1 if self._database.is_ordered else LOOK_BACK
        keys = sorted(row["id"] for row in self._rows(_NEWEST_KEYS, (limit,)))
        position = Position(keys[0] if keys else 0)
        for key in keys[1:]:
            position = position.after(key)
        return position

    def after(self, position: Position, limit: int) -> tuple[list[LoggedEvent], Position]:
        """Return up to `limit` events after a position, and the position after them.

        Events in gaps come first, then the others in the order of their row keys.
        """
        running = self._database.running_transactions() if position.gaps else None
        with self._database.reading() as session:
            keys = _late_keys(session, position.gaps, limit)
            if len(keys) < limit:
                position = position.settled(running)  # all gaps were read, after `running`
                new = session.execute(_KEYS_AFTER, (position.last, limit - len(keys))).fetchall()
                keys += [row["id"] for row in new]
            sources = _load_sources(session, keys)
        events = []
        for key in keys:
            position = position.after(key)
            events.append(LoggedEvent(key, position, sources[key]))
        return events, position

    def revised(self, position: Position, since: int) -> list[LoggedEvent]:
        """Return events before the position whose results were replaced after `since`.

        `since` is in milliseconds UTC; results that were replaced shortly before it are included.
        Each event gets the given position. Returns the newest MAX_REVISED, oldest first.
        """
        found = self._revised(position, since - RECORDED_APART)
        return self.at(position, [row["id"] for row in reversed(found)])

    def revisions(self, position: Position) -> dict[int, int]:
        """Return the revisions of the newest revised events before the position, by row key."""
        return {row["id"]: row["revision"] for row in self._revised(position, 0)}

    def at(self, position: Position, keys: Sequence[int]) -> list[LoggedEvent]:
        """Return the events with these row keys; each of them gets the given position."""
        with self._database.reading() as session:
            sources = _load_sources(session, keys)
        return [LoggedEvent(key, position, sources[key]) for key in keys]

    def _revised(self, position: Position, since: int) -> list[Row]:
        """Return the rows of revised events, newest first."""
        return self._rows(_REVISED, (position.last, since, MAX_REVISED))

    def recorded_at(self, key: int) -> int:
        """Return when this transition was recorded, in milliseconds UTC; 0 if there is none."""
        row = self._row("select recorded_at from transitions where id = ?", (key,))
        return 0 if row is None else int(row["recorded_at"])

    def ended(self, task_ids: Sequence[str]) -> set[str]:
        """Return the tasks among these that have a final status, or are not on record."""
        if not task_ids:
            return set()
        sql = _OPEN.format(where=rows.any_of("id", task_ids))
        return set(task_ids) - {row["id"] for row in self._rows(sql, task_ids)}


def _merged(gaps: tuple[Gap, ...], most: int) -> tuple[Gap, ...]:
    """Return at most `most` gaps; the oldest ones are merged, including the keys between them."""
    extra = len(gaps) - most
    if extra <= 0:
        return gaps
    return (Gap(gaps[0].first, gaps[extra].last), *gaps[extra + 1 :])


def _late_keys(session: Session, gaps: Sequence[Gap], limit: int) -> list[int]:
    """Return up to `limit` row keys that have become visible in the gaps, in ascending order."""
    keys: list[int] = []
    for start in range(0, len(gaps), GAPS_PER_READ):
        part = gaps[start : start + GAPS_PER_READ]
        where = " or ".join(["id between ? and ?"] * len(part))
        bounds = [bound for gap in part for bound in (gap.first, gap.last)]
        sql = f"select id from transitions where {where} order by id limit ?"  # noqa: S608
        keys += [row["id"] for row in session.execute(sql, (*bounds, limit)).fetchall()]
    return keys[:limit]


def _load_sources(session: Session, keys: Sequence[int]) -> dict[int, NoticeSource | None]:
    """Return the source of each event by row key; None if its task was forgotten."""
    if not keys:
        return {}
    places = ", ".join("?" * len(keys))
    # In PostgreSQL, they share a round trip, because all are sent before a result is read.
    found = [session.execute(sql.format(places), keys) for sql in (_EVENTS, _TASKS, _MESSAGES)]
    files = session.execute(_FILES.format(places), keys)
    events, tasks, callbacks = [result.fetchall() for result in found]
    task_of = {row["seq"]: row for row in tasks}
    message_of = {row["id"]: row for row in callbacks}
    files_of = defaultdict(list)
    for row in files.fetchall():
        files_of[row["transition"]].append(row)
    return {
        row["transition"]: None
        if row["closed_at"] is not None
        else NoticeSource(
            row,
            task_of[row["task"]],
            tuple(files_of[row["transition"]]),
            (),
            message_of.get(row["callback"]),
        )
        for row in events
    }


_NEWEST_KEYS = "select id from transitions order by id desc limit ?"

_KEYS_AFTER = "select id from transitions where id > ? order by id limit ?"

# Read by the index `transitions_revised`: results are rarely replaced, so it is small.
_REVISED = """
select id, revision from transitions where revision > 0 and id <= ? and recorded_at > ?
order by recorded_at desc, id desc limit ?
"""

# `NoticeSource` needs the columns of a delivery; these are the ones of a delivery without attempts.
_EVENTS = """
select tr.id as transition, 0 as id, null as after, 0 as retries_from, tr.task, tr.callback,
  tr.status, tr.occurred_at, tr.recorded_at, tr.trust, tr.corrected, tr.revision,
  forgotten.closed_at
from transitions tr left join forgotten on forgotten.task = tr.task where tr.id in ({0})
"""

_TASKS = "select * from tasks where seq in (select task from transitions where id in ({0}))"

_MESSAGES = """
select c.*, t.id as task_id from callbacks c left join tasks t on t.seq = c.task
where c.id in (select callback from transitions where id in ({0}))
"""

_FILES = """
select f.*, d.transition from files f join deliveries d on d.id = f.delivery
where d.transition in ({0}) and substr(f.media_index, 1, 9) <> 'replaced '
order by f.delivery, f.media_index
"""

_OPEN = "select id from tasks where {where} and status not in ('succeeded', 'failed')"

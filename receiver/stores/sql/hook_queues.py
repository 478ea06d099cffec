"""The queue of deliveries of each hook. A long queue of one hook slows down no other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from receiver.endpoints import Circuit, Endpoint, Limits, Pace
from receiver.stores.sql.database import Session
from receiver.stores.sql.endpoints import endpoint_of
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.pacing import load_paces, lock_pace, use_paces


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that is due."""

    id: int
    hook: str
    timed_out: bool  # whether the last attempt of its hook, for any delivery, timed out
    abandoned: bool  # whether its own last attempt was abandoned: it may have killed its worker


class Admission(Protocol):
    """The free slots of one worker process, and the limits of its hooks. Thread-safe."""

    @property
    def limits(self) -> Mapping[str, Limits]:
        """The limits that all workers share, by hook."""
        ...

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        """Return whether another delivery of this hook may begin now."""
        ...

    @property
    def takes_abandoned(self) -> bool:
        """Whether a delivery whose last attempt was abandoned may begin now."""
        ...

    def begin(self, candidate: Candidate) -> bool:
        """Reserve a slot for this delivery. Returns False if there is no slot for it.

        Safe to repeat, because a transaction that was rolled back is repeated.
        """
        ...


@dataclass(frozen=True, slots=True)
class _Unlimited:
    takes_abandoned: bool = True
    limits: Mapping[str, Limits] = field(default_factory=dict)

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:  # noqa: ARG002 - all may begin
        return True

    def begin(self, candidate: Candidate) -> bool:  # noqa: ARG002 - all may begin
        return True


UNLIMITED: Admission = _Unlimited()

COUNTED = 10_000  # rows; counting more is slow, and the exact number is not needed


@dataclass(frozen=True, slots=True)
class HookQueue:
    """The pending deliveries of one hook.

    `due_at` is that of the oldest one; None if all of them wait for other deliveries.
    """

    endpoint: Endpoint
    due_at: int | None
    running: int  # claimed, by any worker
    pace: Pace | None = None  # None without limits

    @property
    def hook(self) -> str:
        return self.endpoint.hook

    def opens_at(self, now: int) -> int | None:
        """Return when the next delivery can be claimed; None if an event must happen first."""
        circuit = self.endpoint.circuit(now)
        if self.due_at is None or circuit is Circuit.PAUSED:
            return None
        if circuit is Circuit.OPEN:
            return max(self.due_at, self.endpoint.retry_at or 0)
        if circuit is Circuit.HALF_OPEN and self.running:
            return None  # its probe is running
        if self.pace is None:
            return self.due_at
        paced_at = self.pace.opens_at(now)
        return None if paced_at is None else max(self.due_at, paced_at)

    def ready_since(self, now: int) -> int | None:
        """Return when the oldest delivery became claimable; None if none can be claimed now."""
        opens_at = self.opens_at(now)
        if opens_at is None or opens_at > now:
            return None
        if self.endpoint.circuit(now) is Circuit.HALF_OPEN:
            return max(opens_at, self.endpoint.retry_at or 0)
        return opens_at

    def is_held(self, now: int) -> bool:
        """Return whether the hook's deliveries wait until a pause ends or the circuit closes."""
        return self.endpoint.circuit(now) in (Circuit.PAUSED, Circuit.OPEN, Circuit.HALF_OPEN)

    def is_paced(self, now: int) -> bool:
        """Return whether due deliveries wait only because of the hook's limits."""
        if self.pace is None or self.due_at is None or self.due_at > now or self.is_held(now):
            return False
        return not self.pace.allowed(now, 1)

    def claimable_count(self, now: int, limit: int) -> int:
        """Return how many of the hook's deliveries may be claimed now, at most `limit`."""
        opens_at = self.opens_at(now)
        if opens_at is None or opens_at > now:
            return 0
        return 1 if self.endpoint.circuit(now) is Circuit.HALF_OPEN else limit


def load_queues(session: Session, limits: Mapping[str, Limits], now: int) -> list[HookQueue]:
    """Return one queue for each hook that has pending deliveries."""
    paces = load_paces(session, limits, now) if limits else {}
    return [
        HookQueue(
            endpoint_of(row, row["queue"]), row["due_at"], row["running"], paces.get(row["queue"])
        )
        for row in session.execute(_QUEUES)
    ]


def select_claimable(session: Session, now: int, limit: int, admission: Admission) -> list[int]:
    """Return the ids of up to `limit` deliveries to claim. Reserves slots, and uses up limits."""
    waiting: list[tuple[int, int, int, Candidate]] = []
    paces: dict[str, Pace] = {}
    takes_abandoned = int(admission.takes_abandoned)
    for queue in load_queues(session, admission.limits, now):
        count = queue.claimable_count(now, limit)
        timed_out = queue.endpoint.timed_out
        if not count or not admission.has_slot(queue.hook, timed_out=timed_out):
            continue
        if queue.is_held(now) and not _may_probe(session, queue.hook, now):
            continue
        if queue.pace is not None:
            pace = lock_pace(session, queue.hook, queue.pace.limits, now)
            if pace is None:
                continue
            paces[queue.hook], count = pace, pace.allowed(now, count)
        values = (queue.hook, now, takes_abandoned, count)
        for index, row in enumerate(session.execute_locked(_OLDEST, values).fetchall()):
            candidate = Candidate(row["id"], queue.hook, timed_out, bool(row["abandoned"]))
            waiting.append((queue.running + index, row["due_at"], row["id"], candidate))
    selected: list[Candidate] = []
    for *_, candidate in sorted(waiting, key=lambda entry: entry[:3]):
        if len(selected) < limit and admission.begin(candidate):
            selected.append(candidate)
    if paces:
        use_paces(session, paces, Counter(candidate.hook for candidate in selected), now)
    return [candidate.id for candidate in selected]


def _may_probe(session: Session, hook: str, now: int) -> bool:
    """Return whether a delivery of this half-open hook may be claimed as its probe.

    Locks the row of the endpoint until the transaction ends. If another transaction holds it, that
    one claims a probe or changes the circuit, so this one does not wait.
    """
    row = session.execute_locked(_LOCK_ENDPOINT, (hook,)).fetchone()
    if row is None or endpoint_of(row, hook).circuit(now) is not Circuit.HALF_OPEN:
        return False
    return session.execute(PROBED, (hook,)).fetchone() is None


def count_due(session: Session, hook: str, now: int) -> int:
    """Return the number of due deliveries of a hook, held or not; at most COUNTED."""
    count: int = session.execute(_DUE, (hook, now, COUNTED)).fetchone()["due"]
    return count


# `|| ''` prevents the use of an index on the hook for the claimed deliveries. The distinct hooks
# are found by skipping along the index, with one step for each of them.
_QUEUES = """
with recursive waiting (hook) as (
  select min(hook) from deliveries where state = 'pending'
  union all
  select (select min(hook) from deliveries where state = 'pending' and hook > waiting.hook)
  from waiting where waiting.hook is not null
)
select waiting.hook as queue, endpoints.*,
  (select min(due_at) from deliveries where state = 'pending' and hook = waiting.hook) as due_at,
  (select count(*) from deliveries where state = 'claimed' and hook || '' = waiting.hook) as running
from waiting left join endpoints on endpoints.hook = waiting.hook
where waiting.hook is not null
"""

_LOCK_ENDPOINT = locked("select * from endpoints where hook = ?", Lock.SKIP_LOCKED)
PROBED = "select 1 from deliveries where state = 'claimed' and hook || '' = ? limit 1"

# Whether the last attempt at a delivery was abandoned.
ABANDONED = """
exists (
  select 1 from attempts where attempts.delivery = deliveries.id
    and attempts.number = deliveries.attempts and attempts.outcome = 'abandoned'
)
"""

_OLDEST = locked(
    f"""
select id, due_at, {ABANDONED} as abandoned
from deliveries where state = 'pending' and hook = ? and due_at <= ?
  and (? = 1 or not {ABANDONED})
order by due_at limit ?
""",  # noqa: S608 - contains no input
    Lock.SKIP_LOCKED,
)

_DUE = """
select count(*) as due from (
  select 1 from deliveries where state = 'pending' and hook = ? and due_at <= ? limit ?
) as due_deliveries
"""

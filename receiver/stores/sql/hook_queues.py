"""The queue of each hook: however long one is, the others are found as quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from receiver.endpoints import Circuit, Endpoint
from receiver.stores.sql.database import Session
from receiver.stores.sql.endpoints import endpoint_of
from receiver.stores.sql.locks import Lock, locked


@dataclass(frozen=True, slots=True)
class Candidate:
    """A delivery that is due."""

    id: int
    hook: str
    timed_out: bool  # whether the last attempt of its hook, for any delivery, timed out
    abandoned: bool  # whether its own last attempt was abandoned: it may have killed its worker


class Admission(Protocol):
    """The free slots of one worker process. Thread-safe."""

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        """Return whether another delivery of this hook may begin now."""
        ...

    @property
    def takes_abandoned(self) -> bool:
        """Whether a delivery whose last attempt was abandoned may begin now."""
        ...

    def begin(self, candidate: Candidate) -> bool:
        """Reserve a slot for this delivery; False if there is none for it.

        Safe to repeat, because a transaction that was rolled back is tried again.
        """
        ...


class _Unlimited:
    takes_abandoned = True

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:  # noqa: ARG002 - all may begin
        return True

    def begin(self, candidate: Candidate) -> bool:  # noqa: ARG002 - all may begin
        return True


UNLIMITED: Admission = _Unlimited()

COUNTED = 10_000  # rows; beyond that nobody needs the number, and it costs time


@dataclass(frozen=True, slots=True)
class HookQueue:
    """The deliveries that wait for one hook. `due_at`: of the oldest; None: all wait for others."""

    endpoint: Endpoint
    due_at: int | None
    running: int  # claimed, by any worker

    @property
    def hook(self) -> str:
        return self.endpoint.hook

    def opens_at(self, now: int) -> int | None:
        """When its next delivery can be claimed; None: something else has to happen first."""
        circuit = self.endpoint.circuit(now)
        if self.due_at is None or circuit is Circuit.PAUSED:
            return None
        if circuit is Circuit.OPEN:
            return max(self.due_at, self.endpoint.retry_at or 0)
        if circuit is Circuit.HALF_OPEN and self.running:
            return None  # its probe runs
        return self.due_at

    def ready_since(self, now: int) -> int | None:
        """Since when its oldest delivery could have been made; None if none can be made now."""
        opens_at = self.opens_at(now)
        if opens_at is None or opens_at > now:
            return None
        if self.endpoint.circuit(now) is Circuit.HALF_OPEN:
            return max(opens_at, self.endpoint.retry_at or 0)
        return opens_at

    def is_held(self, now: int) -> bool:
        """Whether its deliveries wait for a pause to end, or for the circuit to close."""
        return self.endpoint.circuit(now) in (Circuit.PAUSED, Circuit.OPEN, Circuit.HALF_OPEN)

    def room(self, now: int, limit: int) -> int:
        """How many may be claimed now."""
        opens_at = self.opens_at(now)
        if opens_at is None or opens_at > now:
            return 0
        return 1 if self.endpoint.circuit(now) is Circuit.HALF_OPEN else limit


def load_queues(session: Session) -> list[HookQueue]:
    """One lane for each hook that has something waiting."""
    return [
        HookQueue(endpoint_of(row, hook=row["lane"]), row["due_at"], row["running"])
        for row in session.execute(_LANES)
    ]


def claimable(session: Session, now: int, limit: int, admission: Admission) -> list[int]:
    """The ids of up to `limit` deliveries to be claimed next."""
    waiting: list[tuple[int, int, int, Candidate]] = []
    takes_abandoned = int(admission.takes_abandoned)
    for lane in load_queues(session):
        room = lane.room(now, limit)
        timed_out = lane.endpoint.timed_out
        if not room or not admission.has_slot(lane.hook, timed_out=timed_out):
            continue
        values = (lane.hook, now, takes_abandoned, room)
        for place, row in enumerate(session.execute_locked(_OLDEST, values).fetchall()):
            candidate = Candidate(row["id"], lane.hook, timed_out, bool(row["abandoned"]))
            waiting.append((lane.running + place, row["due_at"], row["id"], candidate))
    begun: list[int] = []
    for *_, candidate in sorted(waiting, key=lambda one: one[:3]):
        if len(begun) < limit and admission.begin(candidate):
            begun.append(candidate.id)
    return begun


def count_due(session: Session, hook: str, now: int) -> int:
    """How many deliveries of a hook are due, held or not; counted up to COUNTED."""
    count: int = session.execute(_DUE, (hook, now, COUNTED)).fetchone()["due"]
    return count


# No index on the hook may be taken for what runs: `|| ''` keeps it out of reach. The distinct
# hooks are found by skipping along the index, one step for each of them.
_LANES = """
with recursive waiting (hook) as (
  select min(hook) from deliveries where state = 'pending'
  union all
  select (select min(hook) from deliveries where state = 'pending' and hook > waiting.hook)
  from waiting where waiting.hook is not null
)
select waiting.hook as lane, endpoints.*,
  (select min(due_at) from deliveries where state = 'pending' and hook = waiting.hook) as due_at,
  (select count(*) from deliveries where state = 'claimed' and hook || '' = waiting.hook) as running
from waiting left join endpoints on endpoints.hook = waiting.hook
where waiting.hook is not null
"""

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
""",  # noqa: S608 - nothing in it comes from outside
    Lock.SKIP_LOCKED,
)

_DUE = """
select count(*) as due from (
  select 1 from deliveries where state = 'pending' and hook = ? and due_at <= ? limit ?
) as found
"""

"""What a task is, and which moves of its status are legal; pure."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Where a task stands. Order matters: a task only moves forward."""

    CREATED = "created"  # recorded by us; left when the provider answers, calls back or refuses
    SUBMITTED = "submitted"  # accepted by the provider; left by any later callback or query
    PROCESSING = "processing"  # the provider works on it; left by the end
    SUCCEEDED = "succeeded"  # terminal
    FAILED = "failed"  # terminal

    @property
    def is_terminal(self) -> bool:
        return self in (Status.SUCCEEDED, Status.FAILED)


class Trust(StrEnum):
    """What a status rests on, weakest first."""

    TOKEN = "token"  # noqa: S105 - the callback URL held our token; nothing else proves the sender
    SIGNED = "signed"  # the provider signed the callback
    QUERIED = "queried"  # we asked the provider ourselves


class Outcome(StrEnum):
    """What became of one callback."""

    RECORDED = "recorded"  # it moved the task
    DUPLICATE = "duplicate"  # the task was told this before
    STALE = "stale"  # the task is further on already
    CONFLICT = "conflict"  # it contradicts the end that is on record
    CONFIRMING = "confirming"  # it counts only once the provider has been asked
    MISMATCH = "mismatch"  # it names another provider task than the one on record
    QUARANTINED = "quarantined"  # kept, but not understood


class IdSource(StrEnum):
    """The source of the provider's task id. A later member outranks the earlier ones."""

    CALLBACK = "callback"  # only a callback named it
    QUERY = "query"  # the response to a query
    CREATE = "create"  # the response to our create request
    OPERATOR = "operator"  # an operator accepted a mismatch

    def outranks(self, other: IdSource) -> bool:
        """Return whether an id from this source replaces another id from the other source.

        An operator can change an earlier decision.
        """
        ranks = list(IdSource)
        return self is IdSource.OPERATOR or ranks.index(self) > ranks.index(other)


QUERY_ADOPTED_AFTER = 90_000  # ms after the callback from which a task became known
QUERY_ANNOUNCED_AFTER = 600_000  # ms after `receiver url`; the task is created elsewhere

_RANK = {
    Status.CREATED: 0,
    Status.SUBMITTED: 1,
    Status.PROCESSING: 2,
    Status.SUCCEEDED: 3,
    Status.FAILED: 3,
}


def mismatch_problem(named: str, known: str) -> str:
    """Return the problem of a message that names another provider task than the one on record."""
    return f"{_named(named)} provider task {known} is on record"


def is_problem_of(problem: str | None, named: str) -> bool:
    """Return whether the problem of a mismatch says that the message names this provider task."""
    return (problem or "").startswith(_named(named))


def _named(provider_task: str) -> str:
    return f"names provider task {provider_task};"


def may_move(current: Status, to: Status) -> bool:
    """Is the move legal? Forward only; steps may be skipped; an end is final."""
    return _RANK[to] > _RANK[current]


def may_correct(current: Status, rests_on: Trust, to: Status, trust: Trust) -> bool:
    """May this answer turn a recorded end into the other one?

    Only an answer that we fetched ourselves may, and only where the end rests on less.
    """
    return (
        current.is_terminal
        and to.is_terminal
        and current is not to
        and rests_on is not Trust.QUERIED
        and trust is Trust.QUERIED
    )


def judge(current: Status, rests_on: Trust, told: Status, trust: Trust) -> Outcome:
    """What a report of the status `told` means for a task that stands at `current`."""
    if may_move(current, told) or may_correct(current, rests_on, told, trust):
        return Outcome.RECORDED
    if current is told:
        return Outcome.DUPLICATE
    if current.is_terminal and told.is_terminal:
        return Outcome.CONFLICT
    return Outcome.STALE


@dataclass(frozen=True, slots=True)
class Task:
    """One generation at a provider. Instants are integer milliseconds UTC; None: not yet known."""

    id: str
    provider: str
    status: Status
    created_at: int
    updated_at: int
    account: str = "default"
    provider_task_id: str | None = None
    callback_task_id: str | None = None  # the id in callbacks, if it may differ
    id_source: IdSource | None = None  # of `provider_task_id`
    reference: str | None = None  # the user's own name for it, such as an order number
    model: str | None = None  # as in the create request; None also if the provider has no choice
    trust: Trust = Trust.TOKEN
    reason: str | None = None  # why it failed, in the provider's words
    cost: str | None = None  # a decimal string, as the provider wrote it
    cost_unit: str | None = None  # "units" of the provider, or a currency
    conflict: bool = False
    expects_callback: bool = False  # the provider was given a callback URL
    asked: int = 0  # how often we asked the provider
    deadline_at: int | None = None  # when we ask the provider; None: no need to
    given_up_at: int | None = None
    mismatched_at: int | None = None  # when a message last named another provider task

    @property
    def id_at_provider(self) -> str | None:
        """The id for querying the provider: from its responses, or else from callbacks."""
        return self.provider_task_id or self.callback_task_id


def new_task_id(now_ms: int | None = None) -> str:
    """A UUIDv7 (RFC 9562) as 32 hex digits: time-ordered, so that index inserts append.

    Standard `uuid.uuid7` came with Python 3.14; this serves 3.11 to 3.13 as well.
    """
    stamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    noise = int.from_bytes(os.urandom(10), "big")
    rand_a = noise >> 68
    rand_b = noise & ((1 << 62) - 1)
    return f"{stamp << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b:032x}"

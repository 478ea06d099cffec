"""Tasks, and the rules for transitions of their status; pure."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The status of a task. Order matters: a task only moves forward."""

    CREATED = "created"  # recorded by us; the provider has not responded yet
    SUBMITTED = "submitted"  # accepted by the provider
    PROCESSING = "processing"  # the provider is working on it
    SUCCEEDED = "succeeded"  # final
    FAILED = "failed"  # final

    @property
    def is_terminal(self) -> bool:
        """Whether this is a final status."""
        return self in (Status.SUCCEEDED, Status.FAILED)


class Trust(StrEnum):
    """What proves a status, weakest first."""

    TOKEN = "token"  # noqa: S105 - our token in the callback URL; nothing else proves the sender
    SIGNED = "signed"  # the provider signed the callback
    QUERIED = "queried"  # it is the response to our query


class Outcome(StrEnum):
    """The outcome of one callback."""

    RECORDED = "recorded"  # it changed the status of the task
    DUPLICATE = "duplicate"  # the task has this status already
    STALE = "stale"  # the task has a later status already
    CONFLICT = "conflict"  # it contradicts the final status on record
    CONFIRMING = "confirming"  # it counts only after a query has confirmed it
    MISMATCH = "mismatch"  # it names another provider task than the one on record
    QUARANTINED = "quarantined"  # stored, but it could not be interpreted


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


QUERY_ADOPTED_AFTER = 90_000  # ms after the callback that made a task known to us
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
    """Return whether a task may move from one status to the other.

    It only moves forward, may skip steps, and never leaves a final status.
    """
    return _RANK[to] > _RANK[current]


def may_correct(current: Status, current_trust: Trust, to: Status, trust: Trust) -> bool:
    """Return whether a message may replace a final status by the other one.

    Only the response to a query may, and only if the status on record has less trust.
    """
    return (
        current.is_terminal
        and to.is_terminal
        and current is not to
        and current_trust is not Trust.QUERIED
        and trust is Trust.QUERIED
    )


def judge(current: Status, current_trust: Trust, reported: Status, trust: Trust) -> Outcome:
    """Return the outcome of a message with the status `reported` for a task with `current`."""
    if may_move(current, reported) or may_correct(current, current_trust, reported, trust):
        return Outcome.RECORDED
    if current is reported:
        return Outcome.DUPLICATE
    if current.is_terminal and reported.is_terminal:
        return Outcome.CONFLICT
    return Outcome.STALE


@dataclass(frozen=True, slots=True)
class Task:
    """A task at a provider. Times are in milliseconds UTC; None means that a value is unknown."""

    id: str
    provider: str
    status: Status
    created_at: int
    updated_at: int
    account: str = "default"
    provider_task_id: str | None = None
    callback_task_id: str | None = None  # the id in callbacks, if it may differ
    id_source: IdSource | None = None  # of `provider_task_id`
    reference: str | None = None  # the user's name for it, such as an order number
    trust: Trust = Trust.TOKEN
    reason: str | None = None  # why it failed, according to the provider
    cost: str | None = None  # a decimal string, as the provider wrote it
    cost_unit: str | None = None  # "units" of the provider, or a currency
    conflict: bool = False
    expects_callback: bool = False  # the provider was given a callback URL
    asked: int = 0  # how many times it was queried
    deadline_at: int | None = None  # when it is queried next; None if it is not
    given_up_at: int | None = None
    mismatched_at: int | None = None  # when a message last named another provider task

    @property
    def id_at_provider(self) -> str | None:
        """The id for querying the provider: from its responses, or else from callbacks."""
        return self.provider_task_id or self.callback_task_id


def new_task_id(now_ms: int | None = None) -> str:
    """Return a UUIDv7 (RFC 9562) as 32 hex digits. It is time-ordered, so index inserts append.

    `uuid.uuid7` requires Python 3.14.
    """
    timestamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    random = int.from_bytes(os.urandom(10), "big")
    rand_a = random >> 68
    rand_b = random & ((1 << 62) - 1)
    return f"{timestamp << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b:032x}"

"""Tasks, and the rules for changes of their status; pure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """The status of a task, in order: a task only moves forward."""

    CREATED = "created"  # stored by us; the provider may not know it yet
    SUBMITTED = "submitted"  # accepted by the provider
    PROCESSING = "processing"  # the provider is working on it
    SUCCEEDED = "succeeded"  # terminal
    FAILED = "failed"  # terminal

    @property
    def is_terminal(self) -> bool:
        """Whether this is a final status."""
        return self in (Status.SUCCEEDED, Status.FAILED)


class Trust(StrEnum):
    """The evidence for a status, weakest first."""

    TOKEN = "token"  # noqa: S105 - the callback URL contained our token, which is the only proof
    SIGNED = "signed"  # the provider signed the callback
    QUERIED = "queried"  # the provider stated it in a response to our own request

    @property
    def text(self) -> str:
        """The evidence in words, such as "signed by the provider"."""
        return _EVIDENCE[self]


_EVIDENCE = {
    Trust.TOKEN: "verified by the token in the callback URL",
    Trust.SIGNED: "signed by the provider",
    Trust.QUERIED: "returned by the provider's API",
}


class Outcome(StrEnum):
    """The outcome of recording a callback or a response."""

    RECORDED = "recorded"  # it changed the status of the task
    DUPLICATE = "duplicate"  # the task has this status already
    STALE = "stale"  # the task has a later status
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


NEVER_REACHED = "never reached"  # the reason of a task whose create request was not sent
QUERY_ADOPTED_AFTER = 90_000  # ms after the callback from which a task became known
QUERY_ANNOUNCED_AFTER = 600_000  # ms after `receiver url`; the user creates the task

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
    """Return whether this is the problem of a message that names this provider task."""
    return (problem or "").startswith(_named(named))


def _named(provider_task: str) -> str:
    return f"names provider task {provider_task};"


def may_move(current: Status, to: Status) -> bool:
    """Return whether a task may change from one status to another.

    It only moves forward and may skip a status; a final status does not change.
    """
    return _RANK[to] > _RANK[current]


def may_correct(current: Status, current_trust: Trust, to: Status, trust: Trust) -> bool:
    """Return whether a message may replace the recorded final status with the other one.

    Only the response to a query may, and only if the recorded status has less evidence.
    """
    return (
        current.is_terminal
        and to.is_terminal
        and current is not to
        and current_trust is not Trust.QUERIED
        and trust is Trust.QUERIED
    )


def judge(current: Status, current_trust: Trust, reported: Status, trust: Trust) -> Outcome:
    """Return the outcome of a message that reports a status of a task whose status is `current`."""
    if may_move(current, reported) or may_correct(current, current_trust, reported, trust):
        return Outcome.RECORDED
    if current is reported:
        return Outcome.DUPLICATE
    if current.is_terminal and reported.is_terminal:
        return Outcome.CONFLICT
    return Outcome.STALE


@dataclass(frozen=True, slots=True)
class Task:
    """One task at a provider. Times are integer milliseconds UTC. None: unknown so far."""

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
    reason: str | None = None  # why it failed, as the provider states it
    cost: str | None = None  # a decimal string, as the provider wrote it
    cost_unit: str | None = None  # "units" of the provider, or a currency
    conflict: bool = False
    expects_callback: bool = False  # the provider was given a callback URL
    asked: int = 0  # how many times it was queried
    deadline_at: int | None = None  # when the next query is due; None: no query is needed
    given_up_at: int | None = None  # when we stopped querying an open task
    mismatched_at: int | None = None  # when a message last named another provider task
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the caller's own data

    @property
    def was_never_sent(self) -> bool:
        """Whether it failed because its create request could not be sent."""
        is_failed = self.status is Status.FAILED and self.reason == NEVER_REACHED
        return is_failed and self.id_at_provider is None

    @property
    def evidence(self) -> Trust | None:
        """The evidence for its status; None if no message of the provider set the status."""
        return None if self.status is Status.CREATED or self.was_never_sent else self.trust

    @property
    def id_at_provider(self) -> str | None:
        """The id for querying the provider: from its responses, or else from callbacks."""
        return self.provider_task_id or self.callback_task_id


def new_task_id(now_ms: int | None = None) -> str:
    """Return a new UUIDv7 (RFC 9562) as 32 hex digits.

    Ids are ordered by time, so new rows are appended to the index. The standard library has
    `uuid.uuid7` only since Python 3.14.
    """
    timestamp = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    random = int.from_bytes(os.urandom(10), "big")
    rand_a = random >> 68
    rand_b = random & ((1 << 62) - 1)
    return f"{timestamp << 80 | 0x7 << 76 | rand_a << 64 | 0b10 << 62 | rand_b:032x}"

"""Messages that name another provider task than the one on record.

See docs/adr/0012-one-provider-task-per-task.md. The functions run inside the transaction that is
open on `session`.
"""

from __future__ import annotations

from receiver.errors import NotAMismatch
from receiver.events import Event
from receiver.stores.sql import rows
from receiver.stores.sql.database import Session
from receiver.stores.sql.metrics import MISMATCHES, count
from receiver.stores.sql.resolve_task import ProviderId
from receiver.stores.sql.rows import Row
from receiver.tasks import Status, Trust, mismatch_problem

PAUSE = 60_000  # ms between two queries of a task because of mismatches


def record_mismatch(session: Session, task: Row, at: int) -> None:
    """Count a mismatch; if a query could change the task, make it due, at most once a minute."""
    count(session, MISMATCHES, task["provider"])
    last = task["mismatched_at"]
    is_sure = Status(task["status"]).is_terminal and Trust(task["trust"]) is Trust.QUERIED
    if is_sure or task["given_up_at"] is not None or task["provider_task_id"] is None:
        session.execute(_NOTE, (at, task["seq"]))
    else:
        # If the last mismatch is in the future, it was recorded before the clock was set back.
        ask_at = at if last is None else min(max(at, last + PAUSE), at + PAUSE)
        session.execute(_NOTE_AND_ASK, (at, ask_at, ask_at, task["seq"]))


def mark_earlier(session: Session, task: Row, named: ProviderId, at: int) -> None:
    """Mark the earlier messages, which named another provider task, and query the new one.

    If they ended the task, its final status may be corrected.
    """
    problem = mismatch_problem(task[named.column], named.id)
    sources = rows.any_of("source", named.sources)
    values = (problem, problem, task["seq"], *map(str, named.sources))
    if session.execute(_MARK_EARLIER.format(sources=sources), values).rowcount:
        count(session, MISMATCHES, task["provider"])
    if Status(task["status"]).is_terminal:
        session.execute(_FLAG_STATUS, (str(Trust.TOKEN), task["seq"]))
    session.execute(_NOTE_AND_ASK, (at, at, at, task["seq"]))


def is_based_on_mismatch(session: Session, task: Row) -> bool:
    """Return whether the status on record was reported by a message that is now a mismatch."""
    if task["mismatched_at"] is None:
        return False
    values = (task["seq"], task["status"])
    return session.execute(_RESTS_ON_ONE, values).fetchone() is not None


def is_disputed(task: Row, named: ProviderId, event: Event) -> bool:
    """Return whether only a query can decide which of two provider tasks ended.

    The callbacks named two ids, and cannot be compared with the id in the create response.
    """
    is_apart = named.column != "provider_task_id"
    has_two = task["mismatched_at"] is not None and task["provider_task_id"] is not None
    return is_apart and has_two and event.status.is_terminal


def check_is_mismatch(callback_id: int, task: Row, named: ProviderId) -> None:
    """Raise NotAMismatch if the message does not name another provider task."""
    if not named.is_other(task):
        raise NotAMismatch(
            f"callback {callback_id} is not a mismatch: it names the provider task on record. "
            "Replay it without accepting it"
        )


_NOTE = "update tasks set mismatched_at = ? where seq = ?"

_NOTE_AND_ASK = """
update tasks set mismatched_at = ?,
  deadline_at = case when deadline_at is null or deadline_at > ? then ? else deadline_at end
where seq = ?
"""

_MARK_EARLIER = """
update callbacks set outcome = 'mismatch',
  problem = case when problem is null then ? else ? || '; ' || problem end
where task = ? and outcome not in ('mismatch', 'quarantined') and {sources}
"""

_FLAG_STATUS = "update tasks set conflict = 1, trust = ? where seq = ?"

_RESTS_ON_ONE = """
select 1 from transitions join callbacks on callbacks.id = transitions.callback
where transitions.task = ? and transitions.status = ? and callbacks.outcome = 'mismatch'
"""

"""What the way in writes: each verb runs inside the writer's transaction, on its connection."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from receiver.deliveries import GIVEN_UP, Subscription
from receiver.errors import NotFound
from receiver.events import Callback, Event, Source
from receiver.stores.base import CALLBACKS_MISSED, CONFLICTS, REPAIRS, StoredCallback
from receiver.stores.sql import adoption
from receiver.stores.sql.agenda import count
from receiver.stores.sql.session import Row, Session
from receiver.tasks import Outcome, Status, Task, Trust, judge

LONGEST_PROBLEM = 1_000  # characters


class Recording:
    """One piece of work for the record, in the transaction that is open on `connection`."""

    def __init__(self, connection: Session, subscriptions: Sequence[Subscription] = ()) -> None:
        self._connection = connection
        self._subscriptions = subscriptions

    def create(self, task: Task) -> None:
        """A new task with its `created` transition. Raises ValueError if the id is taken."""
        row = adoption.insert(self._connection, task)
        if row is None:
            raise ValueError(f"task {task.id} is on record already")
        at = task.created_at
        self._connection.execute(
            _INSERT_TRANSITION, (row["seq"], Status.CREATED, None, at, at, Trust.QUERIED, 0)
        )

    def record(self, callback: Callback, event: Event, *, confirm: bool) -> Outcome:
        task = adoption.task_of(self._connection, callback, event)
        if task["forgotten_at"] is not None:
            return self._let_go(task, callback)
        outcome = _judge(task, event, callback.trust, confirm)
        problem = _problem(task, event)
        repeated, callback_id = self._keep(task["seq"], callback, outcome, problem)
        if repeated and outcome is not Outcome.RECORDED:
            return outcome
        self._apply(task, callback, callback_id, event, outcome, callback.received_at)
        return outcome

    def quarantine(self, callback: Callback, problem: str) -> None:
        """Keep a message that was not understood, with its task if its URL has a token.

        An empty message puts no task on record that was not there before.
        """
        task: Row | None = None
        if callback.task_id and callback.is_empty:
            task = adoption.find(self._connection, callback.task_id)
        elif callback.task_id:
            task = adoption.task_of(self._connection, callback, None)
        if task is not None and task["forgotten_at"] is not None:
            self._let_go(task, callback)
        else:
            self._keep(task["seq"] if task else None, callback, Outcome.QUARANTINED, problem)

    def reopen(self, stored: StoredCallback, event: Event, now: int, *, confirm: bool) -> Outcome:
        """Record a message that is kept already; its outcome is what it means today."""
        task = adoption.task_of(self._connection, stored.callback, event)
        if task["forgotten_at"] is not None:
            return Outcome.STALE
        outcome = _judge(task, event, stored.callback.trust, confirm)
        if stored.outcome is Outcome.QUARANTINED or outcome is Outcome.RECORDED:
            problem = _problem(task, event)
            values = {"outcome": outcome, "problem": problem, "task": task["seq"], "id": stored.id}
            self._connection.execute(_UNDERSTOOD, values)
        self._apply(task, stored.callback, stored.id, event, outcome, now)
        return outcome

    def give_up(self, task_id: str, now: int) -> None:
        """Stop asking; whoever wants to know of that is told, once. Raises NotFound."""
        task = adoption.find(self._connection, task_id)
        if task is None:
            raise NotFound(f"no task {task_id}")
        closed = (task["given_up_at"], task["forgotten_at"])
        if Status(task["status"]).is_terminal or closed != (None, None):
            return
        self._connection.execute(
            "update tasks set given_up_at = ?, deadline_at = null where seq = ?",
            (now, task["seq"]),
        )
        self._connection.execute(
            _INSERT_TRANSITION, (task["seq"], GIVEN_UP, None, now, now, task["trust"], 0)
        )
        self._fill_outbox(task, GIVEN_UP, now)

    def _let_go(self, task: Row, callback: Callback) -> Outcome:
        """Of a forgotten task only the key is kept: nothing moves, nobody is told."""
        self._keep(task["seq"], callback, Outcome.STALE, words=False)
        return Outcome.STALE

    # -- what a message does to its task

    def _apply(
        self,
        task: Row,
        callback: Callback,
        callback_id: int,
        event: Event,
        outcome: Outcome,
        at: int,
    ) -> None:
        if event.provider_task_id and task["provider_task_id"] is None:
            self._set(task, "provider_task_id", event.provider_task_id)
        if outcome is Outcome.RECORDED:
            self._move(task, callback, callback_id, event, at)
        elif outcome is Outcome.CONFLICT:
            self._contradict(task, at)
        elif outcome is Outcome.CONFIRMING and callback.source is Source.CALLBACK:
            self._set(task, "deadline_at", at)
        elif outcome is Outcome.DUPLICATE and callback.trust is Trust.QUERIED:
            self._confirm(task, callback_id, event)

    def _move(self, task: Row, callback: Callback, callback_id: int, event: Event, at: int) -> None:
        ended = event.status.is_terminal
        seq, status, trust = task["seq"], str(event.status), str(callback.trust)
        costs = (event.cost, event.cost, event.cost_unit)
        self._connection.execute(
            _END_TASK if ended else _MOVE_TASK, (status, trust, event.reason, *costs, at, seq)
        )
        corrected = int(ended and Status(task["status"]).is_terminal)
        moved = (seq, status, callback_id, event.occurred_at, at, trust, corrected)
        self._connection.execute(_INSERT_TRANSITION, moved)
        self._fill_outbox(task, event.status, at)
        if callback.source is Source.QUERY and task["expects_callback"]:
            self._count_repair(task, event.status)

    def _contradict(self, task: Row, at: int) -> None:
        """Flag it; and ask the provider, unless the end on record is its own answer."""
        count(self._connection, CONFLICTS, task["provider"])
        self._set(task, "conflict", 1)
        if Trust(task["trust"]) is not Trust.QUERIED:
            self._set(task, "deadline_at", at)

    def _confirm(self, task: Row, callback_id: int, event: Event) -> None:
        """The provider repeats a status: the record rests on that now, with the newest URLs."""
        self._set(task, "trust", Trust.QUERIED)
        if event.status.is_terminal:
            self._set(task, "deadline_at", None)
        if event.media:
            self._connection.execute(
                "update transitions set callback = ? where task = ? and status = ?",
                (callback_id, task["seq"], event.status),
            )

    def _count_repair(self, task: Row, status: Status) -> None:
        """The poll brought what a callback should have; one that waited for it did come."""
        came = self._connection.execute(_CALLBACK_CAME, (task["seq"],)).fetchone()
        if came is None:
            count(self._connection, REPAIRS, task["provider"])
            if status.is_terminal:
                count(self._connection, CALLBACKS_MISSED, task["provider"])

    def _fill_outbox(self, task: Row, status: str, at: int) -> None:
        """One delivery for each subscription that hears the move, which was just written."""
        seq, status = task["seq"], str(status)
        provider, reference = task["provider"], task["reference"]
        hearing = [
            subscription
            for subscription in self._subscriptions
            if subscription.hears(status=status, provider=provider, reference=reference)
        ]
        hooks = {subscription.hook for subscription in hearing}
        told: list[object] = []
        for subscription in hearing:
            after = subscription.after if subscription.after in hooks else None
            due_at = subscription.due_at(at, waits=after is not None)
            told += (subscription.hook, after, due_at)
        if told:
            self._connection.execute(_insert_deliveries(len(hearing)), (*told, seq, status))

    # -- rows

    def _set(self, task: Row, column: str, value: object) -> None:
        sql = f"update tasks set {column} = ? where seq = ?"  # noqa: S608 - columns of this file
        self._connection.execute(sql, (value, task["seq"]))

    def _keep(
        self,
        task: int | None,
        callback: Callback,
        outcome: Outcome,
        problem: str | None = None,
        *,
        words: bool = True,
    ) -> tuple[bool, int]:
        """Keep the message; whether the same bytes were there already, and its row.

        Without its words only their digest is kept.
        """
        row = self._connection.execute(
            _KEEP_OF_NO_TASK if task is None else _KEEP_CALLBACK,
            (
                task,
                callback.provider,
                str(callback.source),
                str(callback.trust),
                str(outcome),
                callback.received_at,
                callback.digest,
                problem,
                _as_json(dict(callback.headers) if words else {}),
                callback.body if words else b"",
            ),
        ).fetchone()
        return row["repeats"] > 0, row["id"]


def _problem(task: Row, event: Event) -> str | None:
    """What is odd about a message that was understood: another id, and the dropped fields."""
    other_id = _other_id(task, event)
    if not event.dropped:
        return other_id
    found = [other_id, *event.dropped] if other_id else event.dropped
    return "; ".join(found)[:LONGEST_PROBLEM]


def _other_id(task: Row, event: Event) -> str | None:
    """The token says whose callback it is; that the provider names another task is kept to see.

    Two creates with one callback URL look like this: both tell of our one task.
    """
    known = task["provider_task_id"]
    if not known or not event.provider_task_id or known == event.provider_task_id:
        return None
    return f"tells of the provider's task {event.provider_task_id}; on record is {known}"


def _judge(task: Row, event: Event, trust: Trust, confirm: bool) -> Outcome:
    outcome = judge(Status(task["status"]), Trust(task["trust"]), event.status, trust)
    return Outcome.CONFIRMING if confirm and outcome is Outcome.RECORDED else outcome


@cache
def _insert_deliveries(hooks: int) -> str:
    return _INSERT_DELIVERIES.format(told=" union all ".join([_ONE_DELIVERY] * hooks))


_as_json = json.JSONEncoder(ensure_ascii=False).encode

# Statements are whole and always the same text: those of a callback are found prepared.
_INSERT_TRANSITION = """
insert into transitions (task, status, callback, occurred_at, recorded_at, trust, corrected)
values (?, ?, ?, ?, ?, ?, ?)
"""
_INSERT_DELIVERIES = """
insert into deliveries (transition, hook, after, due_at)
select transitions.id, told.hook, told.after, told.due_at
from ({told}) as told cross join transitions where task = ? and status = ?
"""
_ONE_DELIVERY = """
select cast(? as text) as hook, cast(? as text) as after, cast(? as bigint) as due_at
"""
# The same bytes may be on record for the task already: then this row stays without one.
_UNDERSTOOD = """
update callbacks set outcome = :outcome, problem = :problem, task = case
  when exists (
    select 1 from callbacks as other
    where other.task = :task and other.digest = callbacks.digest and other.id <> :id
  ) then task else :task end
where id = :id
"""
_NEXT_STATUS = """
update tasks set status = ?, trust = ?, reason = ?, cost = coalesce(?, cost),
  cost_unit = case when cast(? as text) is null then cost_unit else ? end, updated_at = ?
"""
_MOVE_TASK = f"{_NEXT_STATUS} where seq = ?"
_END_TASK = f"{_NEXT_STATUS}, deadline_at = null where seq = ?"
_CALLBACK_CAME = """
select 1 from callbacks where task = ? and source = 'callback' and outcome = 'confirming' limit 1
"""
# The same bytes may mean more the second time: after an update that understands them, or once ends
# need no confirmation any more.
_KEEP = """
insert into callbacks (task, provider, source, trust, outcome, received_at, digest, problem,
  headers, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict {target} do update set repeats = callbacks.repeats + 1,
  outcome = case excluded.outcome when 'recorded' then 'recorded' else callbacks.outcome end,
  problem = case excluded.outcome when 'recorded' then excluded.problem
    else callbacks.problem end
returning id, repeats
"""
_KEEP_CALLBACK = _KEEP.format(target="(task, digest)")
_KEEP_OF_NO_TASK = _KEEP.format(target="(provider, digest) where task is null")

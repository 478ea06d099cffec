"""Records messages of providers, inside the transaction of the writer.

`Inbox` opens the transaction, and passes the session.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

from receiver.deliveries import GIVEN_UP, Notice, Subscription, Transition
from receiver.errors import NotFound
from receiver.events import Callback, Event, Media, Source
from receiver.stores.sql import mismatches, resolve_task, rows
from receiver.stores.sql.activity import GONE_AFTER
from receiver.stores.sql.database import Session
from receiver.stores.sql.locks import Lock, locked
from receiver.stores.sql.metrics import CALLBACKS_MISSED, CONFLICTS, REPAIRS, count
from receiver.stores.sql.notices import load_notices
from receiver.stores.sql.resolve_task import ProviderId
from receiver.stores.sql.rows import Row, StoredCallback, from_row
from receiver.tasks import QUERY_ADOPTED_AFTER, IdSource, Outcome, Status, Task, Trust, judge
from receiver.text.display import shortened

LONGEST_PROBLEM = 1_000  # characters

QUERY_AGAIN_AFTER = 5_000  # ms after a response without the output

WAIT_FOR_OUTPUTS = 10_000  # ms that deliveries wait for the query for lost outputs


class Recording:
    """Records one message, or one task, in the transaction that is open on `session`.

    See `inbox.RecordingOptions` for the options.
    """

    def __init__(
        self,
        session: Session,
        subscriptions: Sequence[Subscription] = (),
        query_after: int = QUERY_ADOPTED_AFTER,
        *,
        confirm: bool = False,
        shares_ids: bool = True,
    ) -> None:
        self._session = session
        self._subscriptions = subscriptions
        self._query_after = query_after
        self._confirm = confirm
        self._shares_ids = shares_ids

    def create(self, task: Task) -> None:
        """Store a new task with its `created` transition. Raises ValueError if the id exists."""
        row = resolve_task.insert(self._session, task)
        if row is None:
            raise ValueError(f"task {task.id} is on record already")
        at = task.created_at
        self._session.execute(
            _INSERT_TRANSITION, (row["seq"], Status.CREATED, None, 0, at, at, Trust.QUERIED, 0)
        )

    def record(self, callback: Callback, event: Event) -> Outcome:
        """Store the message and apply it to its task; see `Inbox.record`."""
        named = ProviderId.of(callback, event, shares_ids=self._shares_ids)
        task = self._task_of(callback, event, named)
        if task["forgotten_at"] is not None:
            return self._record_forgotten(task, callback)
        task = self._identified(task, named, callback.received_at)
        outcome = self._judge(task, named, event, callback.trust)
        problem = _problem(task, named, event)
        is_repeated, callback_id = self._store(task["seq"], callback, outcome, problem)
        confirms = outcome is Outcome.DUPLICATE and callback.trust is Trust.QUERIED
        if is_repeated and outcome is not Outcome.RECORDED and not confirms:
            return outcome
        self._apply(task, callback, callback_id, event, outcome, callback.received_at)
        return outcome

    def quarantine(self, callback: Callback, problem: str) -> None:
        """Store a message that was not understood, with its task if its URL has a token.

        An empty message does not create a task. If the URL names a task of another provider, the
        message is stored without a task.
        """
        task: Row | None = None
        if callback.task_id:
            task = resolve_task.find(self._session, callback.task_id)
            if task is None and not callback.is_empty:
                task = self._task_of(callback)
            if task is not None and task["provider"] != callback.provider:
                task = None
        if task is not None and task["forgotten_at"] is not None:
            self._record_forgotten(task, callback)
        else:
            self._store(task["seq"] if task else None, callback, Outcome.QUARANTINED, problem)

    def reopen(
        self, stored: StoredCallback, event: Event, now: int, *, accept: bool = False
    ) -> Outcome:
        """Record a stored message again, and replace its outcome with the current one.

        With `accept`, the message must be a mismatch, and its id becomes the id of the task. Raises
        NotAMismatch, and NotFound if the task was forgotten.
        """
        named = ProviderId.of(stored.callback, event, shares_ids=self._shares_ids)
        task = self._task_of(stored.callback, event, named)
        if task["forgotten_at"] is not None:
            if accept:
                raise NotFound(f"task {task['id']} was forgotten")
            return Outcome.STALE
        if accept:
            mismatches.check_is_mismatch(stored.id, task, named)
            named = replace(named, source=IdSource.OPERATOR)
        task = self._identified(task, named, now)
        trust = stored.callback.trust
        outcome = self._judge(task, named, event, trust, is_accepted=accept)
        problem = _problem(task, named, event)
        values = {"outcome": outcome, "problem": problem, "task": task["seq"], "id": stored.id}
        self._session.execute(_REPLAYED, values)
        if outcome is not Outcome.MISMATCH or stored.outcome is not Outcome.MISMATCH:
            self._apply(task, stored.callback, stored.id, event, outcome, now)
        return outcome

    def give_up(self, task_id: str, now: int) -> None:
        """Stop querying an open task; see `Inbox.give_up`. Raises NotFound."""
        task = resolve_task.find(self._session, task_id)
        if task is None:
            raise NotFound(f"no task {task_id}")
        if Status(task["status"]).is_terminal or task["forgotten_at"] is not None:
            return
        if task["given_up_at"] is not None:  # it was due for one more query
            self._set(task, "deadline_at", None)
            return
        subscriptions = self._included(task, GIVEN_UP)
        changed = self._change_task(_GIVE_UP, (now, task["seq"]), subscriptions)
        self._session.execute(
            _INSERT_TRANSITION, (task["seq"], GIVEN_UP, None, 0, now, now, task["trust"], 0)
        )
        transition = Transition(GIVEN_UP, now, now, Trust(task["trust"]))
        self._fill_outbox(task, GIVEN_UP, now, _matching(subscriptions, changed, transition))

    def _record_forgotten(self, task: Row, callback: Callback) -> Outcome:
        """Store only the digest of a message about a forgotten task. Returns its outcome."""
        self._store(task["seq"], callback, Outcome.STALE, has_content=False)
        return Outcome.STALE

    # -- the task, and its id at the provider

    def _task_of(
        self, callback: Callback, event: Event | None = None, named: ProviderId | None = None
    ) -> Row:
        return resolve_task.find_or_create(self._session, callback, event, named, self._query_after)

    def _identified(self, task: Row, named: ProviderId, at: int) -> Row:
        """Store the id in the message if it is the first or outranks the other; return the task."""
        if not named.is_first(task) and not named.outranks(task):
            return task
        if named.column == "provider_task_id":
            values = (named.id, str(named.source), task["seq"])
            self._session.execute(_SET_PROVIDER_ID, values)
        else:
            self._set(task, named.column, named.id)
        if not named.is_other(task):
            return task
        mismatches.mark_earlier(self._session, task, named, at)
        changed = resolve_task.find(self._session, task["id"])
        assert changed is not None  # noqa: S101 - it is locked
        return changed

    def _judge(
        self,
        task: Row,
        named: ProviderId,
        event: Event,
        trust: Trust,
        *,
        is_accepted: bool = False,
    ) -> Outcome:
        """Return the outcome of a message. `is_accepted`: an operator accepted the mismatch."""
        if named.is_other(task):
            return Outcome.MISMATCH
        outcome = judge(Status(task["status"]), Trust(task["trust"]), event.status, trust)
        if outcome in (Outcome.DUPLICATE, Outcome.CONFLICT) and event.status.is_terminal:
            is_sure = is_accepted or trust is Trust.QUERIED
            if is_sure and mismatches.is_based_on_mismatch(self._session, task):
                outcome = Outcome.RECORDED
        is_disputed = not is_accepted and mismatches.is_disputed(task, named, event)
        if outcome is Outcome.RECORDED and (self._confirm or is_disputed):
            return Outcome.CONFIRMING
        return outcome

    # -- the effects of a message on its task

    def _apply(
        self,
        task: Row,
        callback: Callback,
        callback_id: int,
        event: Event,
        outcome: Outcome,
        at: int,
    ) -> None:
        """Change the task as the outcome requires; `callback_id` is the row of the message."""
        if outcome is Outcome.RECORDED:
            self._move(task, callback, callback_id, event, at)
        elif outcome is Outcome.CONFLICT:
            self._contradict(task, at)
        elif outcome is Outcome.MISMATCH:
            mismatches.record_mismatch(self._session, task, at)
        elif outcome is Outcome.CONFIRMING and callback.source is Source.CALLBACK:
            self._set(task, "deadline_at", at)
        elif outcome is Outcome.DUPLICATE and callback.trust is Trust.QUERIED:
            self._record_confirmation(task, callback_id, event, at)

    def _move(self, task: Row, callback: Callback, callback_id: int, event: Event, at: int) -> None:
        """Record the transition, and write its deliveries.

        Triggers on the tables count the task and the transition, and in PostgreSQL announce the
        deliveries to the job queue.
        """
        ended = event.status.is_terminal
        seq, status, trust = task["seq"], str(event.status), str(callback.trust)
        costs = (event.cost, event.cost, event.cost_unit)
        subscriptions = self._included(task, status)
        changed = self._change_task(
            _END_TASK if ended else _MOVE_TASK,
            (status, trust, event.reason, *costs, at, seq),
            subscriptions,
        )
        corrected = int(ended and Status(task["status"]).is_terminal)
        outputs = len(event.media)
        moved = (seq, status, callback_id, outputs, event.occurred_at, at, trust, corrected)
        revision = 0
        if corrected:
            revision = self._session.execute(_CORRECT_TRANSITION, moved).fetchone()["revision"]
            self._session.execute(_REPLACE_FILES, (seq, status))
            self._session.execute(_ERASE_OUTPUTS, (seq, status))
        else:
            self._session.execute(_INSERT_TRANSITION, moved)
        transition = Transition(
            status, event.occurred_at, at, callback.trust, bool(corrected), revision
        )
        subscriptions = _matching(subscriptions, changed, transition, event.media)
        delay = 0
        if event.status is Status.SUCCEEDED and event.lost_outputs:
            delay = self._query_lost_outputs(task, callback, at)
        self._fill_outbox(task, event.status, at, subscriptions, delay)
        if callback.source is Source.QUERY and task["expects_callback"]:
            self._count_repair(task, event.status)

    def _change_task(
        self, sql: str, values: Sequence[object], subscriptions: Sequence[Subscription]
    ) -> Row | None:
        """Update the task. Returns its new row if one of the subscriptions has a filter."""
        if all(subscription.where is None for subscription in subscriptions):
            self._session.execute(sql, values)
            return None
        row: Row = self._session.execute(f"{sql} returning *", values).fetchone()
        return row

    def _contradict(self, task: Row, at: int) -> None:
        """Flag the task; make it due for a query unless a query reported the status on record."""
        count(self._session, CONFLICTS, task["provider"])
        self._set(task, "conflict", 1)
        if Trust(task["trust"]) is not Trust.QUERIED:
            self._set(task, "deadline_at", at)

    def _query_lost_outputs(self, task: Row, callback: Callback, at: int) -> int:
        """Make the task due for one query. Returns the delay of its deliveries in ms.

        If a poller is running, they wait a few seconds for the response, so that each hook is
        called once, with all outputs.
        """
        is_callback = callback.source is Source.CALLBACK
        self._set(task, "deadline_at", at if is_callback else at + QUERY_AGAIN_AFTER)
        seen_at = self._session.execute(_POLLER_SEEN).fetchone()["seen_at"]
        is_polled = seen_at is not None and abs(at - seen_at) < GONE_AFTER
        return WAIT_FOR_OUTPUTS if is_polled else 0

    def _record_confirmation(self, task: Row, callback_id: int, event: Event, at: int) -> None:
        """Record that a query confirmed the status. Its response contains the newest URLs.

        The response replaces the message of the transition, unless it has fewer outputs. If it has
        more, hooks that have not been called yet receive all of them, hooks whose filter did not
        match before are called if it does now, and downloads run once more; no other hook is called
        again.
        """
        self._set(task, "trust", Trust.QUERIED)
        if event.status.is_terminal:
            self._set(task, "deadline_at", None)
        seq, status, outputs = task["seq"], str(event.status), len(event.media)
        move = self._session.execute(_MOVE_ON_RECORD, (seq, status)).fetchone()
        if move is None:
            return
        known = move["outputs"] or 0  # null: recorded before outputs were counted
        if event.media and outputs >= known:
            self._session.execute(_REPLACE_MESSAGE, (callback_id, outputs, move["id"]))
        if event.status is Status.SUCCEEDED:
            self._session.execute(_STOP_WAITING, (at, move["id"], at))
            if move["outputs"] is not None and outputs > known:
                self._session.execute(_FETCH_THE_REST, (at, move["id"]))
                self._call_late_hooks(task, move["id"], event, at)

    def _call_late_hooks(self, task: Row, transition: int, event: Event, at: int) -> None:
        """Write a delivery for each hook whose filter matches only now, with the new media."""
        included = self._included(task, event.status)
        late = [one for one in included if one.where is not None and one.where.of_media]
        if not late:
            return
        on_record = hooks_on_record(self._session, transition)
        notice = replace(load_notices(self._session, [transition])[transition], media=event.media)
        late = [one for one in late if one.hook not in on_record and one.matches(notice)]
        self._fill_outbox(task, event.status, at, late, on_record=on_record)

    def _count_repair(self, task: Row, status: Status) -> None:
        """Count a transition that a query reported, unless a callback had reported it.

        Such a callback waits for the query because it needs confirmation.
        """
        waiting = self._session.execute(_WAITING_CALLBACK, (task["seq"],)).fetchone()
        if waiting is None:
            count(self._session, REPAIRS, task["provider"])
            if status.is_terminal:
                count(self._session, CALLBACKS_MISSED, task["provider"])

    def _included(self, task: Row, status: str) -> list[Subscription]:
        """Return the subscriptions to this status of the task, without evaluating their filters."""
        status, provider, reference = str(status), task["provider"], task["reference"]
        return [
            subscription
            for subscription in self._subscriptions
            if subscription.includes(status=status, provider=provider, reference=reference)
        ]

    def _fill_outbox(
        self,
        task: Row,
        status: str,
        at: int,
        subscriptions: Sequence[Subscription],
        delay: int = 0,
        on_record: Mapping[str, bool] | None = None,
    ) -> None:
        """Write one delivery for each subscription to the transition that was just written.

        Deliveries that do not wait for another one become due after `delay` ms. `on_record` are the
        hooks whose delivery of the transition was written before, and whether it is still open.
        """
        is_open = {**(on_record or {}), **dict.fromkeys((one.hook for one in subscriptions), True)}
        values: list[object] = []
        for subscription in subscriptions:
            after = subscription.awaited(is_open)
            waits = after is not None and is_open[after]
            due_at = subscription.due_at(at if after else at + delay, waits=waits)
            values += (subscription.hook, after, due_at)
        if values:
            sql = _insert_deliveries(len(subscriptions))
            self._session.execute(sql, (*values, task["seq"], str(status)))

    # -- rows

    def _set(self, task: Row, column: str, value: object) -> None:
        sql = f"update tasks set {column} = ? where seq = ?"  # noqa: S608 - columns of this file
        self._session.execute(sql, (value, task["seq"]))

    def _store(
        self,
        task: int | None,
        callback: Callback,
        outcome: Outcome,
        problem: str | None = None,
        *,
        has_content: bool = True,
    ) -> tuple[bool, int]:
        """Store the message. Returns whether the same bytes were on record, and its row key.

        Without `has_content`, only the digest of the content is stored.
        """
        row = self._session.execute(
            _STORE_WITHOUT_TASK if task is None else _STORE_OF_TASK,
            (
                task,
                callback.provider,
                str(callback.source),
                str(callback.trust),
                str(outcome),
                callback.received_at,
                callback.digest,
                problem,
                _as_json(dict(callback.headers) if has_content else {}),
                callback.body if has_content else b"",
            ),
        ).fetchone()
        return row["repeats"] > 0, row["id"]


def hooks_on_record(session: Session, transition: int) -> dict[str, bool]:
    """Return the hooks that have a delivery of the transition, and whether it is still open."""
    found = session.execute_locked(_HOOKS_ON_RECORD, (transition,)).fetchall()
    return {row["hook"]: bool(row["is_open"]) for row in found}


def wait_again(
    session: Session, ids: Sequence[int], now: int, subscriptions: Sequence[Subscription]
) -> None:
    """Let redelivered deliveries wait again, as their hooks in `subscriptions` do now.

    So do deliveries that were redelivered earlier, for example in the step before, and have not
    begun: otherwise they would lack the new output. No two deliveries wait for each other, because
    hooks of one file do not, and because no other delivery waits for one that had ended.
    """
    waiting = {one.hook: one for one in subscriptions if one.after is not None}
    if not waiting:
        return
    sql = _REDELIVERED.format(rows.any_of("redelivered.id", ids))
    for row in session.execute(sql, ids).fetchall():
        if (subscription := waiting.get(row["hook"])) is not None:
            is_open = hooks_on_record(session, row["transition"])
            after = subscription.awaited(is_open)
            waits = after is not None and is_open[after]
            if waits or after != row["after"]:
                due_at = subscription.due_at(now, waits=waits)
                session.execute(_WAIT_AGAIN, (after, due_at, row["id"]))


def _matching(
    subscriptions: list[Subscription],
    changed: Row | None,
    transition: Transition,
    media: tuple[Media, ...] = (),
) -> list[Subscription]:
    """Return the subscriptions whose filters match `changed`, the row of the task.

    `changed` is None if no subscription has a filter.
    """
    if changed is None:
        return subscriptions
    notice = Notice(from_row(Task, changed), transition, media)
    return [subscription for subscription in subscriptions if subscription.matches(notice)]


def _problem(task: Row, named: ProviderId, event: Event) -> str | None:
    """Return the problems of a message that was interpreted: another id, and dropped fields."""
    known = task[named.column]
    if not named.is_other(task):
        return shortened("; ".join(event.dropped), LONGEST_PROBLEM) or None
    return shortened("; ".join([named.problem(known), *event.dropped]), LONGEST_PROBLEM)


@cache
def _insert_deliveries(hooks: int) -> str:
    return _INSERT_DELIVERIES.format(added=" union all ".join([_ONE_DELIVERY] * hooks))


_as_json = json.JSONEncoder(ensure_ascii=False).encode

# The text of each statement is always the same, so that a connection prepares it only once.
_INSERT_TRANSITION = """
insert into transitions (task, status, callback, outputs, occurred_at, recorded_at, trust,
  corrected)
values (?, ?, ?, ?, ?, ?, ?, ?)
"""

_MOVE_ON_RECORD = "select id, outputs from transitions where task = ? and status = ?"

_REPLACE_MESSAGE = "update transitions set callback = ?, outputs = ? where id = ?"

# Locked, so that a delivery that ends meanwhile releases those that begin to wait for it.
_HOOKS_ON_RECORD = locked(
    """
    select hook, state in ('pending', 'claimed') as is_open from deliveries
    where transition = ? order by id
    """,
    Lock.ROWS,
)

_POLLER_SEEN = "select max(seen_at) as seen_at from processes where kind = 'poller'"

# Only a success that lost an output delays deliveries before their first attempt.
_STOP_WAITING = """
update deliveries set due_at = ?
where transition = ? and state = 'pending' and attempts = retries_from and after is null
  and due_at > ?
"""

# `retries_from` stays unchanged, so that earlier files count and only the missing ones are fetched.
_FETCH_THE_REST = """
update deliveries set state = 'pending', due_at = ?, ended_at = null
where transition = ? and state = 'delivered'
  and exists (select 1 from files where files.delivery = deliveries.id)
"""

# The same final status may be on record already, from another provider task.
_CORRECT_TRANSITION = f"""{_INSERT_TRANSITION}
on conflict (task, status) do update set callback = excluded.callback,
  outputs = excluded.outputs, occurred_at = excluded.occurred_at,
  recorded_at = excluded.recorded_at, trust = excluded.trust,
  corrected = 1, revision = transitions.revision + 1
returning revision
"""

# Hides files of the other provider task. They stay on record, so that `forget` erases them.
_REPLACE_FILES = """
update files set media_index = 'replaced ' || replaced.revision || ' ' || media_index,
  thumbnail = null
from (
  select deliveries.id, transitions.revision
  from transitions join deliveries on deliveries.transition = transitions.id
  where transitions.task = ? and transitions.status = ?
) as replaced
where files.delivery = replaced.id and substr(files.media_index, 1, 9) <> 'replaced '
"""

_REDELIVERED = """
select distinct waiting.id, waiting.transition, waiting.hook, waiting.after
from deliveries redelivered join deliveries waiting
  on waiting.transition = redelivered.transition
  and (waiting.id = redelivered.id or waiting.after = redelivered.hook)
where {0} and waiting.state = 'pending' and waiting.attempts = waiting.retries_from
order by waiting.id
"""

# Another worker may have claimed the delivery since it was read.
_WAIT_AGAIN = "update deliveries set after = ?, due_at = ? where id = ? and state = 'pending'"

# They belong to the other result, also those of hooks that do not receive the corrected event.
_ERASE_OUTPUTS = """
update deliveries set output = null
where transition in (select id from transitions where task = ? and status = ?)
  and output is not null
"""

# Deliveries of that transition may exist already: their hooks are called again.
_INSERT_DELIVERIES = """
insert into deliveries (transition, hook, after, due_at)
select transitions.id, added.hook, added.after, added.due_at
from ({added}) as added cross join transitions where task = ? and status = ?
on conflict (transition, hook) do update set state = 'pending', after = excluded.after,
  due_at = excluded.due_at, ended_at = null, worker = null, retries_from = deliveries.attempts,
  output = null
"""

_ONE_DELIVERY = """
select cast(? as text) as hook, cast(? as text) as after, cast(? as bigint) as due_at
"""

# If the same bytes are on record for the task, this row stays without a task. The outcome is
# compared here, because another replay may have changed it since `stored` was read.
_REPLAYED = """
update callbacks set outcome = :outcome, problem = :problem, task = case
  when exists (
    select 1 from callbacks as other
    where other.task = :task and other.digest = callbacks.digest and other.id <> :id
  ) then task else :task end
where id = :id
  and (outcome in ('quarantined', 'mismatch') or cast(:outcome as text) = 'recorded')
"""

_NEXT_STATUS = """
update tasks set status = ?, trust = ?, reason = ?, cost = coalesce(?, cost),
  cost_unit = case when cast(? as text) is null then cost_unit else ? end, updated_at = ?
"""

_MOVE_TASK = f"{_NEXT_STATUS} where seq = ?"

_END_TASK = f"{_NEXT_STATUS}, deadline_at = null where seq = ?"

_GIVE_UP = "update tasks set given_up_at = ?, deadline_at = null where seq = ?"

_SET_PROVIDER_ID = "update tasks set provider_task_id = ?, id_source = ? where seq = ?"

_WAITING_CALLBACK = """
select 1 from callbacks where task = ? and source = 'callback' and outcome = 'confirming' limit 1
"""

# The same bytes may have another outcome the second time: after an update that can interpret them,
# or when `CONFIRM` was changed.
_STORE = """
insert into callbacks (task, provider, source, trust, outcome, received_at, digest, problem,
  headers, body)
values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
on conflict {target} do update set repeats = callbacks.repeats + 1,
  outcome = case when excluded.outcome = 'recorded' or callbacks.outcome = 'mismatch'
    then excluded.outcome else callbacks.outcome end,
  problem = case when excluded.outcome = 'recorded' or callbacks.outcome = 'mismatch'
    then excluded.problem else callbacks.problem end
returning id, repeats
"""

_STORE_OF_TASK = _STORE.format(target="(task, digest)")

_STORE_WITHOUT_TASK = _STORE.format(target="(provider, digest) where task is null")

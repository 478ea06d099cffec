"""The page of one task: its timeline, results, messages and deliveries, and the buttons."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from flask import Blueprint, flash, g, request
from werkzeug.wrappers import Response

from receiver.deliveries import Delivery, State
from receiver.errors import NotAMismatch, NotFound, RequestRefused
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Outcome, Status
from receiver.web.api import ROW
from receiver.web.dashboard.messages import message
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import back_to, page
from receiver.web.dashboard.results import media_of, results

GOOD, BAD, PLAIN, NEXT = "good", "bad", "plain", "next"
MAX_ANSWER = 300  # characters
MESSAGE_TITLES = {
    "callback": "Callback",
    "create": "Response to the create request",
    "query": "Response to a query",
}
_ORDER = {"message": 0, "move": 1, "attempt": 2}  # of entries in the same millisecond


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line of the timeline. Times are in milliseconds; `gap` is the time since the last line.

    `anchor` is the id of the element on the page that has the details.
    """

    at: int
    kind: str  # message, move, attempt, next
    title: str
    detail: str = ""
    tone: str = PLAIN
    duration: int | None = None  # of an attempt
    anchor: str | None = None
    gap: int | None = None


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page and its buttons."""
    store = context.store

    @routes.get("/tasks/<task_id>")
    def task(task_id: str) -> str:
        history = store.queries.history(task_id)
        last_message = store.queries.results([task_id]).get(task_id)
        return page(
            "task",
            here="tasks",
            task=history.task,
            history=history,
            lines=timeline(history, context.hide),
            steps=next_steps(history),
            results=results(
                media_of(last_message), store.queries.pictures([task_id]).get(task_id, [])
            ),
            inputs=store.queries.names_of_inputs([task_id]).get(task_id, ()),
            messages=[message(stored, context.hide) for stored in history.callbacks],
            can_be_queried=_can_be_queried(history),
        )

    @routes.post("/tasks/<task_id>/ask")
    def query(task_id: str) -> Response:
        """Make the task due for a query, which the poller makes."""
        if not _can_be_queried(store.queries.history(task_id)):
            flash("Nothing was done: the provider is no longer queried about this task.")
            return back_to(task_id)
        store.polling.query_at(task_id, g.now)
        flash("The poller will query the provider now. The response appears on this page.")
        return back_to(task_id)

    @routes.post(f"/callbacks/<{ROW}:callback_id>/replay")
    def replay(callback_id: int) -> Response:
        """Parse and record a message again, and optionally accept a mismatch."""
        task_id = store.queries.callback(callback_id).callback.task_id
        accept = bool(request.form.get("accept"))
        try:
            outcome = context.ingest.replay(callback_id, accept=accept)
            flash(f"{'Accepted' if accept else 'Replayed'} message {callback_id}: {outcome}.")
        except RequestRefused as refusal:
            problem = context.hide(str(refusal))
            flash(f"Message {callback_id} can still not be interpreted: {problem}")
        except (NotFound, NotAMismatch) as error:
            flash(f"Nothing was done: {error}.")
        return back_to(task_id)

    @routes.post(f"/deliveries/<{ROW}:delivery_id>/redeliver")
    def redeliver(delivery_id: int) -> Response:
        delivery = store.queries.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            flash(f"Nothing was done: delivery {delivery_id} has not ended ({delivery.state}).")
            return back_to(delivery.task_id)
        try:
            store.outbox.redeliver(delivery_id, g.now)
            flash(f"Delivery {delivery_id} to {delivery.hook} is due again.")
        except NotFound as error:
            flash(f"Nothing was done: {error}.")
        return back_to(delivery.task_id)


def timeline(history: TaskHistory, hide: Callable[[str], str]) -> list[TimelineEntry]:
    """Return the events of the task in order. `hide` removes secrets from text of others."""
    entries = [*_moves(history), *_messages(history, hide), *_attempts(history, hide)]
    entries.sort(key=lambda entry: (entry.at, _ORDER[entry.kind]))
    lines: list[TimelineEntry] = []
    for entry in entries:
        if lines and (joined := _joined(lines[-1], entry)):
            lines[-1] = joined
        else:
            gap = entry.at - lines[-1].at if lines else None
            lines.append(replace(entry, gap=gap))
    return lines


def next_steps(history: TaskHistory) -> list[TimelineEntry]:
    """Return scheduled events: attempts, ends of leases, and the next query."""
    steps = [step for delivery in history.deliveries if (step := _next_step(delivery))]
    deadline_at = history.task.deadline_at
    if deadline_at is not None:
        steps.append(TimelineEntry(deadline_at, "next", "The provider is queried", tone=NEXT))
    return sorted(steps, key=lambda step: step.at)


def _joined(message: TimelineEntry, move: TimelineEntry) -> TimelineEntry | None:
    """Return one line for a move and the message that caused it; None for any other pair."""
    is_cause = message.kind == "message" and message.detail == Outcome.RECORDED
    if not is_cause or move.kind != "move" or message.at != move.at:
        return None
    detail = f"{message.title}, {move.detail}" if move.detail else message.title
    return replace(move, detail=detail, anchor=message.anchor, gap=message.gap)


def _next_step(delivery: Delivery) -> TimelineEntry | None:
    if delivery.due_at is None:
        return None
    if delivery.state is State.CLAIMED:
        title = f"{delivery.hook}: attempt {delivery.attempts} is running"
        detail = "its lease expires"
    elif delivery.state is State.PENDING:
        title, detail = f"{delivery.hook}: attempt {delivery.attempts + 1} is due", ""
    else:
        return None
    anchor = f"delivery-{delivery.id}"
    return TimelineEntry(delivery.due_at, "next", title, detail, NEXT, anchor=anchor)


def _moves(history: TaskHistory) -> Iterator[TimelineEntry]:
    for move in history.transitions:
        tone = {"succeeded": GOOD, "failed": BAD, "given_up": BAD}.get(move.status, PLAIN)
        trust = "" if move.status == "created" else f"trust: {move.trust}"
        detail = f"{trust}, corrected" if move.corrected else trust
        title = move.status.replace("_", " ").capitalize()
        yield TimelineEntry(move.recorded_at, "move", title, detail, tone)


def _messages(history: TaskHistory, hide: Callable[[str], str]) -> Iterator[TimelineEntry]:
    for stored in history.callbacks:
        repeats = f", received {stored.repeats + 1} times" if stored.repeats else ""
        problem = f": {hide(stored.problem)[:MAX_ANSWER]}" if stored.problem else ""
        is_bad = stored.outcome in (Outcome.CONFLICT, Outcome.MISMATCH, Outcome.QUARANTINED)
        yield TimelineEntry(
            stored.callback.received_at,
            "message",
            MESSAGE_TITLES[stored.callback.source],
            f"{stored.outcome}{repeats}{problem}",
            BAD if is_bad else PLAIN,
            anchor=f"callback-{stored.id}",
        )


def _attempts(history: TaskHistory, hide: Callable[[str], str]) -> Iterator[TimelineEntry]:
    for delivery in history.deliveries:
        for attempt in history.attempts.get(delivery.id, ()):
            yield TimelineEntry(
                attempt.ended_at,
                "attempt",
                f"{delivery.hook}: attempt {attempt.number} {attempt.outcome}",
                hide(attempt.answer).strip()[:MAX_ANSWER],
                GOOD if attempt.outcome == "delivered" else BAD,
                duration=attempt.duration_ms,
                anchor=f"delivery-{delivery.id}",
            )


def _can_be_queried(history: TaskHistory) -> bool:
    """Return whether a response of the provider could change the task."""
    is_final = history.task.status in (Status.SUCCEEDED, Status.FAILED)
    is_certain = is_final and history.task.trust == "queried" and not history.task.conflict
    return history.forgotten_at is None and not is_certain

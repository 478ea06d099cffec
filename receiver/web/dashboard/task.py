"""The page of one task: its timeline, results, messages and deliveries, and the buttons."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flask import Blueprint, flash, g, request, url_for
from werkzeug.wrappers import Response

from receiver.deliveries import Delivery, State, evidence
from receiver.errors import NotAMismatch, NotFound, RequestRefused
from receiver.serializers.outputs import media_of, results
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Outcome
from receiver.text.display import json_readable, without_traceback
from receiver.web.api import ROW
from receiver.web.dashboard.messages import message
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.pictures import is_here, is_shown
from receiver.web.dashboard.responses import back, page
from receiver.web.dashboard.waiting import WaitReasons

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
    """One line of the timeline. Times are in milliseconds; `since_creation` is that of the task.

    `anchor` is the id of the element on the page that has the details. `at` is None for a step
    whose time is unknown.
    """

    at: int | None
    kind: str  # message, move, attempt, next
    title: str
    detail: str = ""
    tone: str = PLAIN
    duration: int | None = None  # of an attempt
    anchor: str | None = None
    since_creation: int | None = None


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page and its buttons."""
    store = context.store

    @routes.get("/tasks/<task_id>")
    def task(task_id: str) -> str:
        history = store.queries.history(task_id)
        last_message = store.queries.results([task_id]).get(task_id)
        pictures = store.queries.pictures([task_id]).get(task_id, [])
        found = results(media_of(last_message), pictures)
        reasons = WaitReasons.of(context.ingest, g.now)
        return page(
            "task",
            here="tasks",
            task=history.task,
            history=history,
            lines=timeline(history, context.hide),
            steps=next_steps(history, reasons),
            waits={delivery.id: reasons.wait(delivery) for delivery in history.deliveries},
            results=found,
            shown_whole={one.index for one in found if one.picture and is_shown(one.picture)},
            openable={one.index for one in found if one.picture and is_here(one.picture)},
            inputs=store.queries.names_of_inputs([task_id]).get(task_id, ()),
            messages=[message(stored, context.hide) for stored in history.messages],
            metadata=_readable(history.task.metadata),
            outputs={one.id: _readable(one.output) for one in history.deliveries},
            can_be_queried=_can_be_queried(history),
        )

    @routes.post("/tasks/<task_id>/ask")
    def query(task_id: str) -> Response:
        """Make the task due for a query, which the poller makes."""
        if not _can_be_queried(store.queries.history(task_id)):
            flash("Nothing was done: only an open task is reconciled, and this one has ended.")
            return back(page_of(task_id))
        store.polling.query_at(task_id, g.now)
        flash("The poller will query the provider now. The response appears on this page.")
        return back(page_of(task_id))

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
        default = page_of(task_id) if task_id else url_for("dashboard.quarantine")
        return back(default, f"callback-{callback_id}")

    @routes.post(f"/deliveries/<{ROW}:delivery_id>/redeliver")
    def redeliver(delivery_id: int) -> Response:
        delivery = store.queries.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            flash(f"Nothing was done: delivery {delivery_id} has not ended ({delivery.state}).")
            return back(page_of(delivery.task_id), f"delivery-{delivery_id}")
        try:
            store.outbox.redeliver(delivery_id, g.now, context.ingest.subscriptions)
            flash(f"Delivery {delivery_id} to {delivery.hook} is due again.")
        except NotFound as error:
            flash(f"Nothing was done: {error}.")
        return back(page_of(delivery.task_id), f"delivery-{delivery_id}")


def page_of(task_id: str) -> str:
    """Return the path of the task's page."""
    return url_for("dashboard.task", task_id=task_id)


def timeline(history: TaskHistory, hide: Callable[[str], str]) -> list[TimelineEntry]:
    """Return the events of the task in order. `hide` removes secrets from text of others."""
    entries = [*_moves(history), *_messages(history, hide), *_attempts(history, hide)]
    entries.sort(key=lambda entry: (entry.at or 0, _ORDER[entry.kind]))
    lines: list[TimelineEntry] = []
    for entry in entries:
        if lines and (joined := _joined(lines[-1], entry)):
            lines[-1] = joined
        else:
            since_creation = (entry.at or 0) - history.task.created_at if lines else None
            lines.append(replace(entry, since_creation=since_creation))
    return lines


def next_steps(history: TaskHistory, reasons: WaitReasons) -> list[TimelineEntry]:
    """Return expected events: attempts, ends of leases, and the next query."""
    steps = [step for delivery in history.deliveries if (step := _next_step(delivery, reasons))]
    deadline_at = history.task.deadline_at
    if deadline_at is not None:
        steps.append(TimelineEntry(deadline_at, "next", "Query to the provider", tone=NEXT))
    return sorted(steps, key=lambda step: (step.at is None, step.at or 0))


def _joined(message: TimelineEntry, move: TimelineEntry) -> TimelineEntry | None:
    """Return one line for a move and the message that caused it; None for any other pair."""
    is_cause = message.kind == "message" and message.detail == Outcome.RECORDED
    if not is_cause or move.kind != "move" or message.at != move.at:
        return None
    detail = f"{message.title}, {move.detail}" if move.detail else message.title
    anchor, since_creation = message.anchor, message.since_creation
    return replace(move, detail=detail, anchor=anchor, since_creation=since_creation)


def _next_step(delivery: Delivery, reasons: WaitReasons) -> TimelineEntry | None:
    wait = reasons.wait(delivery)
    if wait is None:
        return None
    is_running = delivery.state is State.CLAIMED
    number = delivery.attempts if is_running else delivery.attempts + 1
    detail = "until its lease expires" if is_running else wait.cause
    title, anchor = f"{delivery.hook}: attempt {number}", f"delivery-{delivery.id}"
    return TimelineEntry(wait.at, "next", title, detail, NEXT, anchor=anchor)


def _moves(history: TaskHistory) -> Iterator[TimelineEntry]:
    for move in history.transitions:
        tone = {"succeeded": GOOD, "failed": BAD, "given_up": BAD}.get(move.status, PLAIN)
        trust = evidence(history.task, move)
        detail = trust.text if trust else ""
        detail += ", corrected" if move.corrected else ""
        title = move.status.replace("_", " ").capitalize()
        yield TimelineEntry(move.recorded_at, "move", title, detail, tone)


def _messages(history: TaskHistory, hide: Callable[[str], str]) -> Iterator[TimelineEntry]:
    for stored in history.messages:
        repeats = f", received {stored.repeats + 1} times" if stored.repeats else ""
        problem = f": {hide(stored.problem)[:MAX_ANSWER]}" if stored.problem else ""
        is_bad = stored.outcome in (Outcome.CONFLICT, Outcome.MISMATCH, Outcome.QUARANTINED)
        yield TimelineEntry(
            stored.callback.received_at,
            "message",
            MESSAGE_TITLES[stored.callback.source],
            f"{stored.result}{repeats}{problem}",
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
                without_traceback(hide(attempt.answer)).strip()[:MAX_ANSWER],
                GOOD if attempt.outcome == "delivered" else BAD,
                duration=attempt.duration_ms,
                anchor=f"delivery-{delivery.id}",
            )


def _readable(document: Mapping[str, Any]) -> str:
    """Return an object as JSON; an empty string if it is empty, as after an erasure."""
    return json_readable(dict(document)) if document else ""


def _can_be_queried(history: TaskHistory) -> bool:
    """Return whether the task is open. Queries that settle a conflict are made automatically."""
    return history.forgotten_at is None and not history.task.status.is_terminal

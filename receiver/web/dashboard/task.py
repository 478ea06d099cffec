"""One task: its timeline, results, messages and deliveries, and what can be done about it."""

from __future__ import annotations

from flask import Blueprint, flash, g, request
from werkzeug.wrappers import Response as AnyResponse

from receiver.deliveries import State
from receiver.errors import NotAMismatch, NotFound, RequestRefused
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Status
from receiver.web.api import ROW
from receiver.web.dashboard.messages import message
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import back_to, page
from receiver.web.dashboard.results import media_of, results
from receiver.web.dashboard.timeline import next_steps, timeline


def install(routes: Blueprint, desk: PageContext) -> None:
    store = desk.store

    @routes.get("/tasks/<task_id>")
    def task(task_id: str) -> str:
        history = store.queries.history(task_id)
        told = store.queries.results([task_id]).get(task_id)
        found = results(media_of(told), store.queries.pictures([task_id]).get(task_id, []))
        return page(
            "task",
            here="tasks",
            task=history.task,
            history=history,
            lines=timeline(history, desk.hide),
            steps=next_steps(history),
            results=found,
            inputs=store.queries.names_of_inputs([task_id]).get(task_id, ()),
            messages=[message(stored, desk.hide) for stored in history.callbacks],
            may_be_asked=_may_be_asked(history),
            is_open=_is_open(history),
        )

    @routes.post("/tasks/<task_id>/ask")
    def ask(task_id: str) -> AnyResponse:
        """The poller asks the provider at once: this process asks nobody."""
        if not _may_be_asked(store.queries.history(task_id)):
            flash("Nothing was done: nothing more is asked about this task.")
            return back_to(task_id)
        store.polling.query_at(task_id, g.now)
        flash("The poller asks the provider now; the answer shows here.")
        return back_to(task_id)

    @routes.post(f"/callbacks/<{ROW}:callback_id>/replay")
    def replay(callback_id: int) -> AnyResponse:
        """Parse and record a message again, and optionally accept a mismatch."""
        task_id = store.queries.callback(callback_id).callback.task_id
        accept = bool(request.form.get("accept"))
        try:
            outcome = desk.ingest.replay(callback_id, accept=accept)
            flash(f"{'Accepted' if accept else 'Replayed'} message {callback_id}: {outcome}.")
        except RequestRefused as refusal:
            flash(f"Message {callback_id} is still not understood: {desk.hide(str(refusal))}")
        except (NotFound, NotAMismatch) as trouble:
            flash(f"Nothing was done: {trouble}.")
        return back_to(task_id)

    @routes.post(f"/deliveries/<{ROW}:delivery_id>/redeliver")
    def redeliver(delivery_id: int) -> AnyResponse:
        delivery = store.queries.delivery(delivery_id)
        if delivery.state not in (State.DELIVERED, State.DEAD):
            flash(f"Nothing was done: delivery {delivery_id} is {delivery.state}, not at its end.")
            return back_to(delivery.task_id)
        try:
            store.outbox.redeliver(delivery_id, g.now)
            flash(f"Delivery {delivery_id} to {delivery.hook} is due again.")
        except NotFound as gone:
            flash(f"Nothing was done: {gone}.")
        return back_to(delivery.task_id)


def _is_open(history: TaskHistory) -> bool:
    """Can something still change by itself?"""
    under_way = any(one.state in (State.PENDING, State.CLAIMED) for one in history.deliveries)
    return under_way or not history.task.status.is_terminal


def _may_be_asked(history: TaskHistory) -> bool:
    """Would the provider's answer change anything?"""
    is_final = history.task.status in (Status.SUCCEEDED, Status.FAILED)
    is_sure = is_final and history.task.trust == "queried" and not history.task.conflict
    return history.forgotten_at is None and not is_sure

"""Serializes the record for commands and the API. Add members, but never change existing ones."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.deliveries import Delivery, evidence, task_json
from receiver.serializers.outputs import history_media_json
from receiver.stores.sql.activity import Activity, Rejection
from receiver.stores.sql.rows import StoredCallback
from receiver.text.display import rfc3339

if TYPE_CHECKING:
    from receiver.stores.sql.endpoint_status import EndpointStatus
    from receiver.stores.sql.queries import TaskHistory


def delivery_json(delivery: Delivery, hooks: Collection[str] | None = None) -> dict[str, Any]:
    """Return a delivery. `hooks` contains the names in the hooks file; None if it was not read."""
    lacks_hook = None if hooks is None else delivery.lacks_hook(hooks)
    return {
        "id": delivery.id,
        "task": delivery.task_id,
        "status": delivery.status,
        "hook": delivery.hook,
        "state": delivery.state.value,
        "attempts": delivery.attempts,
        "after": delivery.after,
        "due_at": _instant(delivery.due_at),
        "ended_at": _instant(delivery.ended_at),
        "waits_for_missing_hook": lacks_hook,
        "output": dict(delivery.output),
    }


def callback_json(stored: StoredCallback) -> dict[str, Any]:
    """Return a stored callback, with its body as text, decompressed if necessary."""
    callback = stored.callback
    return {
        "id": stored.id,
        "task": callback.task_id,
        "provider": callback.provider,
        "source": callback.source.value,
        "trust": callback.trust.value,
        "outcome": stored.outcome.value,
        "repeats": stored.repeats,
        "problem": stored.problem,
        "received_at": rfc3339(callback.received_at),
        "headers": dict(callback.headers),
        "body": callback.readable.decode("utf-8", "replace"),
    }


def history_json(history: TaskHistory, hooks: Collection[str] | None = None) -> dict[str, Any]:
    """Return a task with its transitions, callbacks and deliveries; see also `delivery_json`."""
    task = history.task
    return {
        **task_json(task),
        "media": history_media_json(history),
        "callback_task_id": task.callback_task_id,
        "id_source": task.id_source,
        "trust": task.evidence,
        "conflict": task.conflict,
        "expects_callback": task.expects_callback,
        "queries": task.asked,
        "updated_at": rfc3339(task.updated_at),
        "deadline_at": _instant(task.deadline_at),
        "mismatched_at": _instant(task.mismatched_at),
        "forgotten_at": _instant(history.forgotten_at),
        "transitions": [
            {
                "status": move.status,
                "occurred_at": rfc3339(move.occurred_at),
                "recorded_at": rfc3339(move.recorded_at),
                "trust": evidence(task, move),
                "corrected": move.corrected,
            }
            for move in history.transitions
        ],
        "callbacks": [callback_json(stored) for stored in history.messages],
        "deliveries": [
            {
                **delivery_json(delivery, hooks),
                "answers": [
                    {
                        "number": attempt.number,
                        "started_at": rfc3339(attempt.started_at),
                        "ended_at": rfc3339(attempt.ended_at),
                        "outcome": attempt.outcome,
                        "answer": attempt.answer,
                    }
                    for attempt in history.attempts.get(delivery.id, ())
                ],
                "files": [file.url for file in history.files.get(delivery.id, ())],
            }
            for delivery in history.deliveries
        ],
    }


def endpoint_json(status: EndpointStatus) -> dict[str, Any]:
    """Return the state of a hook's endpoint. `failures` are those that its circuit breaker counts.

    `failed_in_a_row` also counts refused events, which have no effect on the circuit breaker.
    `held_by` is the limit that due deliveries wait for (`rate` or `concurrency`), and `next_at` the
    time at which the rate allows the next one.
    """
    endpoint, last = status.endpoint, status.last_attempt
    return {
        "hook": endpoint.hook,
        "circuit": status.circuit.value,
        "failures": endpoint.failures,
        "failing_since": _instant(endpoint.failing_since),
        "retry_at": _instant(endpoint.retry_at),
        "paused_at": _instant(endpoint.paused_at),
        "disabled_at": _instant(endpoint.disabled_at),
        "said": endpoint.said,
        "state": status.state,
        "failed_in_a_row": status.failures,
        "last_attempt_at": _instant(last.ended_at if last else None),
        "last_response": status.last_response,
        "rate": None if status.limits.rate is None else str(status.limits.rate),
        "concurrency": status.limits.concurrency,
        "held_by": None if status.held is None else status.held.used_up,
        "next_at": _instant(status.next_at),
    }


def hook_json(entry: HookEntry, problems: Sequence[str]) -> dict[str, Any]:
    """Return an entry of the hooks file and its problems.

    Its options are left out, because they contain secrets.
    """
    subscription = entry.subscription
    wait_ms = subscription.wait_ms if subscription.after is not None else None
    rate, concurrency = entry.limits.rate, entry.limits.concurrency
    pacing = {
        "retry": None if entry.retry is None else list(entry.retry),  # seconds
        "retry_for": entry.retry_for,  # seconds
        "rate": None if rate is None else str(rate),
        "concurrency": concurrency,
    }
    return {
        "hook": entry.name,
        "type": entry.type,
        "on": [status for status in HEARABLE if status in subscription.on],
        "providers": sorted(subscription.providers),
        "match": subscription.match,
        "where": {} if subscription.where is None else subscription.where.as_json(),
        "after": subscription.after,
        **({} if wait_ms is None else {"wait_for_files": wait_ms / 1000}),  # seconds
        "alerts": entry.alerts,
        **{name: value for name, value in pacing.items() if value is not None},
        "problems": list(problems),
    }


def activity_json(activity: Activity) -> dict[str, Any]:
    """Return one entry of the activity, such as a callback or an attempt."""
    return {
        "at": rfc3339(activity.at),
        "event": activity.kind.value,
        "task": activity.task_id,
        "provider": activity.provider,
        "account": activity.account,
        "reference": activity.reference,
        "outcome": activity.outcome,
        "status": activity.status,
        "hook": activity.hook,
        "said": activity.said,
    }


def rejection_json(rejection: Rejection) -> dict[str, Any]:
    """Return a rejected request. Its path contains no token."""
    return {**asdict(rejection), "at": rfc3339(rejection.at)}


def _instant(instant: int | None) -> str | None:
    return None if instant is None else rfc3339(instant)

"""Rows of the record as our values, and back; the same columns in every store."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from receiver.deliveries import Attempt, Delivery, File, State, Transition
from receiver.endpoints import Alert, AlertKind, Endpoint
from receiver.events import Callback, Source
from receiver.stores.base import IdempotencyRecord, StoredCallback, StoredResponse, TimeRange
from receiver.stores.hook_tests import HookTest, HookTestOutcome
from receiver.stores.upkeep import Rejection
from receiver.tasks import IdSource, Outcome, Status, Task, Trust
from receiver.text import display

T = TypeVar("T")


class Row(Protocol):
    """What both database drivers give: values by column name."""

    def __getitem__(self, name: str, /) -> Any: ...


def task(row: Row) -> Task:
    return Task(
        id=row["id"],
        provider=row["provider"],
        status=Status(row["status"]),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        account=row["account"],
        provider_task_id=row["provider_task_id"],
        callback_task_id=row["callback_task_id"],
        id_source=None if row["id_source"] is None else IdSource(row["id_source"]),
        reference=row["reference"],
        trust=Trust(row["trust"]),
        reason=row["reason"],
        cost=row["cost"],
        cost_unit=row["cost_unit"],
        conflict=bool(row["conflict"]),
        expects_callback=bool(row["expects_callback"]),
        asked=row["asked"],
        deadline_at=row["deadline_at"],
        given_up_at=row["given_up_at"],
        mismatched_at=row["mismatched_at"],
    )


def callback(row: Row) -> StoredCallback:
    return StoredCallback(
        id=row["id"],
        callback=Callback(
            provider=row["provider"],
            task_id=row["task_id"],
            body=bytes(row["body"]),
            received_at=row["received_at"],
            headers=_headers(row["headers"]),
            source=Source(row["source"]),
            trust=Trust(row["trust"]),
        ),
        outcome=Outcome(row["outcome"]),
        repeats=row["repeats"],
        problem=row["problem"],
    )


def _headers(text: str) -> dict[str, str]:
    """The headers of a message; none if they cannot be read."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {display.storable(name): display.storable(str(value)) for name, value in found.items()}


def transition(row: Row) -> Transition:
    return Transition(
        status=row["status"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        trust=Trust(row["trust"]),
        corrected=bool(row["corrected"]),
        revision=row["revision"],
    )


def delivery(row: Row) -> Delivery:
    return Delivery(
        id=row["id"],
        task_id=row["task_id"],
        status=row["status"],
        hook=row["hook"],
        state=State(row["state"]),
        attempts=row["attempts"],
        retries_from=row["retries_from"],
        due_at=row["due_at"],
        after=row["after"],
        ended_at=row["ended_at"],
    )


def by_id(delivery: Delivery) -> int:
    return delivery.id


def attempt(row: Row) -> Attempt:
    return Attempt(
        number=row["number"],
        started_at=row["started_at"],
        ended_at=row["ended_at"],
        outcome=row["outcome"],
        answer=row["answer"],
    )


def of_attempt(attempt: Attempt) -> tuple[Any, ...]:
    return (attempt.number, attempt.started_at, attempt.ended_at, attempt.outcome, attempt.answer)


def file(row: Row) -> File:
    return File(
        media_index=row["media_index"],
        url=row["url"],
        sha256=row["sha256"],
        size=row["size"],
        content_type=row["content_type"],
        thumbnail=None if row["thumbnail"] is None else bytes(row["thumbnail"]),
    )


def of_file(file: File) -> tuple[Any, ...]:
    return (
        file.media_index,
        file.url,
        file.sha256,
        file.size,
        file.content_type,
        file.thumbnail,
    )


def kept(row: Row) -> IdempotencyRecord:
    answered = row["status"] is not None
    return IdempotencyRecord(
        key=row["key"],
        digest=bytes(row["digest"]),
        task_id=row["task"],
        held_until=row["held_until"],
        answer=StoredResponse(row["status"], row["answer"]) if answered else None,
    )


def endpoint(row: Row, hook: str) -> Endpoint:
    """The endpoint of this hook; columns that are null say that nothing is known."""
    return Endpoint(
        hook=hook,
        failures=row["failures"] or 0,
        failing_since=row["failing_since"],
        openings=row["openings"] or 0,
        retry_at=row["retry_at"],
        paused_at=row["paused_at"],
        disabled_at=row["disabled_at"],
        said=row["said"] or "",
        timed_out=bool(row["timed_out"]),
    )


def of_endpoint(endpoint: Endpoint) -> tuple[Any, ...]:
    return (
        endpoint.hook,
        endpoint.failures,
        endpoint.failing_since,
        endpoint.openings,
        endpoint.retry_at,
        endpoint.paused_at,
        endpoint.disabled_at,
        endpoint.said,
        int(endpoint.timed_out),
    )


def alert(row: Row) -> Alert:
    return Alert(row["id"], row["hook"], AlertKind(row["kind"]), row["at"], row["said"])


def trial(row: Row) -> HookTest:
    return HookTest(
        hook=row["hook"],
        status=row["status"],
        asked_at=row["asked_at"],
        tries=row["tries"],
        ended_at=row["ended_at"],
        outcome=None if row["outcome"] is None else HookTestOutcome(row["outcome"]),
        answer=row["answer"],
    )


def rejection(row: Row) -> Rejection:
    return Rejection(
        row["at"], row["address"], row["reason"], row["method"], row["path"], row["count"]
    )


def of_rejection(found: Rejection) -> tuple[Any, ...]:
    return (found.at, found.address, found.reason, found.method, found.path, found.count)


def grouped(found: Iterable[Row], make: Callable[[Row], T]) -> dict[int, tuple[T, ...]]:
    """The rows as values, by the delivery they belong to."""
    groups: dict[int, list[T]] = {}
    for row in found:
        groups.setdefault(row["delivery"], []).append(make(row))
    return {delivery: tuple(values) for delivery, values in groups.items()}


def filters(**wanted: object) -> tuple[str, list[object]]:
    """A WHERE clause and its values for the columns that are wanted to equal something."""
    given: Mapping[str, object] = {k: v for k, v in wanted.items() if v is not None}
    return " and ".join(f"{column} = ?" for column in given) or "1 = 1", list(given.values())


def within(column: str, span: TimeRange) -> tuple[str, list[object]]:
    """What a WHERE clause goes on with for a column that lies in the span, and its values."""
    bounds = {f"{column} >= ?": span.since, f"{column} < ?": span.until}
    given = {condition: value for condition, value in bounds.items() if value is not None}
    return "".join(f" and {condition}" for condition in given), list(given.values())


def any_of(column: str, values: Sequence[object]) -> str:
    return f"{column} in ({', '.join('?' * len(values)) or 'null'})"

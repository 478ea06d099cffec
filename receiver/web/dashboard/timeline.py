"""What happened to one task, in order, with the times between; and what comes next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from receiver.deliveries import Delivery, State
from receiver.stores.sql.queries import TaskHistory
from receiver.tasks import Outcome

GOOD, BAD, PLAIN, NEXT = "good", "bad", "plain", "next"
SAID = 300  # characters of an answer
TITLES = {
    "callback": "Callback",
    "create": "Answer to the create",
    "query": "Answer when asked",
}
_ORDER = {"message": 0, "move": 1, "attempt": 2}  # of what has the same millisecond


@dataclass(frozen=True, slots=True)
class TimelineEntry:
    """One line. `gap`: ms since the line before."""

    at: int
    kind: str  # message, move, attempt, next
    title: str
    detail: str = ""
    tone: str = PLAIN
    lasted: int | None = None  # ms, of an attempt
    anchor: str | None = None  # the part of the page that tells more
    gap: int | None = None


def timeline(history: TaskHistory, hide: Callable[[str], str]) -> list[TimelineEntry]:
    """From the first line to the last; `hide` takes the secrets out of what others said."""
    happened = [*_moves(history), *_messages(history, hide), *_attempts(history, hide)]
    happened.sort(key=lambda moment: (moment.at, _ORDER[moment.kind]))
    lines: list[TimelineEntry] = []
    for moment in happened:
        if lines and (both := _joined(lines[-1], moment)):
            lines[-1] = both
        else:
            gap = moment.at - lines[-1].at if lines else None
            lines.append(replace(moment, gap=gap))
    return lines


def next_steps(history: TaskHistory) -> list[TimelineEntry]:
    """What is still to come, as far as it is known."""
    steps = [_step(delivery) for delivery in history.deliveries]
    task = history.task
    if task.deadline_at is not None:
        words = "The provider is asked how it stands"
        steps.append(TimelineEntry(task.deadline_at, "next", words, tone=NEXT))
    return sorted((step for step in steps if step is not None), key=lambda step: step.at)


def _joined(message: TimelineEntry, move: TimelineEntry) -> TimelineEntry | None:
    """A move and the message that brought it are one line."""
    brought = message.kind == "message" and message.detail == Outcome.RECORDED
    if not brought or move.kind != "move" or message.at != move.at:
        return None
    detail = f"{message.title}, {move.detail}" if move.detail else message.title
    return replace(move, detail=detail, anchor=message.anchor, gap=message.gap)


def _step(delivery: Delivery) -> TimelineEntry | None:
    anchor = f"delivery-{delivery.id}"
    if delivery.state is State.CLAIMED and delivery.due_at is not None:
        title = f"{delivery.hook}: attempt {delivery.attempts} is under way"
        return TimelineEntry(delivery.due_at, "next", title, "its lease ends", NEXT, anchor=anchor)
    if delivery.state is State.PENDING and delivery.due_at is not None:
        title = f"{delivery.hook}: attempt {delivery.attempts + 1} is due"
        return TimelineEntry(delivery.due_at, "next", title, "", NEXT, anchor=anchor)
    return None


def _moves(history: TaskHistory) -> Iterator[TimelineEntry]:
    for move in history.transitions:
        tone = {"succeeded": GOOD, "failed": BAD, "given_up": BAD}.get(move.status, PLAIN)
        rests = "" if move.status == "created" else f"rests on: {move.trust}"
        more = f"{rests}, corrected" if move.corrected else rests
        title = move.status.replace("_", " ").capitalize()
        yield TimelineEntry(move.recorded_at, "move", title, more, tone)


def _messages(history: TaskHistory, hide: Callable[[str], str]) -> Iterator[TimelineEntry]:
    for stored in history.callbacks:
        again = f", came {stored.repeats + 1} times" if stored.repeats else ""
        problem = f": {hide(stored.problem)[:SAID]}" if stored.problem else ""
        detail = f"{stored.outcome}{again}{problem}"
        odd = stored.outcome in (Outcome.CONFLICT, Outcome.MISMATCH, Outcome.QUARANTINED)
        yield TimelineEntry(
            stored.callback.received_at,
            "message",
            TITLES[stored.callback.source],
            detail,
            BAD if odd else PLAIN,
            anchor=f"callback-{stored.id}",
        )


def _attempts(history: TaskHistory, hide: Callable[[str], str]) -> Iterator[TimelineEntry]:
    for delivery in history.deliveries:
        for attempt in history.attempts.get(delivery.id, ()):
            yield TimelineEntry(
                attempt.ended_at,
                "attempt",
                f"{delivery.hook}: attempt {attempt.number} {attempt.outcome}",
                hide(attempt.answer).strip()[:SAID],
                GOOD if attempt.outcome == "delivered" else BAD,
                lasted=attempt.duration_ms,
                anchor=f"delivery-{delivery.id}",
            )

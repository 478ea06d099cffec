"""The first page: how it stands, what needs somebody, and the last 24 hours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from flask import Blueprint, g
from markupsafe import Markup

from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.processes import current_hooks
from receiver.processes.clock_watch import recent_step
from receiver.stores.base import Store
from receiver.stores.sql.metrics import (
    CALLBACKS_MISSED,
    HOUR,
    OVERDUE_COUNTED,
    HourCount,
    TaskCount,
    without_hook,
)
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task
from receiver.text.display import redacted, rfc3339
from receiver.web.dashboard import drawings
from receiver.web.dashboard.drawings import Bar, Quantiles
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import page
from receiver.web.health import is_worker_seen

SHOWN_HOURS = 24
NEWEST = 6  # results shown as pictures
CIRCUITS = {
    Circuit.OPEN: "keeps failing, and is left alone for a while",
    Circuit.HALF_OPEN: "kept failing, and is being tried",
    Circuit.PAUSED: "is paused by hand",
    Circuit.DISABLED: "is disabled: its endpoint is gone",
}
CORRECTED = "retries, leases and deadlines were moved with it; check the time synchronisation"
OPEN = (Status.CREATED, Status.SUBMITTED, Status.PROCESSING)


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """How one provider stands; all of them together: the totals."""

    provider: str
    open: int
    succeeded: int
    failed: int
    given_up: int
    missed: int
    last_callback_at: int | None


@dataclass(frozen=True, slots=True)
class Attention:
    """Something that needs a person: what, and the page that helps."""

    text: str
    endpoint: str
    link: str


@dataclass(frozen=True, slots=True)
class Day:
    """The last 24 hours, drawn."""

    callbacks: Markup
    ends: Markup
    latency: Markup
    table: Sequence[tuple[str, int, int, int, str, str]]


def install(routes: Blueprint, desk: PageContext) -> None:
    @routes.get("/")
    def overview() -> str:
        store = desk.store
        providers = rows(store)
        backlog = store.metrics.backlog(g.now, desk.hooks)
        oldest = backlog.oldest_due_at
        return page(
            "overview",
            here="overview",
            providers=providers,
            total=total(providers),
            overdue=store.metrics.overdue_count(g.now),
            overdue_counted=OVERDUE_COUNTED,
            backlog_age=None if oldest is None else (g.now - oldest) / 1000,
            due=backlog.due,
            attention=list(attention(store, desk.hooks, g.now, desk.hide)),
            day=day(desk, store.metrics.hours(g.now // HOUR - SHOWN_HOURS + 1)),
            newest=newest(store),
        )


def rows(store: Store) -> list[ProviderRow]:
    """One for each provider of which something is on record."""
    missed = {
        one.provider: one.value for one in store.metrics.counters() if one.name == CALLBACKS_MISSED
    }
    last, counts = store.metrics.last_callbacks(), store.metrics.task_counts()
    names = sorted({one.provider for one in counts} | set(last) | set(missed))
    return [_row(name, counts, missed.get(name, 0), last.get(name)) for name in names]


def total(found: Sequence[ProviderRow]) -> ProviderRow:
    return ProviderRow(
        "all",
        sum(row.open for row in found),
        sum(row.succeeded for row in found),
        sum(row.failed for row in found),
        sum(row.given_up for row in found),
        sum(row.missed for row in found),
        max((row.last_callback_at for row in found if row.last_callback_at), default=None),
    )


def attention(
    store: Store, hooks: Sequence[str], now: int, hide: Callable[[str], str] = redacted
) -> Iterator[Attention]:
    """Yield the problems that need an operator. `hooks`: the names in the hooks file."""
    if not is_worker_seen(store, now):
        text = (
            "No worker is at work: callbacks are taken, but nothing is delivered. "
            "Start receiver serve, or receiver worker."
        )
        yield Attention(text, "deliveries", "Deliveries")
    rejected = current_hooks.processes_by_problem(current_hooks.rejections(store, now))
    for problem, who in rejected.items():
        text = (
            f"The hooks file was rejected by {who}; the previous one is used: {hide(problem)}. "
            "Correct it, and send SIGHUP again."
        )
        yield Attention(text, "endpoints", "Endpoints")
    unfinished = store.erasures.unfinished()
    if unfinished is not None:
        text = (
            f"Data erased since {rfc3339(unfinished.since)} is still in the database's files: "
            f"{unfinished.held_by}. A worker finishes the erasure once that reader ends."
        )
        yield Attention(text, "overview", "Overview")
    if step := recent_step(store, now):
        yield Attention(f"{step.text.capitalize()}: {CORRECTED}.", "deliveries", "Deliveries")
    for endpoint in store.endpoints.all():
        circuit = endpoint.circuit(now)
        if circuit is not Circuit.CLOSED:
            text = f"The hook {endpoint.hook} {CIRCUITS[circuit]}."
            yield Attention(text, "endpoints", "Endpoints")
    counts = store.metrics.delivery_counts()
    for hook, number in without_hook(counts, hooks).items():
        wait = "1 delivery waits" if number == 1 else f"{number} deliveries wait"
        text = f"{wait}, because the hook {hook} is not in the hooks file."
        yield Attention(text, "endpoints", "Endpoints")
    dead = sum(one.value for one in counts if one.state == State.DEAD)
    if dead:
        letters = "1 dead letter waits" if dead == 1 else f"{dead} dead letters wait"
        yield Attention(f"{letters} for a decision.", "dead", "Dead letters")


def newest(store: Store) -> list[tuple[Task, Picture]]:
    """The newest results that have a thumbnail."""
    page = store.lists.page_of_tasks(status=(Status.SUCCEEDED,), before=None, limit=2 * NEWEST)
    found = store.queries.pictures([task.id for task in page.rows])
    shown = [
        (task, next((one for one in found.get(task.id, ()) if one.has_thumbnail), None))
        for task in page.rows
    ]
    return [(task, picture) for task, picture in shown if picture is not None][:NEWEST]


def day(desk: PageContext, found: Sequence[HourCount]) -> Day:
    """The charts, and the same as a table for whoever cannot see them."""
    last = g.now // HOUR
    hours = range(last - SHOWN_HOURS + 1, last + 1)
    counts: Counter[tuple[int, str]] = Counter()
    latency: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for one in found:  # also of hours still to come, if the clock was ahead: none of them is drawn
        if one.series == "latency":
            latency[one.hour][one.bucket] += one.value
        else:
            counts[one.hour, one.series] += one.value
    names = [desk.formats.hour(hour) for hour in hours]
    quantiles = [Quantiles.of(latency[hour]) for hour in hours]
    came = [counts[hour, "callbacks"] for hour in hours]
    good = [counts[hour, "succeeded"] for hour in hours]
    bad = [counts[hour, "failed"] for hour in hours]
    told = [(drawings.within(one.half), drawings.within(one.most)) for one in quantiles]
    return Day(
        callbacks=drawings.bars("Callbacks per hour", names, [Bar("callbacks", came)]),
        ends=drawings.bars(
            "Results per hour", names, [Bar("succeeded", good), Bar("failed", bad, is_hatched=True)]
        ),
        latency=drawings.latency("Callback latency", names, quantiles),
        table=[
            (name, *numbers, *words)
            for name, numbers, words in zip(
                names, zip(came, good, bad, strict=True), told, strict=True
            )
        ],
    )


def _row(provider: str, counts: Sequence[TaskCount], missed: int, last: int | None) -> ProviderRow:
    of = {one.status: one.value for one in counts if one.provider == provider}
    return ProviderRow(
        provider,
        open=sum(of.get(status, 0) for status in OPEN),
        succeeded=of.get("succeeded", 0),
        failed=of.get("failed", 0),
        given_up=of.get("given_up", 0),
        missed=missed,
        last_callback_at=last,
    )

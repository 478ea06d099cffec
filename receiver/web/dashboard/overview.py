"""The first page: the figures, what needs attention, and the last 24 hours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, g

from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.processes import current_hooks
from receiver.processes.clock_watch import recent_step
from receiver.stores.base import Store
from receiver.stores.sql import metrics
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task
from receiver.text.display import redacted, rfc3339
from receiver.web.dashboard import charts
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import page
from receiver.web.dashboard.tasks import OPEN
from receiver.web.health import is_worker_seen

HOURS = 24
MAX_PICTURES = 6
CIRCUITS = {
    Circuit.OPEN: "keeps failing, so nothing is sent to it for a while",
    Circuit.HALF_OPEN: "kept failing, and is being tested",
    Circuit.PAUSED: "is paused by an operator",
    Circuit.DISABLED: "is disabled, because its endpoint is gone",
}
CORRECTED = "retries, leases and deadlines were moved with it; check the time synchronisation"


@dataclass(frozen=True, slots=True)
class ProviderRow:
    """The figures of one provider, or the totals of all."""

    provider: str
    open: int
    succeeded: int
    failed: int
    given_up: int
    missed: int
    last_callback_at: int | None


@dataclass(frozen=True, slots=True)
class Attention:
    """A problem that needs an operator, and the page that helps."""

    text: str
    endpoint: str
    link: str


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page."""

    @routes.get("/")
    def overview() -> str:
        store = context.store
        providers = _provider_rows(store)
        backlog = store.metrics.backlog(g.now, context.hooks)
        oldest = backlog.oldest_due_at
        return page(
            "overview",
            here="overview",
            providers=providers,
            total=_total(providers),
            overdue=store.metrics.overdue_count(g.now),
            overdue_counted=metrics.OVERDUE_COUNTED,
            backlog_age=None if oldest is None else (g.now - oldest) / 1000,
            due=backlog.due,
            attention=list(attention(store, context.hooks, g.now, context.hide)),
            day=_day(context, store.metrics.hours(g.now // metrics.HOUR - HOURS + 1)),
            newest=_newest_pictures(store),
        )


def _provider_rows(store: Store) -> list[ProviderRow]:
    """Return a row for each provider that is on record."""
    missed = {
        one.provider: one.value
        for one in store.metrics.counters()
        if one.name == metrics.CALLBACKS_MISSED
    }
    last, counts = store.metrics.last_callbacks(), store.metrics.task_counts()
    names = sorted({count.provider for count in counts} | set(last) | set(missed))
    rows = []
    for name in names:
        tasks = Counter({count.status: count.value for count in counts if count.provider == name})
        row = ProviderRow(
            name,
            open=sum(tasks[status] for status in OPEN),
            succeeded=tasks["succeeded"],
            failed=tasks["failed"],
            given_up=tasks["given_up"],
            missed=missed.get(name, 0),
            last_callback_at=last.get(name),
        )
        rows.append(row)
    return rows


def _total(rows: Sequence[ProviderRow]) -> ProviderRow:
    return ProviderRow(
        "all",
        sum(row.open for row in rows),
        sum(row.succeeded for row in rows),
        sum(row.failed for row in rows),
        sum(row.given_up for row in rows),
        sum(row.missed for row in rows),
        max((row.last_callback_at for row in rows if row.last_callback_at), default=None),
    )


def attention(
    store: Store, hooks: Sequence[str], now: int, hide: Callable[[str], str] = redacted
) -> Iterator[Attention]:
    """Yield the problems that need an operator. `hooks` are the names in the hooks file."""
    if not is_worker_seen(store, now):
        text = (
            "No worker is running: callbacks are recorded, but nothing is delivered. "
            "Start receiver serve, or receiver worker."
        )
        yield Attention(text, "deliveries", "Deliveries")
    rejected = current_hooks.processes_by_problem(current_hooks.rejections(store, now))
    for problem, processes in rejected.items():
        text = (
            f"The hooks file was rejected by {processes}; the previous one is used: "
            f"{hide(problem)}. Correct it, and send SIGHUP again."
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
    for hook, number in metrics.without_hook(counts, hooks).items():
        wait = "1 delivery waits" if number == 1 else f"{number} deliveries wait"
        text = f"{wait}, because the hook {hook} is not in the hooks file."
        yield Attention(text, "endpoints", "Endpoints")
    dead = sum(one.value for one in counts if one.state == State.DEAD)
    if dead:
        text = "There is 1 dead letter." if dead == 1 else f"There are {dead} dead letters."
        yield Attention(text, "dead", "Dead letters")


def _newest_pictures(store: Store) -> list[tuple[Task, Picture]]:
    """Return the newest results that have a thumbnail."""
    newest = store.lists.page_of_tasks(
        status=(Status.SUCCEEDED,), before=None, limit=2 * MAX_PICTURES
    )
    pictures = store.queries.pictures([task.id for task in newest.rows])
    candidates = [
        (task, next((one for one in pictures.get(task.id, ()) if one.has_thumbnail), None))
        for task in newest.rows
    ]
    return [(task, picture) for task, picture in candidates if picture][:MAX_PICTURES]


def _day(context: PageContext, hour_counts: Sequence[metrics.HourCount]) -> dict[str, Any]:
    """Draw the charts, and return the same figures as a table for people who cannot see them."""
    last = g.now // metrics.HOUR
    hours = range(last - HOURS + 1, last + 1)
    counts: Counter[tuple[int, str]] = Counter()
    latency: defaultdict[int, Counter[int]] = defaultdict(Counter)
    for one in hour_counts:  # also of future hours, if the clock was ahead: these are not drawn
        if one.series == "latency":
            latency[one.hour][one.bucket] += one.value
        else:
            counts[one.hour, one.series] += one.value
    names = [context.formats.hour(hour) for hour in hours]
    quantiles = [charts.Quantiles.of(latency[hour]) for hour in hours]
    callbacks = [counts[hour, "callbacks"] for hour in hours]
    succeeded = [counts[hour, "succeeded"] for hour in hours]
    failed = [counts[hour, "failed"] for hour in hours]
    latencies = [(charts.within(one.median), charts.within(one.p95)) for one in quantiles]
    return {
        "callbacks": charts.bars(
            "Callbacks per hour", names, [charts.BarSeries("callbacks", callbacks)]
        ),
        "results": charts.bars(
            "Results per hour",
            names,
            [
                charts.BarSeries("succeeded", succeeded),
                charts.BarSeries("failed", failed, is_hatched=True),
            ],
        ),
        "latency": charts.latency("Callback latency", names, quantiles),
        "table": [
            (name, *numbers, *texts)
            for name, numbers, texts in zip(
                names, zip(callbacks, succeeded, failed, strict=True), latencies, strict=True
            )
        ],
    }

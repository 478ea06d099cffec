"""The first page: the figures, what needs attention, and the last 24 hours."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, g

from receiver.deliveries import State
from receiver.stores.base import Store
from receiver.stores.sql import metrics
from receiver.stores.sql.queries import Picture
from receiver.tasks import Status, Task
from receiver.web.dashboard import charts
from receiver.web.dashboard.page_context import PageContext
from receiver.web.dashboard.responses import page
from receiver.web.dashboard.results import thumbnail_of
from receiver.web.dashboard.tasks import OPEN

HOURS = 24
MAX_PICTURES = 6


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


def install(routes: Blueprint, context: PageContext) -> None:
    """Serve the page."""

    @routes.get("/")
    def overview() -> str:
        store = context.store
        providers = _provider_rows(store)
        backlog = store.metrics.backlog(g.now, context.hooks, context.ingest.limits)
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
            held=backlog.held,
            pending=sum(
                one.value for one in store.metrics.delivery_counts() if one.state == State.PENDING
            ),
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


def _newest_pictures(store: Store) -> list[tuple[Task, Picture]]:
    """Return the newest results that have a thumbnail."""
    newest = store.lists.page_of_tasks(
        status=(Status.SUCCEEDED,), before=None, limit=2 * MAX_PICTURES
    )
    pictures = store.queries.pictures([task.id for task in newest.rows])
    candidates = [(task, thumbnail_of(pictures.get(task.id, ()))) for task in newest.rows]
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

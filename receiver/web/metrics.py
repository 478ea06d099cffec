"""`GET /metrics`: the counts of all processes and the state of the record, for Prometheus.

Every web process serves the rows to which all processes flush their counts. Therefore, a counter
never decreases, and the worker and the poller need no port.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import structlog
from flask import Blueprint, Response
from prometheus_client import generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from receiver import __version__, providers
from receiver.clock import now_ms
from receiver.endpoints import Circuit
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer, MetricDefinition, MetricType
from receiver.processes import current_hooks
from receiver.processes.clock_watch import ClockWatch
from receiver.serializers.route_spec import RouteSpec, described
from receiver.stores.base import Store
from receiver.stores.sql.metrics import without_hook
from receiver.text import display
from receiver.web.debounce import Debouncer
from receiver.web.health import name_of_this_process

PROCESSES = ("web", "worker", "poller")
PER_PROVIDER = (metrics.TASKS_OPEN, metrics.TASKS_AWAITED, metrics.TASKS_OVERDUE)
Values = dict[tuple[str, ...], float]
log = structlog.get_logger()


def flush_regularly(meter: MetricBuffer, store: Store, watch: ClockWatch) -> Debouncer:
    """Return a debouncer that flushes the buffer; the caller schedules it after counting.

    Each flush also compares the clock with that of the record.
    """

    def flush() -> None:
        try:
            watch.look()
            meter.flush(store.metrics.add)
        except StoreUnavailable as error:
            log.warning("metrics could not be flushed; they are flushed later", error=str(error))
            meter.store_failed()

    return Debouncer(flush, metrics.FLUSH_INTERVAL)


def blueprint(ingest: Ingest) -> Blueprint:
    """Return the route `/metrics`."""
    routes = Blueprint("metrics", __name__)
    meter, store = ingest.meter, ingest.store
    name = name_of_this_process()

    def is_writable() -> bool:
        """Flush this process's metrics and record a heartbeat; return whether both succeeded."""
        try:
            meter.flush(store.metrics.add)
            store.activity.heartbeat(name, "web", now_ms())
        except StoreUnavailable as error:
            log.error("the record is unavailable", error=str(error))
            return False
        return True

    @routes.get("/metrics")
    @described(RouteSpec(answers={200: "text/plain"}))
    def metrics() -> Response:
        """All metrics, as text for Prometheus. Raises StoreUnavailable."""
        writable: Values = {(): float(is_writable())}
        text = generate_latest(_Collector([*_families(ingest, writable)]))
        return Response(text, content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


class _Collector(Collector):
    """Passes metric families to the Prometheus client."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(ingest: Ingest, writable: Values) -> Iterator[Metric]:
    """Yield each metric with all its values. The record is read first."""
    store, now = ingest.store, now_ms()
    values = _read(ingest, now)
    values |= _limits(ingest, now)
    missing = without_hook(store.metrics.delivery_counts(), ingest.hooks)
    values[metrics.WITHOUT_HOOK.name] = {(): sum(missing.values())}
    values[metrics.CIRCUIT_STATE.name] = _circuits(store, ingest.hooks, now)
    values[metrics.STORE_WRITABLE.name] = writable
    for sample in store.metrics.samples():
        labels = tuple(map(display.encodable, sample.labels))
        values[sample.name][labels] = sample.value
    for metric in metrics.ALL:
        # Another release may have had other labels.
        width = len(metric.labels) + (metric.kind is MetricType.HISTOGRAM)
        current = {key: value for key, value in values[metric.name].items() if len(key) == width}
        yield _family(metric, current)


def _read(ingest: Ingest, now: int) -> defaultdict[str, Values]:
    """Read values from the record, by metric. A provider without any rows has the value 0."""
    store = ingest.store
    values: defaultdict[str, Values] = defaultdict(dict)
    known: list[tuple[str, ...]] = [(name,) for name in sorted(providers.PROVIDERS)]
    for metric in (*PER_PROVIDER, *metrics.COUNTED.values()):
        values[metric.name] = dict.fromkeys(known, 0.0)
    values[metrics.VERIFICATION_FAILURES.name] = {(reason,): 0.0 for reason in metrics.REASONS}
    callers = [name for name in providers.PROVIDERS if providers.get(name).has_callbacks]
    values[metrics.LAST_CALLBACK.name] = {(name,): 0.0 for name in callers}  # 0 means never
    for tasks in store.metrics.open_tasks(now):
        values[metrics.TASKS_OPEN.name][tasks.provider,] = tasks.tasks
        values[metrics.TASKS_AWAITED.name][tasks.provider,] = tasks.awaited
        values[metrics.TASKS_OVERDUE.name][tasks.provider,] = tasks.overdue
    for counter in store.metrics.counters():
        if counter.name in metrics.COUNTED:
            values[metrics.COUNTED[counter.name].name][counter.provider,] = counter.value
    backlog = store.metrics.backlog(now, ingest.hooks, ingest.limits)
    oldest = backlog.oldest_due_at
    values[metrics.DELIVERIES_DUE.name] = {(): backlog.due - backlog.held}
    values[metrics.DELIVERIES_HELD.name] = {(): backlog.held}
    values[metrics.DELIVERIES_DEAD.name] = {(): backlog.dead}
    values[metrics.OLDEST_DUE.name] = {(): 0 if oldest is None else (now - oldest) / 1000}
    space = store.database.space()
    values[metrics.DATABASE_SIZE.name] = {(): space.used}
    if space.free is not None:
        values[metrics.DISK_FREE.name] = {(): space.free}
    seen: Values = {(kind,): (store.activity.last_seen(kind) or 0) / 1000 for kind in PROCESSES}
    values[metrics.PROCESS_SEEN.name] = seen
    values[metrics.LISTENERS.name] = {(): store.activity.listeners(now)}
    rejected = current_hooks.rejections(store, now)
    values[metrics.HOOKS_REJECTED.name] = {(kind,): float(kind in rejected) for kind in PROCESSES}
    values[metrics.BUILD.name] = {(__version__, platform.python_version()): 1}
    return values


def _circuits(store: Store, hooks: Iterable[str], now: int) -> Values:
    """Return the states of all hooks in the hooks file, and of others on record."""
    states = dict.fromkeys(hooks, Circuit.CLOSED)
    states |= {endpoint.hook: endpoint.circuit(now) for endpoint in store.endpoints.all()}
    return {
        (hook, state): float(state is current)
        for hook, current in states.items()
        for state in Circuit
    }


def _limits(ingest: Ingest, now: int) -> dict[str, Values]:
    """Return the limits of each hook that has any, and whether due deliveries wait for them."""
    held = ingest.store.outbox.held(ingest.limits, now)
    values: defaultdict[str, Values] = defaultdict(dict)
    for hook, limits in ingest.limits.items():
        used_up = held[hook].used_up if hook in held else None
        if limits.rate is not None:
            values[metrics.RATE_LIMIT.name][hook,] = limits.rate.per_second
            values[metrics.HELD_BY_LIMIT.name][hook, "rate"] = float(used_up == "rate")
        if limits.concurrency is not None:
            values[metrics.CONCURRENCY_LIMIT.name][hook,] = limits.concurrency
            is_full = float(used_up == "concurrency")
            values[metrics.HELD_BY_LIMIT.name][hook, "concurrency"] = is_full
    return values


def _family(metric: MetricDefinition, values: Values) -> Metric:
    name = metrics.PREFIX + metric.name
    if metric.kind is MetricType.HISTOGRAM:
        return _histogram(metric, values)
    family_class = CounterMetricFamily if metric.kind is MetricType.COUNTER else GaugeMetricFamily
    family = family_class(name, metric.help, labels=metric.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _histogram(metric: MetricDefinition, values: Values) -> Metric:
    """Return a histogram. Its buckets are cumulative; each stored row is for one bucket alone."""
    name = metrics.PREFIX + metric.name
    family = HistogramMetricFamily(name, metric.help, labels=metric.labels)
    bounds = [*(f"{bound:g}" for bound in metric.buckets), metrics.BEYOND]
    for labels in sorted({key[:-1] for key in values}):
        total, buckets = 0.0, []
        for bound in bounds:
            total += values.get((*labels, bound), 0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, values.get((*labels, metrics.SUM), 0))
    return family

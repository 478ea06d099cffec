"""`GET /metrics`: what every process counted, and how the record stands, for Prometheus.

Whichever web process answers, it shows the rows that all of them hand their counts over to; so a
counter never goes back, and the worker and the poller need no port.
"""

from __future__ import annotations

import platform
import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence

import structlog
from flask import Blueprint, Flask, Response, g, request
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from receiver import __version__, providers
from receiver.clock import now_ms
from receiver.endpoints import Circuit
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability import metrics
from receiver.observability.metric_buffer import BEYOND, EVERY, SUM, MetricBuffer
from receiver.observability.metrics import MetricDefinition, MetricType
from receiver.processes import current_hooks
from receiver.processes.clock_watch import ClockWatch
from receiver.serializers.route_spec import RouteSpec, described
from receiver.stores.base import Store
from receiver.stores.sql.metrics import without_hook
from receiver.text import display
from receiver.web.debounce import Debouncer
from receiver.web.health import name_of_this_process

PROCESSES = ("web", "worker", "poller")
OF_PROVIDERS = (metrics.TASKS_OPEN, metrics.TASKS_AWAITED, metrics.TASKS_OVERDUE)
Values = dict[tuple[str, ...], float]
log = structlog.get_logger()


def install(app: Flask, meter: MetricBuffer, store: Store, watch: ClockWatch) -> Debouncer:
    """Count responses. The caller asks the returned object to flush what it counts itself.

    Each flush also compares the clock with the record's.
    """

    def hand_over() -> None:
        try:
            watch.look()
            meter.flush(store.metrics.add)
        except StoreUnavailable as error:
            log.warning("what was counted is kept for later", error=str(error))
            meter.store_failed()

    def count_failure(unproven: str | None, store_failed: bool | None) -> None:
        if unproven:
            meter.count(metrics.VERIFICATION_FAILURES, unproven)
        if store_failed:
            meter.store_failed()

    later = Debouncer(hand_over, EVERY)

    @app.after_request
    def look(response: Response) -> Response:
        status, started = response.status_code, g.get("started")
        if started and request.blueprint == "callbacks":
            took = time.perf_counter() - started
            meter.observe(metrics.CALLBACK_SECONDS, took, str(status))
        if status >= 400:
            count_failure(g.get("unproven"), g.get("store_failed"))
        if meter.is_pending:
            later.ask()
        return response

    return later


def blueprint(ingest: Ingest) -> Blueprint:
    routes = Blueprint("metrics", __name__)
    meter, store = ingest.meter, ingest.store
    name = name_of_this_process()

    def is_writable() -> bool:
        """Could what this process counted be written just now, and a heartbeat?"""
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
        """Everything that is measured, as text for Prometheus. Raises StoreUnavailable."""
        writable: Values = {(): float(is_writable())}
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected([*_families(ingest, writable)]))
        return Response(generate_latest(registry), content_type=CONTENT_TYPE_PLAIN_0_0_4)

    return routes


class _Collected:
    """What a registry asks for its families."""

    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _families(ingest: Ingest, writable: Values) -> Iterator[Metric]:
    """Each measure with all its values; the record is read first."""
    store, now = ingest.store, now_ms()
    values = _read(store, ingest.hooks, now)
    missing = without_hook(store.metrics.delivery_counts(), ingest.hooks)
    values[metrics.WITHOUT_HOOK.name] = {(): sum(missing.values())}
    values[metrics.CIRCUIT_STATE.name] = _circuits(store, ingest.hooks, now)
    values[metrics.STORE_WRITABLE.name] = writable
    for reading in store.metrics.samples():
        labels = tuple(map(display.encodable, reading.labels))
        values[reading.name][labels] = reading.value
    for measure in metrics.ALL:
        # Another release may have had other labels.
        width = len(measure.labels) + (measure.kind is MetricType.HISTOGRAM)
        found = {key: value for key, value in values[measure.name].items() if len(key) == width}
        yield _family(measure, found)


def _read(store: Store, hooks: Collection[str], now: int) -> defaultdict[str, Values]:
    """What is read from the record. Providers without anything count nothing, not unknown."""
    found: defaultdict[str, Values] = defaultdict(dict)
    known: list[tuple[str, ...]] = [(name,) for name in sorted(providers.PROVIDERS)]
    for measure in (*OF_PROVIDERS, *metrics.COUNTED.values()):
        found[measure.name] = dict.fromkeys(known, 0.0)
    found[metrics.VERIFICATION_FAILURES.name] = {(reason,): 0.0 for reason in metrics.REASONS}
    callers = [name for name in providers.PROVIDERS if providers.get(name).has_callbacks]
    found[metrics.LAST_CALLBACK.name] = {(name,): 0.0 for name in callers}  # never
    for tasks in store.metrics.open_tasks(now):
        found[metrics.TASKS_OPEN.name][tasks.provider,] = tasks.tasks
        found[metrics.TASKS_AWAITED.name][tasks.provider,] = tasks.awaited
        found[metrics.TASKS_OVERDUE.name][tasks.provider,] = tasks.overdue
    for counter in store.metrics.counters():
        if counter.name in metrics.COUNTED:
            found[metrics.COUNTED[counter.name].name][counter.provider,] = counter.value
    backlog = store.metrics.backlog(now, hooks)
    oldest = backlog.oldest_due_at
    found[metrics.DELIVERIES_DUE.name] = {(): backlog.due - backlog.held}
    found[metrics.DELIVERIES_HELD.name] = {(): backlog.held}
    found[metrics.DELIVERIES_DEAD.name] = {(): backlog.dead}
    found[metrics.OLDEST_DUE.name] = {(): 0 if oldest is None else (now - oldest) / 1000}
    space = store.database.space()
    found[metrics.DATABASE_SIZE.name] = {(): space.used}
    if space.free is not None:
        found[metrics.DISK_FREE.name] = {(): space.free}
    seen: Values = {(kind,): (store.activity.last_seen(kind) or 0) / 1000 for kind in PROCESSES}
    found[metrics.PROCESS_SEEN.name] = seen
    rejected = current_hooks.rejections(store, now)
    found[metrics.HOOKS_REJECTED.name] = {(kind,): float(kind in rejected) for kind in PROCESSES}
    found[metrics.BUILD.name] = {(__version__, platform.python_version()): 1}
    return found


def _circuits(store: Store, hooks: Iterable[str], now: int) -> Values:
    """The states of all hooks in the hooks file, and of others that are on record."""
    states = dict.fromkeys(hooks, Circuit.CLOSED)
    states |= {endpoint.hook: endpoint.circuit(now) for endpoint in store.endpoints.all()}
    return {
        (hook, state): float(state is current)
        for hook, current in states.items()
        for state in Circuit
    }


def _family(measure: MetricDefinition, values: Values) -> Metric:
    name = metrics.PREFIX + measure.name
    if measure.kind is MetricType.HISTOGRAM:
        return _histogram(measure, values)
    made = CounterMetricFamily if measure.kind is MetricType.COUNTER else GaugeMetricFamily
    family = made(name, measure.help, labels=measure.labels)
    for labels, value in sorted(values.items()):
        family.add_metric(labels, value)
    return family


def _histogram(measure: MetricDefinition, values: Values) -> Metric:
    """Rows hold each bucket by itself; Prometheus wants each with those below it."""
    name = metrics.PREFIX + measure.name
    family = HistogramMetricFamily(name, measure.help, labels=measure.labels)
    bounds = [*(f"{bound:g}" for bound in measure.buckets), BEYOND]
    for labels in sorted({key[:-1] for key in values}):
        total, buckets = 0.0, []
        for bound in bounds:
            total += values.get((*labels, bound), 0)
            buckets.append((bound, total))
        family.add_metric(labels, buckets, values.get((*labels, SUM), 0))
    return family

"""The metrics by name, and the buffer in which a process accumulates them.

`/metrics` serves all of them, and docs/metrics.md describes them. A metric is either stored in rows
to which every process adds, or read from the record when `/metrics` is requested. Every label has
few values: a value that a stranger can choose never becomes a label.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from threading import Lock

from receiver.errors import StoreError

PREFIX = "callback_receiver_"
UNKNOWN = "unknown"  # for a hook missing from the hooks file, or a status that was not understood
SUM, BEYOND = "sum", "+Inf"  # instead of a bucket's upper bound
FLUSH_INTERVAL = 5.0  # seconds between two flushes of a buffer


class MetricType(StrEnum):
    """The types of Prometheus."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """A metric. `buckets` are the upper bounds of a histogram in seconds."""

    kind: MetricType
    name: str  # without the prefix, and without a counter's `_total`
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """The name that Prometheus uses."""
        return PREFIX + self.name + ("_total" if self.kind is MetricType.COUNTER else "")


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """A stored row. The labels of a histogram end with the bound of a bucket, or with `sum`."""

    name: str
    labels: tuple[str, ...]
    value: float


Key = tuple[str, tuple[str, ...]]
Save = Callable[[Sequence[Sample], Sequence[Sample]], None]
"""Adds the first samples to the stored ones; of each second sample, stores the greater value."""


class MetricBuffer:
    """Accumulates metrics in memory, to be flushed every 5 seconds, so that counting is cheap.

    Thread-safe. If the process is killed, counts since the last flush are lost.
    """

    def __init__(self, process: str = "other") -> None:
        self._process = process
        self._lock = Lock()
        self._added: defaultdict[Key, float] = defaultdict(float)
        self._newest: dict[Key, float] = {}
        self.store_failures = 0  # since the start of this process

    @property
    def is_pending(self) -> bool:
        """Whether there is anything to flush."""
        return bool(self._added or self._newest)

    def count(self, metric: MetricDefinition, *labels: str, by: float = 1) -> None:
        """Increase a counter."""
        with self._lock:
            self._added[metric.name, labels] += by

    def observe(self, metric: MetricDefinition, seconds: float, *labels: str) -> None:
        """Add an observation to a histogram."""
        seconds = max(seconds, 0.0)  # less if the clock was set back: a sum must not decrease
        place = bisect_left(metric.buckets, seconds)
        bound = f"{metric.buckets[place]:g}" if place < len(metric.buckets) else BEYOND
        with self._lock:
            self._added[metric.name, (*labels, bound)] += 1
            self._added[metric.name, (*labels, SUM)] += seconds

    def note(self, metric: MetricDefinition, value: float, *labels: str) -> None:
        """Set a gauge, unless its value is greater already. Used for timestamps."""
        key = (metric.name, labels)
        with self._lock:
            self._newest[key] = max(value, self._newest.get(key, value))

    def store_failed(self) -> None:
        """Count that the record was unavailable to this process."""
        self.store_failures += 1
        self.count(STORE_ERRORS, self._process)

    def flush(self, save: Save) -> None:
        """Store the counts. Raises StoreError; the counts are then kept."""
        with self._lock:
            added, self._added = self._added, defaultdict(float)
            newest, self._newest = self._newest, {}
        if not (added or newest):
            return
        try:
            save(_samples(added), _samples(newest))
        except StoreError:
            with self._lock:
                for key, value in added.items():
                    self._added[key] += value
                for key, value in newest.items():
                    self._newest[key] = max(value, self._newest.get(key, value))
            raise


def _samples(values: Mapping[Key, float]) -> list[Sample]:
    """Return the samples, sorted so that processes lock rows in the same order: no deadlocks."""
    return sorted(Sample(name, labels, value) for (name, labels), value in values.items())


_counter = partial(MetricDefinition, MetricType.COUNTER)
_gauge = partial(MetricDefinition, MetricType.GAUGE)
_histogram = partial(MetricDefinition, MetricType.HISTOGRAM)
QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0)

# Accumulated by a MetricBuffer.
CALLBACKS = _counter(
    "callbacks",
    "Callbacks that were accepted, by status and outcome.",
    ("provider", "status", "outcome"),
)
CALLBACK_SECONDS = _histogram(
    "callback_seconds",
    "Time from the arrival of a callback to its response, by the HTTP status of the response.",
    ("answer",),
    QUICK,
)
CALLBACK_LAG = _histogram(
    "callback_lag_seconds",
    "Time from the provider's updated_at to the arrival of a callback that moved its task.",
    ("provider",),
    SLOW,
)
LAST_CALLBACK = _gauge(
    "last_callback_timestamp_seconds", "When the latest callback was accepted.", ("provider",)
)
VERIFICATION_FAILURES = _counter(
    "verification_failures", "Requests without a valid token, signature or password.", ("reason",)
)
# Shown as 0 from the start, because Prometheus does not see the first value of a series as an
# increase.
REASONS = (
    "wrong_token",
    "unknown_provider",
    "no_secret",
    "unsigned",
    "wrong_signature",
    "stale_signature",
    "api_token",
    "dashboard_password",
)
QUESTIONS = _counter(
    "questions",
    "Queries of the poller to providers about overdue tasks, by result.",
    ("provider", "result"),
)
ATTEMPTS = _counter(
    "delivery_attempts",
    "Attempts at deliveries: delivered, due again (retry), or no longer retried (dead).",
    ("hook", "outcome"),
)
DELIVERY_SECONDS = _histogram(
    "delivery_seconds",
    "Time from the transition of a task to the end of its delivery, without redeliveries.",
    ("hook",),
    SLOW,
)
DOWNLOADS = _counter("downloads", "Files that hooks downloaded and stored.", ("hook",))
DOWNLOAD_BYTES = _counter(
    "download_bytes", "Bytes of the files that hooks downloaded and stored.", ("hook",)
)
STORE_ERRORS = _counter(
    "store_errors", "How many times the record was unavailable to a process.", ("process",)
)
CLOCK_STEPS = _counter(
    "clock_steps",
    "How many times the clock was set back or forward, and schedules were corrected.",
    ("direction",),
)

# Counted in the commit of the counted event, by the names of the counters in the database.
COUNTED: Mapping[str, MetricDefinition] = {
    metric.name: metric
    for metric in (
        _counter(
            "repairs", "Transitions recorded from a query instead of a callback.", ("provider",)
        ),
        _counter(
            "callbacks_missed",
            "Final statuses recorded from a query although a callback was expected.",
            ("provider",),
        ),
        _counter(
            "conflicts", "Messages that contradicted the final status on record.", ("provider",)
        ),
        _counter(
            "mismatches",
            "Messages that named another provider task than the one on record.",
            ("provider",),
        ),
    )
}

# Read from the record.
TASKS_OPEN = _gauge("tasks_open", "Tasks neither ended nor given up on.", ("provider",))
TASKS_AWAITED = _gauge(
    "tasks_awaiting_callback", "Open tasks whose provider was given a callback URL.", ("provider",)
)
TASKS_OVERDUE = _gauge("tasks_overdue", "Open tasks that are due for a query.", ("provider",))
DELIVERIES_DUE = _gauge("deliveries_due", "Deliveries that are due now: the backlog.")
WITHOUT_HOOK = _gauge(
    "deliveries_without_hook", "Deliveries that wait because their hook is not in the hooks file."
)
OLDEST_DUE = _gauge(
    "oldest_due_delivery_age_seconds", "How long the oldest delivery of the backlog has been due."
)
DELIVERIES_HELD = _gauge(
    "deliveries_held",
    "Deliveries that are due but wait: their hook is paused, failing, or not in the hooks file, "
    "or its limits are used up.",
)
CIRCUIT_STATE = _gauge(
    "circuit_state",
    "The circuit breaker of a hook: 1 for its current state, 0 for the others.",
    ("hook", "state"),
)
RATE_LIMIT = _gauge(
    "hook_rate_limit_per_second", "The rate limit of a hook, for all workers together.", ("hook",)
)
CONCURRENCY_LIMIT = _gauge(
    "hook_concurrency_limit", "How many deliveries of a hook may run at a time.", ("hook",)
)
HELD_BY_LIMIT = _gauge(
    "hook_held_by_limit",
    "1 if due deliveries of a hook wait only because this limit is used up, else 0.",
    ("hook", "limit"),
)
DATABASE_SIZE = _gauge(
    "database_size_bytes", "Size of the database, with SQLite's write-ahead log."
)
DISK_FREE = _gauge("disk_free_bytes", "Free space on the disk of the SQLite database.")
DELIVERIES_DEAD = _gauge("deliveries_dead", "Deliveries that are no longer retried.")
HOOKS_REJECTED = _gauge(
    "hooks_file_rejected",
    "1 if a process of this kind rejected the hooks file at the last SIGHUP.",
    ("process",),
)
PROCESS_SEEN = _gauge(
    "process_seen_timestamp_seconds",
    "When a process of this kind last reported that it runs; 0 if it never did.",
    ("process",),
)
LISTENERS = _gauge(
    "live_listeners", "Live event streams, dashboards and waiting requests of all web processes."
)
STORE_WRITABLE = _gauge("store_writable", "1 if a write was committed for this response.")
BUILD = _gauge("build_info", "Always 1; the labels name the release.", ("version", "python"))

_defined = [value for value in globals().values() if isinstance(value, MetricDefinition)]
ALL = (*_defined, *COUNTED.values())

"""What is measured, by name: `/metrics` shows all of it, and docs/metrics.md says what it means.

A measure is kept as rows that only grow, whichever process counts; or it is read from the record
when somebody asks. Every label has few values: what strangers choose never becomes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

PREFIX = "callback_receiver_"
UNKNOWN = "unknown"  # a hook that is not in the hooks file; a status that was not understood


class MetricType(StrEnum):
    """Prometheus's kinds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class MetricDefinition:
    """One of them. `buckets`: upper bounds in seconds, of a histogram."""

    name: str  # without the prefix, and without a counter's `_total`
    kind: MetricType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """What it is called where it is asked for."""
        return PREFIX + self.name + ("_total" if self.kind is MetricType.COUNTER else "")


@dataclass(frozen=True, slots=True, order=True)
class Sample:
    """A row: of a histogram its labels end in a bucket's bound, or in `sum`."""

    name: str
    labels: tuple[str, ...]
    value: float


QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0)

# Counted as it happens.
CALLBACKS = MetricDefinition(
    "callbacks",
    MetricType.COUNTER,
    "Callbacks that were taken, by what they said and what became of them.",
    ("provider", "status", "outcome"),
)
CALLBACK_SECONDS = MetricDefinition(
    "callback_seconds",
    MetricType.HISTOGRAM,
    "Time from a callback's arrival to its answer, by the HTTP status it got.",
    ("answer",),
    QUICK,
)
CALLBACK_LAG = MetricDefinition(
    "callback_lag_seconds",
    MetricType.HISTOGRAM,
    "How long after the provider's updated_at a callback that moved its task came.",
    ("provider",),
    SLOW,
)
LAST_CALLBACK = MetricDefinition(
    "last_callback_timestamp_seconds",
    MetricType.GAUGE,
    "When the latest callback was taken.",
    ("provider",),
)
VERIFICATION_FAILURES = MetricDefinition(
    "verification_failures",
    MetricType.COUNTER,
    "Requests whose sender did not prove who it is.",
    ("reason",),
)
# Shown as 0 from the start: Prometheus takes the first value of a series for no increase.
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
QUESTIONS = MetricDefinition(
    "questions",
    MetricType.COUNTER,
    "Questions of the poller to providers about overdue tasks, by how they ended.",
    ("provider", "result"),
)
ATTEMPTS = MetricDefinition(
    "delivery_attempts",
    MetricType.COUNTER,
    "Attempts at deliveries: delivered, due again (retry), or given up on (dead).",
    ("hook", "outcome"),
)
DELIVERY_SECONDS = MetricDefinition(
    "delivery_seconds",
    MetricType.HISTOGRAM,
    "Time from the move of a task to the end of its delivery; redeliveries are left out.",
    ("hook",),
    SLOW,
)
DOWNLOADS = MetricDefinition(
    "downloads", MetricType.COUNTER, "Files that hooks fetched and kept.", ("hook",)
)
DOWNLOAD_BYTES = MetricDefinition(
    "download_bytes",
    MetricType.COUNTER,
    "Bytes of the files that hooks fetched and kept.",
    ("hook",),
)
STORE_ERRORS = MetricDefinition(
    "store_errors",
    MetricType.COUNTER,
    "How often a process found the record unavailable.",
    ("process",),
)
CLOCK_STEPS = MetricDefinition(
    "clock_steps",
    MetricType.COUNTER,
    "How many times the clock was set back or forward, and schedules were corrected.",
    ("direction",),
)
KEPT = (
    CALLBACKS,
    CALLBACK_SECONDS,
    CALLBACK_LAG,
    LAST_CALLBACK,
    VERIFICATION_FAILURES,
    QUESTIONS,
    ATTEMPTS,
    DELIVERY_SECONDS,
    DOWNLOADS,
    DOWNLOAD_BYTES,
    STORE_ERRORS,
    CLOCK_STEPS,
)

# Counted in the commit of what is counted: the counters of the record, by their names there.
COUNTED: Mapping[str, MetricDefinition] = {
    "repairs": MetricDefinition(
        "repairs",
        MetricType.COUNTER,
        "Moves that a question brought, not a callback.",
        ("provider",),
    ),
    "callbacks_missed": MetricDefinition(
        "callbacks_missed",
        MetricType.COUNTER,
        "Ends that a question brought although a callback should have.",
        ("provider",),
    ),
    "conflicts": MetricDefinition(
        "conflicts",
        MetricType.COUNTER,
        "Messages that contradicted the end on record.",
        ("provider",),
    ),
    "mismatches": MetricDefinition(
        "mismatches",
        MetricType.COUNTER,
        "Messages that named another provider task than the one on record.",
        ("provider",),
    ),
}

# Read from the record.
TASKS_OPEN = MetricDefinition(
    "tasks_open", MetricType.GAUGE, "Tasks that have not ended.", ("provider",)
)
TASKS_AWAITED = MetricDefinition(
    "tasks_awaiting_callback",
    MetricType.GAUGE,
    "Open tasks whose provider was given a callback URL.",
    ("provider",),
)
TASKS_OVERDUE = MetricDefinition(
    "tasks_overdue", MetricType.GAUGE, "Open tasks that the poller has to ask about.", ("provider",)
)
DELIVERIES_DUE = MetricDefinition(
    "deliveries_due",
    MetricType.GAUGE,
    "Deliveries that could be made now and are not: the backlog.",
)
WITHOUT_HOOK = MetricDefinition(
    "deliveries_without_hook",
    MetricType.GAUGE,
    "Deliveries that wait because their hook is not in the hooks file.",
)
OLDEST_DUE = MetricDefinition(
    "oldest_due_delivery_age_seconds",
    MetricType.GAUGE,
    "How long the oldest of these has been due.",
)
DELIVERIES_HELD = MetricDefinition(
    "deliveries_held",
    MetricType.GAUGE,
    "Deliveries that are due and wait: their hook is paused, failing, or not in the hooks file.",
)
CIRCUIT_STATE = MetricDefinition(
    "circuit_state",
    MetricType.GAUGE,
    "The circuit breaker of a hook: 1 for the state that it is in, 0 for the others.",
    ("hook", "state"),
)
DATABASE_SIZE = MetricDefinition(
    "database_size_bytes", MetricType.GAUGE, "Size of the database, with SQLite's write-ahead log."
)
DISK_FREE = MetricDefinition(
    "disk_free_bytes", MetricType.GAUGE, "Free space on the disk of the SQLite database."
)
DELIVERIES_DEAD = MetricDefinition(
    "deliveries_dead", MetricType.GAUGE, "Deliveries that were given up on."
)
HOOKS_REJECTED = MetricDefinition(
    "hooks_file_rejected",
    MetricType.GAUGE,
    "1 if a process of this kind rejected the hooks file at the last SIGHUP.",
    ("process",),
)
PROCESS_SEEN = MetricDefinition(
    "process_seen_timestamp_seconds",
    MetricType.GAUGE,
    "When a process of this kind was last seen; 0: never.",
    ("process",),
)
STORE_WRITABLE = MetricDefinition(
    "store_writable", MetricType.GAUGE, "Was a write committed for this answer? 1: yes."
)
BUILD = MetricDefinition(
    "build_info", MetricType.GAUGE, "Always 1; which release this is.", ("version", "python")
)
READ = (
    TASKS_OPEN,
    TASKS_AWAITED,
    TASKS_OVERDUE,
    DELIVERIES_DUE,
    WITHOUT_HOOK,
    OLDEST_DUE,
    DELIVERIES_HELD,
    DELIVERIES_DEAD,
    CIRCUIT_STATE,
    DATABASE_SIZE,
    DISK_FREE,
    PROCESS_SEEN,
    HOOKS_REJECTED,
    STORE_WRITABLE,
    BUILD,
)
ALL = (*KEPT, *COUNTED.values(), *READ)

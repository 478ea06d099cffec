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


class Kind(StrEnum):
    """Prometheus's kinds."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Measure:
    """One of them. `buckets`: upper bounds in seconds, of a histogram."""

    name: str  # without the prefix, and without a counter's `_total`
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def family(self) -> str:
        """What it is called where it is asked for."""
        return PREFIX + self.name + ("_total" if self.kind is Kind.COUNTER else "")


@dataclass(frozen=True, slots=True, order=True)
class Reading:
    """A row: of a histogram its labels end in a bucket's bound, or in `sum`."""

    name: str
    labels: tuple[str, ...]
    value: float


QUICK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SLOW = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0)

# Counted as it happens.
CALLBACKS = Measure(
    "callbacks",
    Kind.COUNTER,
    "Callbacks that were taken, by what they said and what became of them.",
    ("provider", "status", "outcome"),
)
CALLBACK_SECONDS = Measure(
    "callback_seconds",
    Kind.HISTOGRAM,
    "Time from a callback's arrival to its answer, by the HTTP status it got.",
    ("answer",),
    QUICK,
)
CALLBACK_LAG = Measure(
    "callback_lag_seconds",
    Kind.HISTOGRAM,
    "How long after the provider's updated_at a callback that moved its task came.",
    ("provider",),
    SLOW,
)
LAST_CALLBACK = Measure(
    "last_callback_timestamp_seconds",
    Kind.GAUGE,
    "When the latest callback was taken.",
    ("provider",),
)
VERIFICATION_FAILURES = Measure(
    "verification_failures",
    Kind.COUNTER,
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
QUESTIONS = Measure(
    "questions",
    Kind.COUNTER,
    "Questions of the poller to providers about overdue tasks, by how they ended.",
    ("provider", "result"),
)
ATTEMPTS = Measure(
    "delivery_attempts",
    Kind.COUNTER,
    "Attempts at deliveries: delivered, due again (retry), or given up on (dead).",
    ("hook", "outcome"),
)
DELIVERY_SECONDS = Measure(
    "delivery_seconds",
    Kind.HISTOGRAM,
    "Time from the move of a task to the end of its delivery; redeliveries are left out.",
    ("hook",),
    SLOW,
)
DOWNLOADS = Measure("downloads", Kind.COUNTER, "Files that hooks fetched and kept.", ("hook",))
DOWNLOAD_BYTES = Measure(
    "download_bytes", Kind.COUNTER, "Bytes of the files that hooks fetched and kept.", ("hook",)
)
STORE_ERRORS = Measure(
    "store_errors",
    Kind.COUNTER,
    "How often a process found the record unavailable.",
    ("process",),
)
CLOCK_STEPS = Measure(
    "clock_steps",
    Kind.COUNTER,
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
COUNTED: Mapping[str, Measure] = {
    "repairs": Measure(
        "repairs", Kind.COUNTER, "Moves that a question brought, not a callback.", ("provider",)
    ),
    "callbacks_missed": Measure(
        "callbacks_missed",
        Kind.COUNTER,
        "Ends that a question brought although a callback should have.",
        ("provider",),
    ),
    "conflicts": Measure(
        "conflicts",
        Kind.COUNTER,
        "Messages that contradicted the end on record.",
        ("provider",),
    ),
    "mismatches": Measure(
        "mismatches",
        Kind.COUNTER,
        "Messages that named another provider task than the one on record.",
        ("provider",),
    ),
}

# Read from the record.
TASKS_OPEN = Measure("tasks_open", Kind.GAUGE, "Tasks that have not ended.", ("provider",))
TASKS_AWAITED = Measure(
    "tasks_awaiting_callback",
    Kind.GAUGE,
    "Open tasks whose provider was given a callback URL.",
    ("provider",),
)
TASKS_OVERDUE = Measure(
    "tasks_overdue", Kind.GAUGE, "Open tasks that the poller has to ask about.", ("provider",)
)
DELIVERIES_DUE = Measure(
    "deliveries_due", Kind.GAUGE, "Deliveries that could be made now and are not: the backlog."
)
WITHOUT_HOOK = Measure(
    "deliveries_without_hook",
    Kind.GAUGE,
    "Deliveries that wait because their hook is not in the hooks file.",
)
OLDEST_DUE = Measure(
    "oldest_due_delivery_age_seconds", Kind.GAUGE, "How long the oldest of these has been due."
)
DELIVERIES_HELD = Measure(
    "deliveries_held",
    Kind.GAUGE,
    "Deliveries that are due and wait: their hook is paused, failing, or not in the hooks file.",
)
CIRCUIT_STATE = Measure(
    "circuit_state",
    Kind.GAUGE,
    "The circuit breaker of a hook: 1 for the state that it is in, 0 for the others.",
    ("hook", "state"),
)
DATABASE_SIZE = Measure(
    "database_size_bytes", Kind.GAUGE, "Size of the database, with SQLite's write-ahead log."
)
DISK_FREE = Measure("disk_free_bytes", Kind.GAUGE, "Free space on the disk of the SQLite database.")
DELIVERIES_DEAD = Measure("deliveries_dead", Kind.GAUGE, "Deliveries that were given up on.")
HOOKS_REJECTED = Measure(
    "hooks_file_rejected",
    Kind.GAUGE,
    "1 if a process of this kind rejected the hooks file at the last SIGHUP.",
    ("process",),
)
PROCESS_SEEN = Measure(
    "process_seen_timestamp_seconds",
    Kind.GAUGE,
    "When a process of this kind was last seen; 0: never.",
    ("process",),
)
STORE_WRITABLE = Measure(
    "store_writable", Kind.GAUGE, "Was a write committed for this answer? 1: yes."
)
BUILD = Measure("build_info", Kind.GAUGE, "Always 1; which release this is.", ("version", "python"))
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

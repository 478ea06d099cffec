"""The targets, and whether a run met them. Ratios are medians of the rounds' ratios."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

Results = dict[str, Any]
# The reason why a target is not met, and how it was found.
OF_TWO = (
    "two processes, and p99: the servers and wrk share two cores, and the writers take turns at "
    "the file lock. The CPU per request in the table shows this: with wrk, both rows of two "
    "processes use most of the CPU. On 2026-11-21, the rate varied from 0.70 to 0.86 of the "
    "ceiling's rate. The p99 exceeded the ceiling's until full garbage collections were kept out "
    "of the event loop; after that, it was 0.73 and 0.89 of it. Commits in the event loop itself "
    "would be a sixth faster (4,650 instead of 3,980 a second), but a disk or a lock that hangs "
    "would then block every response"
)
OF_THREADS = (
    "the Flask view on threads: measured in one thread without a server in 2026-11, the view took "
    "0.20 ms and the record 0.08 ms of CPU (0.33 and 0.14 before they were optimised). Flask, the "
    "parser and the threads cost another 0.3 to 0.6 ms, like the ceiling. A ratio of 0.85 would "
    "leave 0.1 ms for the token, JSON, SQL, the log line and the counts. Therefore, callbacks do "
    "not go through Flask"
)
OF_THE_BEST = (
    "the rate of one process: docs/adr/0024-what-a-callback-costs.md has the profile, what was "
    "tried, and the lower bound. Measured on 2026-11-29 without sockets, a callback takes about "
    "0.3 ms of CPU. The statements, the server, the checks and the queue take 0.20 ms of it, and "
    "the kernel another 0.04 ms. Twice the ceiling's rate allows 0.24 ms, which leaves nothing for "
    "the log line and the counts"
)
OF_PEERS = (
    "the peers on a fast disk: each checks a token and writes one row, whereas we check every "
    "field, write the event, the transition and its deliveries, count, and log. Express and "
    "FastAPI parse HTTP and JSON in compiled code, and commit each row in their event loop, which "
    "costs little if a sync takes 0.2 ms. If a sync takes longer, sharing it matters more: see the "
    "rows of slower disks in MATRIX.md, which BENCH_FULL=1 measures. Knocker does not wait for "
    "syncs, so a slow disk affects only us"
)
OF_IMPORT = (
    "import: all of it is CPU time, which varies with the speed of the machine at that moment: on "
    "2026-11-21, it was 0.314, 0.327 and 0.439 s, while the ceiling handled 2,000 or 1,300 "
    "callbacks a second. According to -X importtime, structlog takes 0.10 s (half of it for rich, "
    "which it imports if it is installed), Flask 0.07 s, marshmallow 0.03 s, and our own modules "
    "0.08 s"
)
OF_BYTES = (
    "bytes: the schema was rebuilt in steps, with numbers for each status, provider and trust, a "
    "table of hooks, and digests of 8 bytes. On 2026-11-21, an event took 650 and 450 bytes; the "
    "rest are columns and indexes of later features. Less is only possible without the answers of "
    "attempts (56 bytes), or without an index along which a list is read. A shop has two "
    "deliveries for each task, not for each event"
)
OF_GROUP = (
    "group commit on a slow disk: one process is limited by its CPU there, and a commit for each "
    "callback by the disk, so the ratio follows the speed of the machine at that moment. It was "
    "18.7, 17.2 and 14.9 in the last three runs, in which the ceiling handled 2,072, 1,385 and "
    "1,215 callbacks a second on the local disk"
)
OF_IDLE = (
    "an idle worker: on 2026-11-29, the p99 of 60 deliveries was 10.8 ms on SQLite and 26.9 ms on "
    "PostgreSQL, and the p50 4.9 and 9.9 ms, on a machine half as fast as that of 2026-11-21. On "
    "PostgreSQL, the first delivery took longest: 24 to 28 ms in four runs, and the others up to "
    "25 ms. docs/adr/0019-outcomes-are-recorded-together.md has the parts and the lower bound. "
    "Before workers loaded at their start what a delivery needs, it was 96 and 123 ms"
)
OF_DELIVERIES = (
    "deliveries: the earlier rates were measured on a machine of the same kind, in other runs. "
    "In alternating runs with the earlier code, one worker with 16 slots made 1.9 times the "
    "deliveries on SQLite over HTTP, 4 times on PostgreSQL, and 50 times over HTTPS. "
    "docs/adr/0019-outcomes-are-recorded-together.md has the profile and the lower bound: on "
    "SQLite, the requests alone take 42 % of the time in which Python's lock is held, and three "
    "times the rate would leave nothing for the transactions, the log lines and the messages"
)
CEILING = "ceiling: Flask answers 200, 1 process"
CEILING_OF_TWO = "the same, 2 processes"
US, US_OF_TWO = "us, SQLite, 1 process", "us, SQLite, 2 processes"
THREADS, THREADS_OF_TWO = f"{US}, threads", f"{US_OF_TWO}, threads"
COMMIT_EACH = f"{US}, a commit each"
TEN_HOOKS = "us, SQLite, ten hooks, 1 process"
BY_HAND = "Flask + sqlite3 FULL, a commit each"
GRANIAN = f"{US}, Granian"
FASTAPI_IN_LOOP = "the same, commits in the event loop"
# The rows that commit each callback durably before they respond.
COMMITTING = (
    BY_HAND,
    "adnanh/webhook + sqlite3 FULL",
    "FastAPI + uvicorn + sqlite3 FULL",
    FASTAPI_IN_LOOP,
    "Express + better-sqlite3 FULL",
)
POOLED, ATTEMPT = "requests, one session", "us, an attempt"
# The best rates before connections were kept open and outcomes were recorded together: 224
# deliveries per second (docs/adr/0019), and 128 with PostgreSQL (2026-11-21). An attempt over HTTPS
# took 44 ms of CPU in Python (docs/adr/0018), so there were at most 23 per second.
BEFORE = {"HTTP, 16 slots": 224, "HTTPS, 16 slots": 23, "PostgreSQL, 16 slots": 128}
# Copying a record of 100,000 tasks, each with 12 rows, took 12 minutes.
ROWS_COPIED_BEFORE = 100_000 * 12 / (12 * 60)  # per second
THIS_DISK, SLOW_DISK = "this disk", "fsync +10 ms"
NOT_MET = "not met"


@dataclass(frozen=True)
class Target:
    """One target. `value` is None if the run did not measure it."""

    what: str
    bound: float
    value: float | None
    at_least: bool = True
    unit: str = ""
    limit: str = ""  # the reason if it is not met, and how it was found

    @property
    def verdict(self) -> str:
        if self.value is None:
            return "not measured"
        is_met = self.value >= self.bound if self.at_least else self.value <= self.bound
        return "met" if is_met else NOT_MET

    @property
    def hindrance(self) -> str:
        return self.limit if self.verdict == NOT_MET else ""

    @property
    def wanted(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}{self.unit}"


def series(results: Results, variant: str, field: str, disk: str = THIS_DISK) -> list[float]:
    """Return the rounds with 64 connections, or with the most there were."""
    rows = [
        row
        for row in results.get("callbacks", ())
        if row["variant"] == variant and row["disk"] == disk and not row["why_not"]
    ]
    at_64 = [row for row in rows if row["connections"] == 64] or rows[-1:]
    return list(at_64[0][field]) if at_64 else []


def ratio(over: list[float], under: list[float]) -> float | None:
    """Return the median of the rounds' ratios: a disturbance affects both values of a round."""
    pairs = [a / b for a, b in zip(over, under, strict=False) if b]
    return statistics.median(pairs) if pairs else None


def best_front(results: Results) -> str:
    """Return our fastest variant with one process on SQLite, with any front."""
    names = {row["variant"] for row in results.get("callbacks", ())}
    ours = sorted(name for name in names if name.startswith(US))

    def rate(name: str) -> float:
        return statistics.median(series(results, name, "per_second") or [0])

    return max(ours, key=rate, default=US)


def targets(results: Results) -> list[Target]:
    return [*_of_callbacks(results), *_of_growth(results), *_of_the_rest(results)]


def _of_callbacks(results: Results) -> Iterator[Target]:
    def rate(over: str, under: str, disk: str = THIS_DISK) -> float | None:
        return ratio(
            series(results, over, "per_second", disk), series(results, under, "per_second", disk)
        )

    best = best_front(results)
    yield Target("us ÷ ceiling, 1 process each", 2, rate(US, CEILING), limit=OF_THE_BEST)
    two = rate(US_OF_TWO, CEILING_OF_TWO)
    yield Target("us ÷ ceiling, 2 processes each", 0.85, two, limit=OF_TWO)
    for processes, ours, theirs in (
        ("1 process", THREADS, CEILING),
        ("2 processes", THREADS_OF_TWO, CEILING_OF_TWO),
    ):
        what = f"the Flask view on threads ÷ ceiling, {processes} each"
        yield Target(what, 0.85, rate(ours, theirs), limit=OF_THREADS)
    what = f"us with the best front ({best}) ÷ ceiling"
    yield Target(what, 2, rate(best, CEILING), limit=OF_THE_BEST)
    for processes, ours, theirs in (
        ("1 process", US, CEILING),
        ("2 processes", US_OF_TWO, CEILING_OF_TWO),
    ):
        p99 = ratio(series(results, ours, "p99_ms"), series(results, theirs, "p99_ms"))
        yield Target(
            f"p99 ÷ ceiling's p99, {processes} each", 1.0, p99, at_least=False, limit=OF_TWO
        )
    yield Target("group commit ÷ a commit each, same front", 1.5, rate(US, COMMIT_EACH))
    cpu = ratio(series(results, TEN_HOOKS, "cpu_ms"), series(results, US, "cpu_ms"))
    what = "CPU of a callback with ten hooks, five of them filtered ÷ with two hooks"
    yield Target(what, 1.5, cpu, at_least=False)
    slow = rate(US, COMMIT_EACH, SLOW_DISK)
    yield Target("group commit ÷ a commit each, fsync +10 ms", 15, slow, limit=OF_GROUP)
    for peer in COMMITTING:
        value = rate(US, peer, SLOW_DISK)
        yield Target(f"{US} ÷ {peer}, {SLOW_DISK}", 5, value)
    slower = [disk for disk in results.get("fsync_ms", ()) if disk not in (THIS_DISK, SLOW_DISK)]
    compared = dict.fromkeys([(US, THIS_DISK), (best, THIS_DISK), *((US, d) for d in slower)])
    for ours, disk in compared:
        where = "" if disk == THIS_DISK else f", {disk}"
        for peer, (bound, names) in PEERS.items():
            found = [one for name in names if (one := rate(ours, name, disk)) is not None]
            value = min(found, default=None)
            if found or disk == THIS_DISK:
                yield Target(f"{ours} ÷ {peer}{where}", bound, value, limit=OF_PEERS)
    postgres = rate("us, PostgreSQL, 2 processes", CEILING)
    yield Target("PostgreSQL, 2 processes ÷ ceiling, 1 process", 0.85, postgres)


PEERS = {  # the target, and the rows of which the fastest counts
    "adnanh/webhook + sqlite3": (8, ("adnanh/webhook + sqlite3 FULL",)),
    "Express + better-sqlite3": (1.5, ("Express + better-sqlite3 FULL",)),
    "FastAPI, the faster of its two": (
        1.3,
        ("FastAPI + uvicorn + sqlite3 FULL", FASTAPI_IN_LOOP),
    ),
    "Knocker": (2, ("Knocker behind Flask",)),
}


def _of_growth(results: Results) -> Iterator[Target]:
    sizes = {row["events"]: row for row in results.get("growth", ())}
    empty, full = sizes.get(0), sizes.get(1_000_000)

    def compared(field: str, *, inverse: bool = False) -> float | None:
        if empty is None or full is None:
            return None
        pair = (empty[field], full[field]) if inverse else (full[field], empty[field])
        return ratio(*pair)

    yield Target("10⁶ events ÷ empty: insert rate", 0.85, compared("inserts"))
    slower = compared("duplicates", inverse=True)
    yield Target("10⁶ events ÷ empty: time of a duplicate", 1.5, slower, at_least=False)
    rare = compared("rare_list_ms")
    yield Target("10⁶ events ÷ empty: time of a list (rare)", 1.5, rare, at_least=False)
    before, after = (row["pages_ms"] if row else {} for row in (empty, full))
    for name, path in {"API": "/api/tasks?limit=50", "dashboard": "/dashboard/tasks"}.items():
        slower = ratio(after.get(path, []), before.get(path, []))
        what = f"10⁶ events ÷ empty: time of a list ({name})"
        yield Target(what, 1.5, slower, at_least=False)
    for what, start, bound in (
        ("a dashboard page", "/dashboard", 50),
        ("an API list", "/api", 10),
    ):
        pages = full["pages_ms"].items() if full else ()
        slowest = [statistics.median(ms) for path, ms in pages if path.startswith(start)]
        name = f"{what} with 10⁶ tasks, the slowest"
        yield Target(name, bound, max(slowest, default=None), at_least=False, unit=" ms")


def _of_the_rest(results: Results) -> Iterator[Target]:
    for row in results.get("bytes", ()):
        what = f"bytes for each event beyond body and headers, deliveries: {row['deliveries']}"
        yield Target(what, 450, row["beyond"], at_least=False, limit=OF_BYTES)
    for row in results.get("hooks", ()):
        what = f"callback to hook request, p50, {row['database']}"
        yield Target(what, 20, row["p50_ms"], at_least=False, unit=" ms")
        what = f"an idle worker: due to hook request, p99, {row['database']}"
        yield Target(what, 20, row["due_p99_ms"], at_least=False, unit=" ms", limit=OF_IDLE)
    listeners = results.get("listeners", {})
    grown = ratio(listeners.get("with_p99_ms", []), listeners.get("p99_ms", []))
    what = "p99 of callbacks with 100 listeners ÷ without"
    yield Target(what, 1.5, grown, at_least=False)
    workers = [*results.get("worker", ()), *results.get("https", {}).get("workers", ())]
    made = {row["database"]: statistics.median(row["per_second"]) for row in workers}
    for name, before in BEFORE.items():
        value = made[name] / before if name in made else None
        bound = 15 if "HTTPS" in name else 3
        what = f"one worker, {name}: deliveries ÷ before ({before} a second)"
        yield Target(what, bound, value, limit=OF_DELIVERIES)
    copied = results.get("copy", {}).get("rows_per_second")
    value = copied / ROWS_COPIED_BEFORE if copied else None
    what = f"copy to PostgreSQL: rows ÷ before ({ROWS_COPIED_BEFORE:,.0f} a second)"
    yield Target(what, 10, value)
    exchanges = results.get("https", {}).get("exchanges", ())
    spent = {row["name"]: row["cpu_ms"] for row in exchanges}
    cpu = ratio(spent.get(ATTEMPT, []), spent.get(POOLED, []))
    what = "CPU of an HTTPS attempt ÷ a POST on a pooled requests session"
    yield Target(what, 2.5, cpu, at_least=False)
    took = results.get("import", {}).get("wall_s")
    seconds = statistics.median(took) if took else None
    what = "import of the web process, without submitter.api"
    yield Target(what, 0.35, seconds, at_least=False, unit=" s", limit=OF_IMPORT)

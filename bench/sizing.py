"""Formats the results of `bench.scaling` as the tables of the section "Sizing" of docs/scaling.md.

The text around the tables is written by hand; a table is identified by its first line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench import ROOT
from bench.report import table

PAGE = ROOT / "docs" / "scaling.md"
CALLBACKS = 1000  # per second, for which the size is calculated
HOOKS = 2
DELIVERIES = CALLBACKS / 3 * HOOKS  # per second: every third callback ends a task
TIMES = "\u00d7"
NONE = "\u2013"


@dataclass(frozen=True)
class Measured:
    """The results of one variant: medians of the rounds.

    Deliveries are measured with one web process.
    """

    per_second: float
    web_ms: float
    database_ms: float
    wal_bytes: float
    deliveries: float
    worker_ms: float
    delivery_ms: float


def tables(found: dict[str, Measured], machine: Sequence[tuple[str, str]]) -> list[str]:
    """Return the tables in the page's order. `machine`: facts about the machine."""
    one, two = found["PostgreSQL, 1 web process"], found["PostgreSQL, 2 web processes"]
    return [
        table(("where", "measured"), machine),
        _of_callbacks(found),
        _of_deliveries(found),
        table(("part", "needs", "so take"), [_web(two), _worker(one), *_server(two, one)]),
    ]


def write(fresh: Sequence[str]) -> None:
    """Replace the tables that have the same first line. Raises ValueError."""
    page = PAGE.read_text()
    for one in fresh:
        head = one.splitlines()[0]
        before, found, after = page.partition(f"{head}\n")
        if not found:
            raise ValueError(f"{PAGE} has no table that begins: {head}")
        _, end, rest = after.partition("\n\n")
        page = f"{before}{one}{end}{rest}"
    PAGE.write_text(page)


def _of_callbacks(found: dict[str, Measured]) -> str:
    columns = ("", "callbacks/s", "web CPU ms", "database CPU ms", "WAL bytes")
    rows = []
    for name, one in found.items():
        there = (f"{one.database_ms:.2f}", f"{one.wal_bytes:,.0f}")
        rows.append(
            [
                name,
                f"{one.per_second:,.0f}",
                f"{one.web_ms:.2f}",
                *(there if one.wal_bytes else ("in the web process", NONE)),
            ]
        )
    return table(columns, rows)


def _of_deliveries(found: dict[str, Measured]) -> str:
    place = "one worker, `WORKER_CONCURRENCY=4`"
    columns = (place, "deliveries/s", "worker CPU ms", "database CPU ms")
    rows = []
    for name, one in found.items():
        if one.deliveries:
            there = f"{one.delivery_ms:.1f}" if one.wal_bytes else "in the worker"
            database = name.partition(",")[0]
            rows.append([database, f"{one.deliveries:.0f}", f"{one.worker_ms:.1f}", there])
    return table(columns, rows)


def _web(web: Measured) -> tuple[str, str, str]:
    cores = CALLBACKS * web.web_ms / 1000
    needs = f"{CALLBACKS:,} {TIMES} {web.web_ms:.2f} ms = {cores:.1f} cores"
    take = f"{2 * math.ceil(cores)} processes on two machines: either half can go"
    return "web", needs, take


def _worker(worker: Measured) -> tuple[str, str, str]:
    cores, workers = DELIVERIES * worker.worker_ms / 1000, DELIVERIES / worker.deliveries
    cpu = f"{DELIVERIES:.0f} {TIMES} {worker.worker_ms:.1f} ms = {cores:.1f} cores"
    needs = f"{cpu}; {DELIVERIES:.0f} ÷ {worker.deliveries:.0f} = {workers:.1f} workers"
    slow = "more `WORKER_CONCURRENCY` where the other sides are slow"
    return "worker", needs, f"{math.ceil(1.5 * workers)} workers on two to four machines; {slow}"


def _server(web: Measured, worker: Measured) -> list[tuple[str, str, str]]:
    cores = (CALLBACKS * web.database_ms + DELIVERIES * worker.delivery_ms) / 1000
    least = math.ceil(1.5 * cores)
    of_web = f"{CALLBACKS:,} {TIMES} {web.database_ms:.2f} ms"
    of_worker = f"{DELIVERIES:.0f} {TIMES} {worker.delivery_ms:.1f} ms"
    wal = f"{CALLBACKS:,} {TIMES} {web.wal_bytes / 1000:.1f} kB"
    megabytes = f"{CALLBACKS * web.wal_bytes / 1e6:.1f} MB a second, deliveries apart"
    notify = f"at most {CALLBACKS / 3:.0f} a second, fewer the fuller the batches"
    waiting = f"{DELIVERIES:.0f} more if the hooks wait for a download"
    return [
        (
            "database",
            f"{of_web} + {of_worker} = {cores:.1f} cores",
            f"{least} to {2 * least} cores",
        ),
        ("WAL", f"{wal} = {megabytes}", "any disk"),
        ("commits that notify", f"{notify}; {waiting}", "see below"),
    ]

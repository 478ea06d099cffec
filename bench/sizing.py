"""The section "Sizing" of docs/scaling.md, written from what `bench.scaling` measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench import ROOT
from bench.report import table

PAGE = ROOT / "docs" / "scaling.md"
HEAD = "## Sizing\n"
CALLBACKS = 1000  # a second, which is calculated
HOOKS = 2
ENDS = CALLBACKS / 3  # a second: tasks that end


@dataclass(frozen=True)
class Measured:
    """What one variant gave: medians of the rounds. The second half is there for one web process."""

    per_second: float
    web_ms: float
    database_ms: float
    wal_bytes: float
    deliveries: float
    worker_ms: float
    delivery_ms: float


@dataclass(frozen=True)
class Machine:
    described: str
    connections: int
    plain_commits: float
    notifying_commits: float


def section(found: dict[str, Measured], machine: Machine) -> str:
    """From its heading to the end of the page."""
    return f"""{HEAD}
Measured by `python -m bench.scaling --write`, which writes this section: {machine.described}; loopback,
{machine.connections} connections, three callbacks for each task, {HOOKS} Slack hooks. The rates are what such
a machine gave at that moment; the CPU is what the kernel counted, and is the better base.

{_of_callbacks(found)}

{_of_deliveries(found)}

A callback takes three round trips to PostgreSQL (which task; is the message new; everything else with the
commit), and all that wait in a process share them and the commit: under load a batch has up to as many as
the process has threads. At 0.5 ms between the machines a batch of 16 takes 1.5 ms longer, which costs
nobody's CPU. [ADR 8](adr/0008-postgres-group-commit.md) says how.

### {CALLBACKS:,} callbacks a second

A calculation from these figures, not a measurement: we have not run it on that many machines. It means
{ENDS:.0f} tasks a second, and with two hooks {HOOKS * ENDS:.0f} deliveries.

{_of_parts(found["PostgreSQL, 2 web processes"], found["PostgreSQL, 1 web process"])}

**The first limit is the one server.** Its CPU comes first, and grows with the machine. Behind it lies a
lock: PostgreSQL lets transactions that NOTIFY commit one after the other, waiting for the disk each time.
Measured on this disk, {machine.connections} connections: {machine.plain_commits:,.0f} plain commits a second, {machine.notifying_commits:,.0f} with NOTIFY. Only
a batch in which a task ends announces deliveries, and a batch is one commit however many it holds: on a
disk whose fsync takes 2 ms (500 commits one after the other) even batches of four are room for 2,000
callbacks a second. Hooks that wait for a download announce one commit for each. Beyond that: a faster
log disk, or two installations with a database each, by account or shop.
"""


def write(text: str) -> None:
    """Put the section where the page has it."""
    before, _, _ = PAGE.read_text().partition(HEAD)
    PAGE.write_text(before + text)


def _of_callbacks(found: dict[str, Measured]) -> str:
    columns = ("", "callbacks/s", "web CPU ms", "database CPU ms", "WAL bytes")
    return table(
        columns,
        [
            [
                name,
                f"{one.per_second:,.0f}",
                f"{one.web_ms:.2f}",
                f"{one.database_ms:.2f}" if one.wal_bytes else "in the web process",
                f"{one.wal_bytes:,.0f}" if one.wal_bytes else "–",
            ]
            for name, one in found.items()
        ],
    )


def _of_deliveries(found: dict[str, Measured]) -> str:
    columns = (
        "one worker, `WORKER_CONCURRENCY=4`",
        "deliveries/s",
        "worker CPU ms",
        "database CPU ms",
    )
    return table(
        columns,
        [
            [
                name.partition(",")[0],
                f"{one.deliveries:.0f}",
                f"{one.worker_ms:.1f}",
                f"{one.delivery_ms:.1f}" if one.wal_bytes else "in the worker",
            ]
            for name, one in found.items()
            if one.deliveries
        ],
    )


def _of_parts(web: Measured, worker: Measured) -> str:
    made = HOOKS * ENDS
    web_cores = CALLBACKS * web.web_ms / 1000
    worker_cores, workers = made * worker.worker_ms / 1000, made / worker.deliveries
    cores = (CALLBACKS * web.database_ms + made * worker.delivery_ms) / 1000
    few = math.ceil(1.5 * cores)
    return table(
        ("part", "needs", "so take"),
        [
            [
                "web",
                f"{CALLBACKS:,} × {web.web_ms:.2f} ms = {web_cores:.1f} cores",
                f"{2 * math.ceil(web_cores)} processes on two machines: either half can go",
            ],
            [
                "worker",
                f"{made:.0f} × {worker.worker_ms:.1f} ms = {worker_cores:.1f} cores; "
                f"{made:.0f} ÷ {worker.deliveries:.0f} = {workers:.1f} workers",
                f"{math.ceil(1.5 * workers)} workers on two to four machines; more "
                "`WORKER_CONCURRENCY` where the other sides are slow",
            ],
            [
                "database",
                f"{CALLBACKS:,} × {web.database_ms:.2f} ms + {made:.0f} × {worker.delivery_ms:.1f} ms "
                f"= {cores:.1f} cores",
                f"{few} to {2 * few} cores",
            ],
            [
                "WAL",
                f"{CALLBACKS:,} × {web.wal_bytes / 1000:.1f} kB = "
                f"{CALLBACKS * web.wal_bytes / 1e6:.1f} MB a second, deliveries apart",
                "any disk",
            ],
            [
                "commits that notify",
                f"at most {ENDS:.0f} a second, and fewer the fuller the batches; "
                f"{made:.0f} more if the hooks wait for a download",
                "see below",
            ],
        ],
    )

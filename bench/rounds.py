"""Measures all variants in turn, round by round, on one disk."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.disks import Disk
from bench.load import Load, fresh_traffic, send
from bench.peers import Peers
from bench.processes import CannotMeasure, cpu_seconds, resident_mb
from bench.progress import say
from bench.site import Running, Site
from bench.variants import Variant, up

WARM_UP = 1.0  # seconds, for each variant before its first round


@dataclass
class Series:
    """One row: a variant with a number of connections on one disk, round by round."""

    variant: str
    kind: str
    durable: str
    disk: str
    connections: int
    per_second: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # CPU of its processes per request
    rss_mb: list[float] = field(default_factory=list)  # memory of one worker
    refused: int = 0
    broken: int = 0
    repeated: int = 0
    lost: int = 0  # answered with 200, but not on record afterwards
    why_not: str = ""

    def add(self, load: Load, cpu_s: float, rss_mb: float) -> None:
        self.per_second.append(load.per_second)
        self.p50_ms.append(load.p50_ms)
        self.p99_ms.append(load.p99_ms)
        self.cpu_ms.append(cpu_s / max(1, load.requests) * 1000)
        self.rss_mb.append(rss_mb)
        self.refused += load.refused
        self.broken += load.broken
        self.repeated += load.repeated

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """The extent of a measurement."""

    connections: Sequence[int]
    rounds: int
    seconds: float


def measure(
    plan: Plan, variants: Sequence[Variant], disk: Disk, peers: Peers, place: Path
) -> list[Series]:
    """Start all variants together, and load one at a time: A B C A B C …"""
    found: list[Series] = []
    with ExitStack() as stack:
        running: dict[str, Running] = {}
        why_not: dict[str, str] = {}
        for number, variant in enumerate(variants):
            site = Site(place / f"{disk.slower_ms}-{number}", disk, peers)
            try:
                running[variant.name] = stack.enter_context(up(variant, site))
            except CannotMeasure as error:
                why_not[variant.name] = str(error)
        for connections in plan.connections:
            rows = [
                Series(
                    v.name,
                    v.kind,
                    v.durable,
                    disk.name,
                    connections,
                    why_not=why_not.get(v.name, ""),
                )
                for v in variants
            ]
            _rounds(plan, rows, running, place)
            found += rows
    return found


def _rounds(plan: Plan, rows: list[Series], running: dict[str, Running], place: Path) -> None:
    for number in range(-1, plan.rounds):
        for row in rows:
            if not row.why_not:
                try:
                    _run(row, running[row.variant], plan, place, counts=number >= 0)
                except (CannotMeasure, OSError) as error:
                    row.why_not = f"stopped in round {number + 1}: {error}"
        if number >= 0:
            say(f"{rows[0].disk}, {rows[0].connections} connections, round {number + 1}")


def _run(row: Series, server: Running, plan: Plan, place: Path, *, counts: bool) -> None:
    seconds = plan.seconds if counts else min(WARM_UP, plan.seconds)
    traffic = fresh_traffic(place / "tasks", seconds, server.prefix)
    kept, spent = server.kept() if server.kept else 0, cpu_seconds(server.roots)
    load = send(server.port, traffic, row.connections, seconds)
    spent = cpu_seconds(server.roots) - spent
    if load.requests == 0:
        raise CannotMeasure("nothing was answered")
    if counts:
        row.add(load, spent, statistics.median(map(resident_mb, server.workers)))
    if server.kept:
        row.lost += max(0, load.requests - load.refused - _kept_since(server, kept, load))


def _kept_since(server: Running, before: int, load: Load) -> int:
    """Return the number of recorded events, after unfinished work has had time to end."""
    assert server.kept is not None
    until = time.monotonic() + 5
    while (kept := server.kept() - before) < load.requests - load.refused:
        if time.monotonic() > until:
            break
        time.sleep(0.2)
    return kept

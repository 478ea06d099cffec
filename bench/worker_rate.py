"""Measures the deliveries per second of one worker with a backlog."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.disks import Disk
from bench.fill import record
from bench.ours import migrate, postgres, two_hooks
from bench.peers import Peers
from bench.processes import CannotMeasure, cpu_seconds, process
from bench.progress import say
from bench.sink import Sink, sink
from bench.site import Site
from receiver.stores import open_store

WORKER = (sys.executable, "-m", "receiver", "worker")
STARTED = 20  # deliveries before the clock starts


@dataclass
class Rate:
    database: str
    url: str
    settings: dict[str, object] = field(default_factory=dict)
    per_second: list[float] = field(default_factory=list)
    cpu_ms: list[float] = field(default_factory=list)  # CPU of the worker per delivery

    def as_json(self) -> dict[str, Any]:
        return {"database": self.database, "per_second": self.per_second, "cpu_ms": self.cpu_ms}


def measure(rounds: int, seconds: float, tasks: int, place: Path) -> list[dict[str, Any]]:
    """Measure with two hooks for each task, whose endpoint responds immediately."""
    with ExitStack() as stack:
        url, _ = stack.enter_context(postgres(Disk()))
        rates = [
            Rate("SQLite", f"sqlite:///{place}/rate.db"),
            Rate("PostgreSQL", url),
            Rate("PostgreSQL, 16 slots", url, {"WORKER_CONCURRENCY": 16}),
        ]
        shop = stack.enter_context(sink())
        folder = place / "rate"
        folder.mkdir()
        (folder / "hooks.toml").write_text(two_hooks(shop.port))
        for database_url in {rate.url: None for rate in rates}:
            migrate(database_url)
        for number in range(rounds):
            for rate in rates:
                run(rate, shop, seconds, tasks, folder)
            say(f"deliveries, round {number + 1}")
    return [rate.as_json() for rate in rates]


def run(
    rate: Rate,
    shop: Sink,
    seconds: float,
    tasks: int,
    folder: Path,
    command: Sequence[str] = WORKER,
    **settings: object,
) -> None:
    """Run the worker for some seconds, and add what it did to `rate`."""
    store = open_store(rate.url)
    missing = tasks - store.metrics.backlog(2**60).due // 2
    record(store, max(0, missing))
    waiting = store.metrics.backlog(2**60).due
    store.close()
    environment = Site(folder, Disk(), Peers()).environment(
        DATABASE_URL=rate.url, HOOKS_FILE=folder / "hooks.toml", **rate.settings, **settings
    )
    before = shop.count
    with process(command, folder / "log", environment) as pid:
        _wait_for(shop, before + STARTED, 30)
        began, first, spent = time.perf_counter(), shop.count, cpu_seconds([pid])
        while time.perf_counter() - began < seconds and shop.count < before + waiting - STARTED:
            time.sleep(0.02)
        made, took = shop.count - first, time.perf_counter() - began
        rate.per_second.append(made / took)
        rate.cpu_ms.append((cpu_seconds([pid]) - spent) / max(1, made) * 1000)


def _wait_for(shop: Sink, count: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while shop.count < count:
        if time.monotonic() > until:
            raise CannotMeasure(f"the worker made no deliveries within {seconds:g} s")
        time.sleep(0.01)

"""Measures the bytes stored per event, the import of the web process, and its memory."""

from __future__ import annotations

import json
import sqlite3
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench import ROOT
from bench.disks import Disk
from bench.fill import ENDS, EVERY, deliver, record
from bench.load import STATUSES, fresh_traffic, send
from bench.ours import migrate, our_web
from bench.peers import Peers
from bench.processes import CannotMeasure, resident_mb
from bench.progress import say
from bench.site import Site
from receiver.stores import open_store

SHAPES = {"two for each event": EVERY, "two for each task": ENDS}
CONTENT = "select sum(length(body)), sum(length(cast(headers as blob))), count(*) from callbacks"


def bytes_per_event(tasks: int, place: Path) -> list[dict[str, Any]]:
    """Measure all tables and indexes of a record written by the store's own methods."""
    return [_weighed(shape, hears, tasks, place) for shape, hears in SHAPES.items()]


def _weighed(shape: str, hears: frozenset[str], tasks: int, place: Path) -> dict[str, Any]:
    database = place / f"bytes-{len(hears)}.db"
    migrate(f"sqlite:///{database}")
    empty = _size(database)
    store = open_store(f"sqlite:///{database}")
    record(store, tasks, hears=hears)
    deliver(store)
    store.close()
    connection = sqlite3.connect(database)
    body, headers, events = connection.execute(CONTENT).fetchone()
    told, done = connection.execute(
        "select count(*), count(*) filter (where state = 'delivered') from deliveries"
    ).fetchone()
    connection.close()
    assert told == done, f"{told - done} deliveries were left"
    say(f"weighed a record with {events} events and {told} deliveries")
    return {
        "deliveries": shape,
        "events": events,
        "deliveries_per_event": told / events,
        "body": body / events,
        "headers": headers / events,
        "beyond": (_size(database) - empty - body - headers) / events,
    }


def _size(database: Path) -> int:
    """Return the bytes of the pages in use."""
    connection = sqlite3.connect(database)
    try:
        connection.execute("pragma wal_checkpoint(truncate)")
        names = ("page_count", "freelist_count", "page_size")
        count, free, size = (connection.execute(f"pragma {n}").fetchone()[0] for n in names)
    finally:
        connection.close()
    return int((count - free) * size)


def import_seconds(times: int, place: Path) -> dict[str, Any]:
    """`import wsgi`, in a new interpreter each time, with a stub for `submitter.api`."""
    migrate(f"sqlite:///{place}/import.db")
    (place / "import.toml").write_text("")
    environment = Site(place, Disk(), Peers()).environment(
        DATABASE_URL=f"sqlite:///{place}/import.db", HOOKS_FILE=place / "import.toml"
    )
    wall, cpu = [], []
    for number in range(times + 1):
        command = [sys.executable, str(ROOT / "bench" / "import_once.py")]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise CannotMeasure(done.stderr.strip().splitlines()[-1])
        found = json.loads(done.stdout.splitlines()[-1])
        if number:  # the first one fills the disk cache
            wall.append(found["wall"])
            cpu.append(found["cpu"])
    say(f"imported the web process {times} times")
    return {"wall_s": wall, "cpu_s": cpu}


def memory(callbacks: int, at_most: float, place: Path) -> dict[str, Any]:
    """Measure one web process after its first callbacks and after many of them, or after a time
    limit.
    """
    folder = place / "memory"
    folder.mkdir()
    url = f"sqlite:///{folder}/receiver.db"
    migrate(url)
    with our_web(Site(folder, Disk(), Peers()), url, 1) as running:
        taken, until = 0, time.monotonic() + at_most
        series: list[tuple[int, float]] = []
        while taken < callbacks and time.monotonic() < until:
            seconds = 1.0 if not series else 10.0
            traffic = fresh_traffic(folder / "tasks", seconds)
            taken += send(running.port, traffic, 64, seconds).requests
            series.append((taken, statistics.median(map(resident_mb, running.workers))))
            say(f"{taken} callbacks into one process: {series[-1][1]:.1f} MB")
    return {"wanted": callbacks, "callbacks": taken, "series": series, "per_task": len(STATUSES)}

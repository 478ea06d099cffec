"""Measures the cost of a callback and a delivery, for the tables of docs/scaling.md.

    .venv/bin/python -m bench.scaling [--seconds 4] [--write]

It prints the tables of the section "Sizing"; with --write it updates the page.

Real processes on loopback: gunicorn as in production, a worker, PostgreSQL with fsync. CPU times
are those that the kernel counted for each kind of process; they depend less on other load than
rates do. All variants run in turn, for several rounds; the tables show medians.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from bench import disks, machine, sizing
from bench.kept import postgres_rows, rows
from bench.load import fresh_traffic, send
from bench.ours import migrate, our_web, postgres, two_hooks
from bench.peers import Peers
from bench.processes import cpu_seconds, process, wait_until
from bench.progress import say
from bench.sink import Sink, sink
from bench.site import Site

CONNECTIONS = 32
ROUNDS = 3
WORKS_FOR = 8.0  # seconds of a worker that are measured
WEB = {1: "1 web process", 2: "2 web processes"}
INSERT = "begin; insert into rows_of_the_bench values (1)"
KINDS = {
    "plain": f"{INSERT}; commit",
    "with NOTIFY": f"{INSERT}; select pg_notify('bench', 'x'); commit",
}


@dataclass
class Figures:
    """The results of one variant, round by round."""

    per_second: list[float] = field(default_factory=list)
    web_ms: list[float] = field(default_factory=list)  # CPU of the web process per callback
    database_ms: list[float] = field(default_factory=list)
    wal_bytes: list[float] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)  # per second, by one worker
    worker_ms: list[float] = field(default_factory=list)  # its CPU per delivery
    delivery_ms: list[float] = field(default_factory=list)  # the database's CPU per delivery


@dataclass
class Bench:
    """The databases. `server`: the process of PostgreSQL; `server_url`: a database on it."""

    place: Path
    shop: Sink
    server_url: str
    server: int

    def site(self, name: str) -> Site:
        folder = self.place / name
        folder.mkdir(exist_ok=True)
        (folder / "hooks.toml").write_text(two_hooks(self.shop.port))
        return Site(folder, disks.Disk(), Peers())

    def fresh(self, database: str, number: int) -> str:
        """Return the URL of an empty record, so that measurements do not affect each other."""
        if database == "SQLite":
            return f"sqlite:///{self.place}/record-{number}.db"
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(f"create database record_{number}".encode())
        return urlsplit(self.server_url)._replace(path=f"/record_{number}").geturl()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scaling")
    parser.add_argument("--seconds", type=float, default=4, help="of load, for each figure")
    parser.add_argument(
        "--write", action="store_true", help="also write the tables to docs/scaling.md"
    )
    given = parser.parse_args()
    tables = measure(given.seconds)
    print("\n\n".join(tables))
    if given.write:
        sizing.write(tables)


def measure(seconds: float) -> list[str]:
    """Return the tables of the page."""
    found: dict[str, Figures] = {}
    with disks.folder() as place, postgres(disks.Disk()) as (url, server), sink() as shop:
        where = _described(place)
        bench = Bench(place, shop, url, server)
        numbers = itertools.count(1)
        for number in range(ROUNDS):
            for database in ("SQLite", "PostgreSQL"):
                for processes, web in WEB.items():
                    name = f"{database}, {web}"
                    say(f"round {number + 1}: {name}")
                    record = bench.fresh(database, next(numbers))
                    migrate(record)
                    figures = found.setdefault(name, Figures())
                    _measure(figures, bench, record, processes, seconds)
                    if processes == 1:
                        _measure_worker(figures, bench, record)
        where += [
            (f"commits a second, {kind}", f"{rate:,.0f}") for kind, rate in _commit_rates(url)
        ]
    return sizing.tables({name: _medians(figures) for name, figures in found.items()}, where)


def _described(place: Path) -> list[tuple[str, str]]:
    its = machine.described(place)
    lines = [(name, its[name]) for name in ("date", "cores", "load before the start")]
    return [*lines, ("fsync", f"{disks.fsync_ms(disks.Disk(), place):.2f} ms")]


def _medians(figures: Figures) -> sizing.Measured:
    return sizing.Measured(
        *(statistics.median(one) if one else 0.0 for one in vars(figures).values())
    )


def _measure(figures: Figures, bench: Bench, url: str, processes: int, seconds: float) -> None:
    with our_web(bench.site("web"), url, processes) as web:
        send(web.port, fresh_traffic(bench.place / "tasks", 1), CONNECTIONS, 1)
        before = cpu_seconds(web.roots), cpu_seconds([bench.server]), _wal(url)
        traffic = fresh_traffic(bench.place / "tasks", seconds)
        load = send(web.port, traffic, CONNECTIONS, seconds)
        after = cpu_seconds(web.roots), cpu_seconds([bench.server]), _wal(url)
    web_s, database_s, wal_bytes = (b - a for a, b in zip(before, after, strict=True))
    figures.per_second.append(load.per_second)
    figures.web_ms.append(web_s / load.requests * 1000)
    figures.database_ms.append(database_s / load.requests * 1000)
    figures.wal_bytes.append(wal_bytes / load.requests)


def _measure_worker(figures: Figures, bench: Bench, url: str) -> None:
    """Let one worker make the deliveries of the callbacks for some seconds."""
    site = bench.site("worker")
    environment = site.environment(DATABASE_URL=url, HOOKS_FILE=site.folder / "hooks.toml")
    command = [sys.executable, "-m", "receiver", "worker"]
    with process(command, site.folder / "log", environment) as pid:
        wait_until(lambda: _attempts(url) > 50, site.folder / "log")  # the worker has started
        begun, began = _attempts(url), time.perf_counter()
        spent, spent_there = cpu_seconds([pid]), cpu_seconds([bench.server])
        time.sleep(WORKS_FOR)
        made, took = _attempts(url) - begun, time.perf_counter() - began
        spent, spent_there = cpu_seconds([pid]) - spent, cpu_seconds([bench.server]) - spent_there
    figures.deliveries.append(made / took)
    figures.worker_ms.append(spent / made * 1000)
    figures.delivery_ms.append(spent_there / made * 1000)


def _attempts(url: str) -> int:
    if url.startswith("sqlite"):
        return rows(Path(url.removeprefix("sqlite:///")), "attempts")
    return postgres_rows(url, "attempts")


def _commit_rates(url: str) -> list[tuple[str, float]]:
    """Measure commits of one row per second from CONNECTIONS connections, plain and with NOTIFY.

    Commits with NOTIFY wait for each other, including the disk, so their total rate is the limit.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table rows_of_the_bench (n integer)")
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind, sql in KINDS.items():
            rates[kind].append(_commits(url, sql))
    return [(kind, statistics.median(series)) for kind, series in rates.items()]


def _commits(url: str, sql: str, seconds: float = 2) -> float:
    made = [0] * CONNECTIONS
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while time.perf_counter() < end:
                connection.execute(sql.encode())
                made[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / seconds


def _wal(url: str) -> float:
    if url.startswith("sqlite"):
        return 0
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchone()
    return float(row[0]) if row else 0


if __name__ == "__main__":
    main()

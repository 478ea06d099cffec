"""The variants for comparison: the ceiling, hand-written receivers and our peers."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import APPS
from bench.kept import rows
from bench.processes import CannotMeasure, free_port
from bench.site import Running, Site, Start, gunicorn, serve
from bench.webhook import PREFIX, hooks_file

BARE = "python:bench.apps.gunicorn_bare"


def flask(app: str, workers: int) -> Start:
    def start(site: Site) -> Iterator[Running]:
        port = free_port()
        command = gunicorn(BARE, workers, port, f"bench.apps.{app}:app")
        with serve(site, command, port) as running:
            yield running

    return start


def by_hand(synchronous: str) -> Start:
    def start(site: Site) -> Iterator[Running]:
        database, port = _events(site), free_port()
        command = gunicorn(BARE, 1, port, "--pythonpath", str(APPS), "by_hand:app")
        given: dict[str, Any] = {"BENCH_DATABASE": database, "BENCH_SYNCHRONOUS": synchronous}
        with serve(site, command, port, **given) as running:
            running.kept = lambda: rows(database, "events")
            yield running

    return start


def webhook(command: Path) -> Start:
    def start(site: Site) -> Iterator[Running]:
        program = site.peers.place("webhook")
        if command.suffix and not shutil.which("sqlite3"):
            raise CannotMeasure("the command sqlite3 is missing: apt-get install sqlite3")
        database, port = _events(site), free_port()
        hooks = hooks_file(site.folder, command)
        call = [str(program), "-hooks", str(hooks), "-ip", "127.0.0.1", "-port", str(port)]
        with serve(site, call, port, BENCH_DATABASE=database) as running:
            running.prefix, running.has_workers = PREFIX, False
            running.kept = (lambda: rows(database, "events")) if command.suffix else None
            yield running

    return start


def fastapi(*, in_its_loop: bool = False) -> Start:
    def start(site: Site) -> Iterator[Running]:
        python = site.peers.place("fastapi")
        database, port = _events(site), free_port()
        options = ("--host", "127.0.0.1", "--port", str(port), "--no-access-log")
        command = [
            str(python),
            "-m",
            "uvicorn",
            "--log-level",
            "warning",
            *options,
            "by_fastapi:app",
        ]
        given = {"BENCH_DATABASE": database, "BENCH_IN_ITS_LOOP": int(in_its_loop)}
        with serve(site, command, port, APPS, **given) as running:
            running.has_workers = False
            running.kept = lambda: rows(database, "events")
            yield running

    return start


def express(site: Site) -> Iterator[Running]:
    folder = site.peers.place("express")
    database, port = _events(site), free_port()
    given: dict[str, Any] = {"BENCH_DATABASE": database, "BENCH_NODE": folder, "BENCH_PORT": port}
    command = ["node", str(APPS / "by_express.js")]
    with serve(site, command, port, NODE_ENV="production", **given) as running:
        running.has_workers = False
        running.kept = lambda: rows(database, "events")
        yield running


def knocker(site: Site) -> Iterator[Running]:
    python = site.peers.place("knocker")
    database, port = site.folder / "knocker.db", free_port()
    stock = ("--worker-class", "gthread")
    bare = str(APPS / "gunicorn_stock.py")
    command = gunicorn(bare, 1, port, *stock, "by_knocker:app", python=str(python))
    with serve(site, command, port, APPS, BENCH_DATABASE=database) as running:
        running.kept = lambda: rows(database, "knocker_events")
        yield running


def _events(site: Site) -> Path:
    """Create a database with the table that all peers write to."""
    database = site.folder / "events.db"
    text = (APPS / "event_table.py").read_text()
    connection = sqlite3.connect(database)
    connection.execute("pragma journal_mode = wal")
    connection.execute(text.partition('CREATE = """')[2].partition('"""')[0])
    connection.close()
    return database

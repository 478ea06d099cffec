"""Who is measured: each starts as it would in production, and tells how many events it kept."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench import APPS, ROOT
from bench.disks import Disk, under_us
from bench.peers import Peers
from bench.processes import (
    CannotMeasure,
    answers,
    free_port,
    parent,
    process,
    tree,
    wait_until,
)
from bench.webhook import PREFIX, hooks_file
from postgres_server import NoPostgresError, started
from receiver.stores import open_store
from samples import SECRET

API_TOKEN = "of-the-bench-alone"  # noqa: S105 - opens nothing that outlives the bench
OURS = "python:receiver.web.gunicorn"
COMMIT_EACH = "bench.apps.commit_each:app"  # the same, without group commit
BARE = "python:bench.apps.gunicorn_bare"
# Another front of ours, by its name: what gunicorn is told beside the settings of OURS.
FRONTS: dict[str, tuple[str, ...]] = {
    "threads": ("--worker-class", "receiver.web.worker.Worker"),
}
HOOK = """
[[hook]]
name = "{name}"
type = "slack"
url = "http://127.0.0.1:{port}/"
allow_private = true
"""
NOWHERE = 9  # the port of a web process's hooks: it only writes what is to be delivered


@dataclass
class Running:
    """A server that is up. `roots`: the processes whose trees do its work."""

    port: int
    roots: list[int]
    log: Path
    kept: Callable[[], int] | None = None  # how many events are on its record
    prefix: str = ""
    has_workers: bool = True  # the first root only watches over those that answer

    @property
    def workers(self) -> list[int]:
        """Those that answer requests."""
        return tree(self.roots[0])[1:] if self.has_workers else self.roots[:1]


@dataclass
class Site:
    """Where one variant runs."""

    folder: Path
    disk: Disk
    peers: Peers

    def environment(self, **more: object) -> dict[str, str]:
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        given = {name: str(value) for name, value in more.items()}
        return {**own, "CALLBACK_SECRETS": SECRET, **self.disk.environment, **given}


Start = Callable[[Site], Iterator[Running]]


@dataclass(frozen=True)
class Variant:
    """`start` is a generator that yields once, while the server is up."""

    name: str
    kind: str  # ceiling, us, by hand, peer
    start: Start = field(compare=False)
    durable: str = ""  # what an answer of 200 promises


def everybody() -> list[Variant]:
    """The rows of the table, in order; the first is what the others are compared with."""
    full, normal = "power cut", "crash of the process"
    return [
        Variant("ceiling: Flask answers 200, 1 process", "ceiling", _flask("ceiling", 1)),
        Variant("the same, 2 processes", "ceiling", _flask("ceiling", 2)),
        Variant("the same on stock gthread, 1 process", "ceiling", _flask("ceiling", 1, "gthread")),
        Variant("us, SQLite, 1 process", "us", _us(1), full),
        Variant("us, SQLite, 2 processes", "us", _us(2), full),
        *(
            Variant(f"us, SQLite, {count}, {name}", "us", _us(number, options), full)
            for name, options in FRONTS.items()
            for number, count in ((1, "1 process"), (2, "2 processes"))
        ),
        Variant("us, SQLite, 1 process, a commit each", "us", _us(1, app=COMMIT_EACH), full),
        Variant("us, PostgreSQL, 2 processes", "us", _us_on_postgres(2), full),
        Variant("Flask + sqlite3 FULL, a commit each", "by hand", _by_hand("FULL"), full),
        Variant("Flask + sqlite3 NORMAL, a commit each", "by hand", _by_hand("NORMAL"), normal),
        Variant("adnanh/webhook + sqlite3 FULL", "peer", _webhook(APPS / "insert.sh"), full),
        Variant("adnanh/webhook + /bin/true", "peer", _webhook(Path("/bin/true"))),
        Variant("FastAPI + uvicorn + sqlite3 FULL", "peer", _fastapi(), full),
        Variant("the same, commits in the event loop", "peer", _fastapi(in_its_loop=True), full),
        Variant("Express + better-sqlite3 FULL", "peer", _express, full),
        Variant("Knocker behind Flask", "peer", _knocker, normal),
    ]


@contextmanager
def up(variant: Variant, site: Site) -> Iterator[Running]:
    """The variant, while it serves. Raises CannotMeasure."""
    site.folder.mkdir(parents=True)
    with contextmanager(variant.start)(site) as running:
        wait_until(lambda: answers(running.port), running.log)
        yield running


@contextmanager
def serve(
    site: Site, command: Sequence[str | Path], port: int, cwd: Path = ROOT, **environment: object
) -> Iterator[Running]:
    log = site.folder / "log"
    with process(command, log, site.environment(**environment), cwd) as pid:
        yield Running(port, [pid], log)


def gunicorn(config: str, workers: int, port: int, *more: str, python: str = "") -> list[str]:
    command = [python or sys.executable, "-m", "gunicorn", "--config", config]
    return [*command, "--workers", str(workers), "--bind", f"127.0.0.1:{port}", *more]


def two_hooks(port: int) -> str:
    """A hooks file whose two hooks hear the end of a task."""
    return "".join(HOOK.format(name=name, port=port) for name in ("shop", "books"))


@contextmanager
def our_web(
    site: Site,
    database_url: str,
    workers: int,
    options: Sequence[str] = (),
    app: str = "wsgi:app",
    **environment: object,
) -> Iterator[Running]:
    """The web process as it ships, on a record that is there."""
    hooks, port = site.folder / "hooks.toml", free_port()
    if not hooks.exists():
        hooks.write_text(two_hooks(NOWHERE))
    command = gunicorn(OURS, workers, port, *options, app)
    given = {"DATABASE_URL": database_url, "HOOKS_FILE": hooks, "API_TOKEN": API_TOKEN}
    with serve(site, command, port, **{**given, **environment}) as running:
        wait_until(lambda: answers(port), running.log)
        wait_until(lambda: len(tree(running.roots[0])) == workers + 1, running.log)
        yield running


def migrate(database_url: str) -> None:
    store = open_store(database_url)
    store.migrate()
    store.close()


def _us(workers: int, options: Sequence[str] = (), app: str = "wsgi:app") -> Start:
    def start(site: Site) -> Iterator[Running]:
        database = site.folder / "receiver.db"
        migrate(f"sqlite:///{database}")
        with our_web(site, f"sqlite:///{database}", workers, options, app) as running:
            running.kept = lambda: rows(database, "callbacks")
            yield running

    return start


@contextmanager
def postgres(disk: Disk) -> Iterator[tuple[str, int]]:
    """The URL of a durable server on that disk, and its process. Raises CannotMeasure."""
    with ExitStack() as stack:
        try:
            with under_us(disk):
                server = stack.enter_context(started(durable=True))
        except NoPostgresError as error:
            raise CannotMeasure(str(error)) from None
        with psycopg.connect(server.url) as connection:
            row = connection.execute("select pg_backend_pid()").fetchone()
            assert row is not None
            postmaster = parent(row[0])
        yield server.url, postmaster


def _us_on_postgres(workers: int) -> Start:
    def start(site: Site) -> Iterator[Running]:
        with postgres(site.disk) as (url, postmaster):
            migrate(url)
            with our_web(site, url, workers) as running:
                running.roots.append(postmaster)
                running.kept = lambda: postgres_rows(url, "callbacks")
                yield running

    return start


def _flask(app: str, workers: int, worker_class: str = "") -> Start:
    def start(site: Site) -> Iterator[Running]:
        port = free_port()
        more = ("--worker-class", worker_class) if worker_class else ()
        command = gunicorn(BARE, workers, port, *more, f"bench.apps.{app}:app")
        with serve(site, command, port) as running:
            yield running

    return start


def _by_hand(synchronous: str) -> Start:
    def start(site: Site) -> Iterator[Running]:
        database, port = _events(site), free_port()
        command = gunicorn(BARE, 1, port, "--pythonpath", str(APPS), "by_hand:app")
        given = {"BENCH_DATABASE": database, "BENCH_SYNCHRONOUS": synchronous}
        with serve(site, command, port, **given) as running:
            running.kept = lambda: rows(database, "events")
            yield running

    return start


def _webhook(command: Path) -> Start:
    def start(site: Site) -> Iterator[Running]:
        program = _needed(site.peers, "webhook", site.peers.webhook)
        if command.suffix and not shutil.which("sqlite3"):
            raise CannotMeasure("the command sqlite3 is not here: apt-get install sqlite3")
        database, port = _events(site), free_port()
        hooks = hooks_file(site.folder, command)
        call = [program, "-hooks", hooks, "-ip", "127.0.0.1", "-port", str(port)]
        with serve(site, call, port, BENCH_DATABASE=database) as running:
            running.prefix, running.has_workers = PREFIX, False
            running.kept = (lambda: rows(database, "events")) if command.suffix else None
            yield running

    return start


def _fastapi(*, in_its_loop: bool = False) -> Start:
    def start(site: Site) -> Iterator[Running]:
        python = _needed(site.peers, "fastapi", site.peers.fastapi)
        database, port = _events(site), free_port()
        options = ("--host", "127.0.0.1", "--port", str(port), "--no-access-log")
        command = [python, "-m", "uvicorn", "--log-level", "warning", *options, "by_fastapi:app"]
        given = {"BENCH_DATABASE": database, "BENCH_IN_ITS_LOOP": int(in_its_loop)}
        with serve(site, command, port, APPS, **given) as running:
            running.has_workers = False
            running.kept = lambda: rows(database, "events")
            yield running

    return start


def _express(site: Site) -> Iterator[Running]:
    folder = _needed(site.peers, "express", site.peers.express)
    database, port = _events(site), free_port()
    given = {"BENCH_DATABASE": database, "BENCH_NODE": folder, "BENCH_PORT": port}
    command = ["node", APPS / "by_express.js"]
    with serve(site, command, port, NODE_ENV="production", **given) as running:
        running.has_workers = False
        running.kept = lambda: rows(database, "events")
        yield running


def _knocker(site: Site) -> Iterator[Running]:
    python = _needed(site.peers, "knocker", site.peers.knocker)
    database, port = site.folder / "knocker.db", free_port()
    stock = ("--worker-class", "gthread")
    bare = str(APPS / "gunicorn_stock.py")
    command = gunicorn(bare, 1, port, *stock, "by_knocker:app", python=str(python))
    with serve(site, command, port, APPS, BENCH_DATABASE=database) as running:
        running.kept = lambda: rows(database, "knocker_events")
        yield running


def _needed(peers: Peers, name: str, place: Path | None) -> Path:
    if place is None:
        raise CannotMeasure(f"could not be installed: {peers.why_not.get(name, 'not tried')}")
    return place


def rows(database: Path, table: str) -> int:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=30)
    try:
        return int(connection.execute(f"select count(*) from {table}").fetchone()[0])  # noqa: S608
    finally:
        connection.close()


def postgres_rows(url: str, table: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(f"select count(*) from {table}".encode()).fetchone()  # noqa: S608
    assert row is not None
    return int(row[0])


def _events(site: Site) -> Path:
    """A database with the table of the peers, which all of them write to."""
    database = site.folder / "events.db"
    text = (APPS / "event_table.py").read_text()
    connection = sqlite3.connect(database)
    connection.execute("pragma journal_mode = wal")
    connection.execute(text.partition('CREATE = """')[2].partition('"""')[0])
    connection.close()
    return database

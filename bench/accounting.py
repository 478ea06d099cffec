"""Counts acknowledged against stored callbacks under faults: the figures of docs/operating.md.

    .venv/bin/python -m bench.accounting [--rounds 3] [--only FAULT] [--write]

Real processes on loopback: gunicorn with two web processes as in production, on SQLite and on
PostgreSQL with fsync. Four clients send callbacks of new tasks, and retry each one until it gets a
200, as providers do. In each round, a fault is injected under this load. At the end, all processes
are started again, and each acknowledged callback is looked up.

It prints one table; with --write it also puts it into docs/operating.md.
"""

from __future__ import annotations

import argparse
import http.client
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench import ROOT, disks
from bench.disks import Disk as OfTheBench
from bench.ours import OURS, migrate
from bench.peers import Peers
from bench.processes import CannotMeasure, answers, free_port, tree, wait_until
from bench.progress import elapsed, say
from bench.report import table
from bench.site import Site, gunicorn
from receiver.errors import NotFound
from receiver.signing.callback_urls import mint
from receiver.stores import open_store
from tests.support.disk import FULL, Disk, can_be_installed
from tests.support.postgres_server import Server, started
from tests.support.samples import SECRET, body

PAGE = ROOT / "docs" / "operating.md"
COLUMNS = (
    "fault", "database", "rounds", "sent", "acknowledged", "stored", "lost", "duplicated",
)  # fmt: skip
CLIENTS = 4
WEB_PROCESSES = 2
BETWEEN = 60  # acknowledged callbacks before and after each fault
DURING = 1.0  # duration of a fault, in seconds
ANSWERED_WITHIN = 60.0  # seconds
HOUR = 3600
SMALL_DISK = "700m"
SQLITE, POSTGRES = "SQLite", "PostgreSQL"


@dataclass
class Row:
    """The result of one fault on one database."""

    fault: str
    database: str
    rounds: int = 0
    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0  # acknowledged but not stored
    duplicated: int = 0  # tasks with a callback or status that is stored twice
    why_not: str = ""

    def cells(self) -> list[str]:
        if self.why_not:
            return [self.fault, self.database, self.why_not, *[""] * (len(COLUMNS) - 3)]
        figures = (
            self.rounds, self.sent, self.acknowledged, self.stored, self.lost, self.duplicated,
        )  # fmt: skip
        return [self.fault, self.database, *(f"{figure:,}" for figure in figures)]


class Load:
    """Sends callbacks of new tasks from several clients."""

    def __init__(self, port: int, name: str) -> None:
        self._port, self._name = port, name
        self._over = threading.Event()
        self.sent: list[str] = []  # task ids; each task has one callback
        self.acknowledged: list[str] = []
        self._threads = [
            threading.Thread(target=self._send, args=(number,)) for number in range(CLIENTS)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def wait_for_more(self) -> None:
        """Wait until BETWEEN more callbacks have been acknowledged. Raises CannotMeasure."""
        enough, until = len(self.acknowledged) + BETWEEN, time.monotonic() + ANSWERED_WITHIN
        while len(self.acknowledged) < enough:
            if time.monotonic() > until:
                raise CannotMeasure(f"fewer than {BETWEEN} responses in {ANSWERED_WITHIN:g} s")
            time.sleep(0.01)

    def _send(self, client: int) -> None:
        number = 0
        while not self._over.is_set():
            number += 1
            task = f"{self._name}-{client}-{number}"
            self.sent.append(task)
            while not self._over.is_set():
                if self._is_acknowledged(task):
                    self.acknowledged.append(task)
                    break
                time.sleep(0.05)  # refused, or no server is listening

    def _is_acknowledged(self, task: str) -> bool:
        path = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=15)
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, body(task_id=f"at-kling-{task}"), headers)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@dataclass
class Service:
    """Two web processes and a worker on one database."""

    folder: Path
    url: str
    port: int = field(default_factory=free_port)
    server: Server | None = None  # PostgreSQL's
    is_watched: bool = False  # whether SQLite's disk can fail or lose power
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """Return SQLite's file."""
        return self.folder / "receiver.db"

    @property
    def clock(self) -> Path:
        """Return the file that contains the clock step."""
        return self.folder / "clock"

    def start(self, *names: str) -> None:
        """Start these processes, or all; wait until the web processes respond."""
        app = "bench.apps.watched_disk:app" if self.is_watched else "wsgi:app"
        worker = ["bench.apps.watched_worker"] if self.is_watched else ["receiver", "worker"]
        commands = {
            "web": gunicorn(OURS, WEB_PROCESSES, self.port, "--pythonpath", str(ROOT), app),
            "worker": [sys.executable, "-m", *worker],
        }
        path = f"{ROOT / 'bench' / 'stepped_clock'}:{ROOT}"
        environment = Site(self.folder, OfTheBench(), Peers()).environment(
            DATABASE_URL=self.url,
            HOOKS_FILE=self.folder / "hooks.toml",
            STEPPED_CLOCK=self.clock,
            PYTHONPATH=path,
        )
        for name in names or commands:
            with (self.folder / f"{name}.log").open("ab") as log:
                self._running[name] = subprocess.Popen(
                    commands[name],
                    cwd=ROOT,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        wait_until(lambda: answers(self.port), self.folder / "web.log")

    def kill(self, *names: str) -> None:
        """SIGKILL these processes, or all, with their children."""
        for name in names or tuple(self._running):
            child = self._running.pop(name)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()

    def stop(self) -> None:
        """Stop all processes with SIGTERM; kill those that do not end."""
        for child in self._running.values():
            child.terminate()
        for child in self._running.values():
            with suppress(subprocess.TimeoutExpired):
                child.wait(40)
        self.kill()

    def web_workers(self) -> list[int]:
        return tree(self._running["web"].pid)[1:]


class Fault(Protocol):
    """Causes a fault under load, then removes it.

    The first line of the docstring is the fault's name.
    """

    def __call__(self, service: Service, number: int) -> None: ...


def a_web_process_is_killed(service: Service, number: int) -> None:  # noqa: ARG001
    """SIGKILL of a web process"""
    with suppress(ProcessLookupError):
        os.kill(random.choice(service.web_workers()), signal.SIGKILL)  # noqa: S311


def everything_is_killed(service: Service, number: int) -> None:  # noqa: ARG001
    """SIGKILL of all processes"""
    service.kill()
    service.start()


def everything_is_stopped(service: Service, number: int) -> None:  # noqa: ARG001
    """restart with SIGTERM"""
    service.stop()
    service.start()


def power_is_cut(service: Service, number: int) -> None:
    """power cut: only synced data is left"""
    service.kill()
    left = service.folder / f"cut-{number}"
    Disk(service.database).after_a_power_cut(left)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{service.database}{suffix}").unlink(missing_ok=True)
        if (left / f"receiver.db{suffix}").exists():
            shutil.copy(left / f"receiver.db{suffix}", service.folder)


def the_disk_is_full(service: Service, number: int) -> None:  # noqa: ARG001
    """full disk"""
    if service.server is None:
        Disk(service.database).break_("write", FULL)
        time.sleep(DURING)
        Disk(service.database).mend()
        return
    ballast = Path(tempfile.gettempdir()) / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(2**20))
    time.sleep(DURING)
    ballast.unlink()
    with suppress(Exception):  # unlike ours, the server may stop because of a full disk
        service.server.stop(at_once=True)
    service.server.start()


def files_are_removed(service: Service, number: int) -> None:
    """-wal and -shm removed, then SIGKILL or SIGTERM of all"""
    for suffix in (("-wal",), ("-shm",), ("-wal", "-shm"))[number % 3]:
        Path(f"{service.database}{suffix}").unlink(missing_ok=True)
    time.sleep(DURING)
    if number % 2:
        service.kill()
    else:
        service.stop()
    service.start()


def the_clock_is_stepped(service: Service, number: int) -> None:
    """clock set forward or back by an hour"""
    service.clock.write_text(str(HOUR if number % 2 else -HOUR))
    time.sleep(DURING)


def the_server_is_restarted(service: Service, number: int) -> None:  # noqa: ARG001
    """restart of PostgreSQL"""
    assert service.server is not None
    service.server.stop()
    time.sleep(DURING)
    service.server.start()


def the_server_crashes(service: Service, number: int) -> None:  # noqa: ARG001
    """crash of PostgreSQL"""
    assert service.server is not None
    service.server.stop(at_once=True)
    time.sleep(DURING)
    service.server.start()


BOTH = (SQLITE, POSTGRES)
FAULTS: dict[str, tuple[Fault, tuple[str, ...]]] = {
    "kill-one": (a_web_process_is_killed, BOTH),
    "kill-all": (everything_is_killed, BOTH),
    "restart": (everything_is_stopped, BOTH),
    "power": (power_is_cut, (SQLITE,)),
    "full": (the_disk_is_full, BOTH),
    "unlinked": (files_are_removed, (SQLITE,)),
    "clock": (the_clock_is_stepped, BOTH),
    "database-restart": (the_server_is_restarted, (POSTGRES,)),
    "database-crash": (the_server_crashes, (POSTGRES,)),
}
NEED_A_WATCHED_DISK = (power_is_cut, the_disk_is_full)


def account(key: str, database: str, rounds: int, place: Path) -> Row:
    """Cause a fault `rounds` times under load; return the result."""
    fault, _ = FAULTS[key]
    row = Row((fault.__doc__ or key).strip(), database)
    if database == SQLITE and fault in NEED_A_WATCHED_DISK and not can_be_installed():
        row.why_not = "not measured: this Python's SQLite cannot be watched"
        return row
    try:
        with ExitStack() as stack:
            server = None
            if database == POSTGRES:
                if key == "full":
                    stack.enter_context(_small_disk())
                server = stack.enter_context(_server())
            # After a power cut, the remaining rows are counted, and the next round
            # starts with a new record.
            parts = [1] * rounds if fault is power_is_cut else [rounds]
            for part in parts:
                _measure(row, fault, part, Path(tempfile.mkdtemp(dir=place)), server)
    except Exception as error:  # noqa: BLE001 - earlier counts must not be lost
        row.why_not = f"not measured: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return row


@contextmanager
def _server() -> Iterator[Server]:
    """Run a durable PostgreSQL server."""
    with started(durable=True) as server:
        yield server


@contextmanager
def _small_disk() -> Iterator[None]:
    """Mount a file system of SMALL_DISK on a temporary folder. Needs root."""
    place = Path(tempfile.mkdtemp(prefix="small-disk-"))
    place.chmod(0o755)  # PostgreSQL runs as another user
    mount = ["/bin/mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=1777", "none", str(place)]
    before = tempfile.tempdir
    try:
        if os.geteuid() or subprocess.run(mount, check=False).returncode:
            raise CannotMeasure("only root can mount a small disk")
        tempfile.tempdir = str(place)
        try:
            yield
        finally:
            subprocess.run(["/bin/umount", "--lazy", str(place)], check=False)
    finally:
        tempfile.tempdir = before
        place.rmdir()


def _measure(row: Row, fault: Fault, rounds: int, folder: Path, server: Server | None) -> None:
    url = f"sqlite:///{folder}/receiver.db" if server is None else server.url
    (folder / "hooks.toml").write_text("")
    migrate(url)
    is_watched = server is None and fault in NEED_A_WATCHED_DISK
    service = Service(folder, url, server=server, is_watched=is_watched)
    if is_watched:
        Disk(service.database).begin()
    try:
        service.start()
        with Load(service.port, "task") as load:
            load.wait_for_more()
            for number in range(rounds):
                fault(service, number)
                if fault is not power_is_cut:
                    load.wait_for_more()
                row.rounds += 1
        service.kill()  # data that is not durable is lost now
        _count(row, load, url)
    except CannotMeasure as error:
        raise CannotMeasure(f"round {row.rounds + 1}: {error}") from error
    finally:
        service.kill()


def _count(row: Row, load: Load, url: str) -> None:
    store = open_store(url)
    row.sent += len(load.sent)
    row.acknowledged += len(load.acknowledged)
    acknowledged = set(load.acknowledged)
    try:
        for task in load.sent:
            try:
                history = store.queries.history(task)
            except NotFound:
                row.lost += task in acknowledged
                continue
            statuses = [move.status for move in history.transitions]
            row.stored += bool(history.callbacks)
            row.lost += task in acknowledged and not history.callbacks
            is_twice = len(history.callbacks) > 1 or len(set(statuses)) < len(statuses)
            row.duplicated += is_twice
    finally:
        store.close()


def measure(rounds: int, keys: list[str]) -> list[Row]:
    """Measure every fault on every database that it concerns."""
    found: list[Row] = []
    with disks.folder() as place:
        for key in keys:
            for database in FAULTS[key][1]:
                say(f"{key} on {database}")
                row = account(key, database, rounds, place)
                found.append(row)
                say("  " + (row.why_not or f"{row.acknowledged} acknowledged, {row.lost} lost"))
    return found


def write(lines: str) -> None:
    """Replace the table in the page. Raises ValueError if the page has none."""
    head = lines.splitlines()[0]
    before, found, rest = PAGE.read_text().partition(head + "\n")
    if not found:
        raise ValueError(f"{PAGE} has no table that begins: {head}")
    after = rest.splitlines(keepends=True)
    while after and after[0].startswith("|"):
        del after[0]
    PAGE.write_text(f"{before}{lines}\n{''.join(after)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.accounting")
    parser.add_argument(
        "--rounds", type=int, default=int(os.environ.get("ROUNDS", "3")), help="of each fault"
    )
    parser.add_argument("--only", action="append", choices=list(FAULTS), help="may be repeated")
    parser.add_argument(
        "--write", action="store_true", help="also write the table to docs/operating.md"
    )
    given = parser.parse_args()
    rows = measure(given.rounds, given.only or list(FAULTS))
    lines = table(COLUMNS, [row.cells() for row in rows])
    print(lines)
    say(f"the measurement took {elapsed() / 60:.1f} minutes")
    if given.write:
        if given.only:
            parser.error("--write stores the whole table: leave out --only")
        write(lines)
    return int(any(row.lost or row.duplicated for row in rows))


if __name__ == "__main__":
    sys.exit(main())

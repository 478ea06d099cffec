"""A failed commit causes a 503 with Retry-After, never a 2xx, and needs no restart afterwards."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest
import requests

from sandbox.server import Sandbox
from tests.support.disk import FAILED_SYNC, FAILED_WRITE, FULL, WHY_NOT, Disk, can_be_installed
from tests.support.gunicorn_processes import database, launch, launch_all, send, workers
from tests.support.installation import Installation
from tests.support.patience import PATIENCE

AT_ONCE = 6
IMPATIENT = "tests.support.apps.impatient:app"
# the fault lasts while the context is entered
Fault = Callable[[Installation], AbstractContextManager[None]]

can_be_watched = pytest.mark.skipif(not can_be_installed(), reason=WHY_NOT)


def send_at_once(installation: Installation, name: str) -> list[requests.Response]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda n: send(installation, f"{name}-{n}"), range(AT_ONCE)))


def must_be_refused(installation: Installation) -> None:
    for answer in send_at_once(installation, "task"):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(f"{installation.url}/healthz", timeout=PATIENCE).status_code == 200


def must_be_recorded(installation: Installation) -> None:
    """Send the refused callbacks again, which are recorded as if they had never been sent."""
    answers = [(found.status_code, found.json()) for found in send_at_once(installation, "task")]
    assert answers == [(200, {"outcome": "recorded"})] * AT_ONCE
    for number in range(AT_ONCE):
        history = installation.store.queries.history(f"task-{number}")
        assert [move.status for move in history.transitions] == ["succeeded"]
        assert [stored.repeats for stored in history.callbacks] == [0]
        assert len(history.deliveries) == 3


def through_the_fault(installation: Installation, fault: Fault, processes: list[int]) -> None:
    assert send(installation, "before").status_code == 200
    impatient = installation.folder / "impatient"  # created before the disk may be full
    impatient.touch()
    with fault(installation):
        must_be_refused(installation)
    impatient.unlink()
    must_be_recorded(installation)
    assert workers(installation) == processes  # no process was restarted
    assert "Traceback" not in installation.logs()


def breaks(what: str, code: int) -> Fault:
    """Return a fault of the disk that SQLite uses."""

    @contextmanager
    def fault(installation: Installation) -> Iterator[None]:
        disk = Disk(database(installation))
        disk.break_(what, code)
        yield
        disk.mend()

    return fault


@can_be_watched
@pytest.mark.parametrize(
    "fault",
    [breaks("write", FULL), breaks("write", FAILED_WRITE), breaks("sync", FAILED_SYNC)],
    ids=["full disk", "write error", "sync error"],
)
def test_a_failing_disk_causes_503(installation: Installation, fault: Fault) -> None:
    Disk(database(installation)).begin()
    processes = launch_all(installation, "tests.support.apps.watched_disk:app")
    through_the_fault(installation, fault, processes)


@contextmanager
def no_file_may_grow(installation: Installation) -> Iterator[None]:
    """Let the kernel refuse each write with EFBIG, which also affects the log."""
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_FSIZE) for pid in workers(installation)}
    for pid, (_, hard) in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (1, hard))
    yield
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limit)


@contextmanager
def locked_by_another_program(installation: Installation) -> Iterator[None]:
    """Lock the database like a program that ignores our file lock, such as the `sqlite3` shell."""
    connection = sqlite3.connect(database(installation), isolation_level=None)
    connection.execute("begin immediate")
    yield
    connection.execute("rollback")
    connection.close()


HOLD = """
import sys; from pathlib import Path; from receiver.stores.sqlite.writer import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def stopped_while_it_writes(installation: Installation) -> Iterator[None]:
    """Stop one of our own processes while it holds the file lock."""
    command = [sys.executable, "-c", HOLD, str(database(installation))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        other.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            other.kill()


@contextmanager
def moved_away(installation: Installation) -> Iterator[None]:
    elsewhere = database(installation).with_name("elsewhere.db")
    database(installation).rename(elsewhere)
    yield
    elsewhere.rename(database(installation))


@pytest.mark.parametrize(
    "fault", [no_file_may_grow, locked_by_another_program, stopped_while_it_writes, moved_away]
)
def test_a_file_that_cannot_be_written_causes_503(installation: Installation, fault: Fault) -> None:
    through_the_fault(installation, fault, launch_all(installation, IMPATIENT))


def test_read_only_files_at_the_start_cause_503(installation: Installation) -> None:
    """They are read-only after `sudo receiver migrate`, until the server's user owns them."""
    assert (
        installation.store.lists.tasks() == []
    )  # this process has them open, so that all three files exist
    files = [installation.folder / f"receiver.db{suffix}" for suffix in ("", "-wal", "-shm")]
    for file in files:
        file.chmod(0o444)
    processes = launch(installation, IMPATIENT, "tests.support.unprivileged")
    must_be_refused(installation)
    assert installation.store.lists.tasks() == []
    for file in files:
        file.chmod(0o644)
    must_be_recorded(installation)
    assert workers(installation) == processes


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = ["/bin/mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if sys.platform != "linux" or os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("only root can mount a small disk; run the tests as root to include this one")
    yield folder
    # Lazily, because readers of this process may still have files open.
    subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


def test_a_full_file_system_causes_503(small_disk: Path, sandbox: Sandbox) -> None:
    """The log is on the same disk, as on a machine with only one disk."""
    installation = Installation(small_disk, sandbox)
    installation.migrate()
    try:
        through_the_fault(installation, full, launch_all(installation, IMPATIENT))
    finally:
        installation.close()


@contextmanager
def full(installation: Installation) -> Iterator[None]:
    ballast = installation.folder / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    yield
    ballast.unlink()

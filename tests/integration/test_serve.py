"""`receiver serve` restarts processes, gives up when one keeps dying, and leaves none behind."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from receiver.processes.serve import commands, python_module
from receiver.processes.shutdown import CANNOT_LISTEN
from receiver.stores.sqlite import SqliteStore
from tests.support import processes
from tests.support.installation import ROOT
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import SECRET

# Records its start and each SIGHUP; ends at SIGTERM, or with a status read from a file.
PROGRAM = """
import os, signal, sys, time
folder, name = sys.argv[1:3]
def note(what):
    with open(f"{folder}/{name}", "a") as file:
        file.write(f"{what} {os.getpid()}\\n")
signal.signal(signal.SIGHUP, lambda *_: note("hup"))
signal.signal(signal.SIGTERM, lambda *_: (note("term"), sys.exit(0)))
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
note("start")
while not os.path.exists(f"{folder}/{name}.status"):
    time.sleep(0.01)
sys.exit(int(open(f"{folder}/{name}.status").read()))
"""


class Supervised:
    """The supervisor with two programs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"

    def start(self, delay: float = 0, *terminal: str) -> None:
        """Start the supervisor; with `terminal`, as the leader of that terminal's session."""
        names = ("web", "worker")
        # Without packages (-S), an interpreter starts in half the time.
        program = [sys.executable, "-S", "-c", PROGRAM, str(self.folder)]
        wanted = json.dumps({name: [*program, name] for name in names})
        command = ["tests.support.apps.supervised", wanted, str(delay), *terminal]
        with self.log.open("wb") as log:
            self.process = processes.start(command, processes.forkable(os.environ), log)
        self.wait_until(lambda: len(self.noted("web")) == len(self.noted("worker")) == 1)

    def wait_until(self, condition: Callable[[], object]) -> None:
        wait_until(condition, self.log.read_text)

    def noted(self, name: str, what: str = "start") -> list[int]:
        """Return the process ids that recorded this."""
        with suppress(FileNotFoundError):
            lines = [line.split() for line in (self.folder / name).read_text().splitlines()]
            return [int(pid) for word, pid in lines if word == what]
        return []

    def kill(self, name: str) -> None:
        """Kill the program, and wait until it was restarted."""
        starts = self.noted(name)
        os.kill(starts[-1], signal.SIGKILL)
        self.wait_until(lambda: len(self.noted(name)) > len(starts))

    def ends_with(self, name: str, status: int) -> None:
        (self.folder / f"{name}.new").write_text(str(status))
        (self.folder / f"{name}.new").rename(self.folder / f"{name}.status")

    def status(self) -> int:
        return self.process.wait(PATIENCE)

    def left(self) -> list[int]:
        """Return the programs that still run."""
        found = [*self.noted("web"), *self.noted("worker")]
        return [pid for pid in found if Path(f"/proc/{pid}").exists() and not _is_dead(pid)]


def _is_dead(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


@pytest.fixture
def supervised(tmp_path: Path) -> Iterator[Supervised]:
    made = Supervised(tmp_path)
    made.start()
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait(PATIENCE)
    wait_until(lambda: not made.left())


def test_a_process_that_died_is_restarted_and_the_others_continue(
    supervised: Supervised,
) -> None:
    for _ in range(3):
        supervised.kill("worker")
    supervised.kill("web")
    assert (len(supervised.noted("web")), len(supervised.noted("worker"))) == (2, 4)
    assert supervised.noted("web", "term") == []
    supervised.process.send_signal(signal.SIGHUP)  # every running process reads the file again
    for name in ("web", "worker"):
        supervised.wait_until(lambda name=name: supervised.noted(name, "hup"))  # type: ignore[misc]
        assert supervised.noted(name, "hup") == supervised.noted(name)[-1:]
    supervised.process.terminate()
    assert supervised.status() == 0
    assert supervised.left() == []
    log = supervised.log.read_text()
    assert log.count("a process ended by itself and is started again") == 4
    assert "Traceback" not in log


@pytest.mark.parametrize("status", [1, 0])
def test_serve_gives_up_after_five_deaths(supervised: Supervised, status: int) -> None:
    supervised.ends_with("worker", status)
    assert supervised.status() == 1
    assert len(supervised.noted("worker")) == 5
    assert supervised.noted("web", "term") == supervised.noted("web")  # it had time to finish
    assert supervised.left() == []
    assert "a process keeps dying: giving up, and stopping the others" in supervised.log.read_text()


def test_an_address_in_use_ends_serve_without_another_try(supervised: Supervised) -> None:
    supervised.ends_with("web", CANNOT_LISTEN)
    assert supervised.status() == 1
    assert len(supervised.noted("web")) == 1
    assert supervised.left() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_serve_stops_while_a_process_waits_to_be_restarted(
    tmp_path: Path, number: signal.Signals
) -> None:
    supervised = Supervised(tmp_path)
    supervised.start(delay=86_400)
    os.kill(supervised.noted("worker")[0], signal.SIGKILL)
    supervised.wait_until(lambda: "is started again" in supervised.log.read_text())
    supervised.process.send_signal(signal.SIGHUP)
    supervised.wait_until(lambda: supervised.noted("web", "hup"))
    supervised.process.send_signal(number)
    assert supervised.status() == 0
    assert len(supervised.noted("worker")) == 1
    assert supervised.left() == []


def test_serve_stops_when_its_terminal_is_closed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    supervised = Supervised(tmp_path)
    supervised.start(0, os.ttyname(theirs))
    os.close(theirs)
    os.close(ours)  # the kernel sends SIGHUP
    assert supervised.status() == 0
    assert supervised.left() == []


def test_no_process_is_left_when_serve_is_killed(supervised: Supervised) -> None:
    supervised.kill("worker")
    supervised.process.kill()
    supervised.status()
    supervised.wait_until(lambda: not supervised.left())


@pytest.mark.parametrize("kind", ["web", "poller"])
def test_the_processes_ignore_folders_that_have_the_names_of_our_packages(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("receiver", "sandbox", "submitter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise SystemExit('{name} of the user')\n")
    with closing(SqliteStore(tmp_path / "record.db")) as store:
        store.migrate()
    settings = {"CALLBACK_SECRETS": SECRET, "DATABASE_URL": "sqlite:///record.db"}
    monkeypatch.chdir(tmp_path)
    words = {"web": [*commands(None)["web"], "--check-config"], "poller": commands(None)["poller"]}
    done = subprocess.run(
        [word for word in words[kind] if word != "--forever"],
        env={**os.environ, **settings, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, "of the user" in done.stderr) == (0, False), done.stderr


def test_the_processes_find_our_packages_in_a_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert python_module() == (sys.executable, "-m")

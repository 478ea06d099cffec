"""`make run` in a fresh clone starts all three processes, and Ctrl-C ends them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import requests

from receiver.stores import open_store
from tests.support.clean_venv import ROOT, clean_venv
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port

# The compiled modules, which stay valid, are copied to save time.
LEFT_OUT = shutil.ignore_patterns(".*", "data", "tests", "bench", "docs")


class Run:
    """`make run` in its own process group, as a terminal starts it."""

    def __init__(self, folder: Path) -> None:
        self.clone = folder / "a clone"
        shutil.copytree(ROOT, self.clone, ignore=LEFT_OUT)
        clean_venv(self.clone / ".venv")
        (self.clone / ".venv" / ".runtime").touch()  # the packages are already installed
        self.url = f"http://127.0.0.1:{free_port()}"
        self._log = folder / "make.log"
        with self._log.open("wb") as log:
            self.make = subprocess.Popen(
                [str(shutil.which("make")), "run", f"BIND={self.url.removeprefix('http://')}"],
                cwd=self.clone,
                env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def wait_until(self, condition: Callable[[], bool]) -> None:
        wait_until(condition, self.log)

    def answers(self) -> bool:
        with suppress(requests.ConnectionError):
            return requests.get(f"{self.url}/readyz", timeout=PATIENCE).ok
        return False

    def is_everything_running(self) -> bool:
        store = open_store(f"sqlite:///{self.clone}/data/receiver.db")
        try:
            return None not in (
                store.activity.last_seen("worker"),
                store.activity.last_seen("poller"),
            )
        finally:
            store.close()

    def left(self) -> list[str]:
        """Return the command lines of the processes that run in the clone."""
        found = []
        for process in Path("/proc").iterdir():
            with suppress(OSError):  # not a process, not one of our own, or ended
                if (process / "cwd").readlink() == self.clone:
                    found.append((process / "cmdline").read_text())
        return found

    def log(self) -> str:
        return self._log.read_text()

    def close(self) -> None:
        if self.make.poll() is None:
            os.killpg(self.make.pid, signal.SIGKILL)  # the children of `serve` end with it
            self.make.wait(PATIENCE)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    run = Run(tmp_path)
    yield run
    run.close()


def test_all_processes_run_until_ctrl_c(run: Run) -> None:
    run.wait_until(run.answers)
    run.wait_until(run.is_everything_running)
    run.wait_until(lambda: "cannot arrive without PUBLIC_URL" in run.log())
    assert run.log().count("receiver serve has started") == 1
    assert f'"address": "{run.url}"' in run.log()
    assert len(run.left()) >= 5  # make, serve, web, worker, poller
    os.killpg(run.make.pid, signal.SIGINT)
    assert run.make.wait(PATIENCE) != 0
    assert run.left() == []
    assert "ended by itself" not in run.log()
    assert "Traceback" not in run.log()

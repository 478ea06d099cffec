"""Processes started by a test run end with it, even if a signal ends the run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.patience import PATIENCE, wait_until

WAITS = "import signal, os; print(os.getpid(), flush=True); signal.pause()"
CLEANED_UP = 7
# A signal that arrives just before a wait is noticed when the wait ends.
INTERRUPTIBLE_WAIT = "while True: signal.sigtimedwait([], 1)"
CLEANS_UP = f"""
import os, signal, sys, time

try:
    print(os.getpid(), flush=True)
    {INTERRUPTIBLE_WAIT}
except KeyboardInterrupt:
    time.sleep(1)  # longer than `subprocess.run` waits before it kills
    sys.exit({CLEANED_UP})
"""
STARTS_A_SERVER = f"""
import signal, subprocess, sys
from tests.support.orphans import never_orphaned

server = subprocess.Popen([sys.executable, "-c", {WAITS!r}])
with never_orphaned(server, signal.SIGTERM):
    signal.pause()
"""
RUN = f"""
import os, signal

def test_prints_its_process_id_and_waits():
    print(f"\\n{{os.getpid()}}", flush=True)
    {INTERRUPTIBLE_WAIT}
"""


@contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Start a Python process; yield it, and the process id that it or its child prints first."""
    command = [sys.executable, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        lines = (line for line in process.stdout if line.strip().isdecimal())
        try:
            yield process, int(next(lines))
        finally:
            process.kill()


def has_ended(pid: int) -> bool:
    """Return whether the process has ended, or is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_a_server_ends_when_the_process_that_started_it_is_killed() -> None:
    with started("-c", STARTS_A_SERVER) as (process, server):
        process.kill()
        wait_until(lambda: has_ended(server))


@pytest.mark.parametrize("wrapper", ["busy", "postgres_server"])
def test_sigterm_ends_the_command_of_a_wrapper(wrapper: str) -> None:
    count = ["1"] if wrapper == "busy" else []
    command = [*count, sys.executable, "-c", WAITS]
    with started("-m", f"tests.support.{wrapper}", *command) as (process, pid):
        process.terminate()
        assert process.wait(PATIENCE) == 128 + signal.SIGTERM
        assert has_ended(pid)


@pytest.mark.parametrize("wrapper", ["busy", "postgres_server"])
def test_ctrl_c_gives_the_command_of_a_wrapper_time_to_clean_up(wrapper: str) -> None:
    count = ["1"] if wrapper == "busy" else []
    command = [*count, sys.executable, "-c", CLEANS_UP]
    with started("-m", f"tests.support.{wrapper}", *command) as (process, pid):
        process.send_signal(signal.SIGINT)
        os.kill(pid, signal.SIGINT)
        assert process.wait(PATIENCE) == CLEANED_UP


def test_sigterm_ends_a_test_run_as_ctrl_c_does(tmp_path: Path) -> None:
    (tmp_path / "test_waits.py").write_text(RUN)
    plugin = ("-p", "tests.conftest", "-p", "no:cacheprovider", "--without-postgres", "-s")
    folder = ("--rootdir", str(tmp_path), "--confcutdir", str(tmp_path))
    with started("-m", "pytest", *plugin, *folder, str(tmp_path)) as (run, _):
        run.terminate()
        assert run.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED


@pytest.mark.parametrize("count", ["abc", "-1", ""])
def test_a_wrong_number_of_loops_is_refused(count: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.busy", count, "true"],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "number of loops" in done.stderr

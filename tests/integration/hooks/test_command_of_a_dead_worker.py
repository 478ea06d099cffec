"""A command ends with its worker, because another worker will run it again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import wait_until

WORKER = """
import sys
from receiver.hooks.command import Command
from tests.support.hook_servers import notice

script = (
    "import os, pathlib, sys, time; path = pathlib.Path(sys.argv[1]);"
    "path.with_suffix('.draft').write_text(str(os.getpid()));"
    "path.with_suffix('.draft').rename(path);"
    "time.sleep(600)"
)
command = [sys.executable, "-c", script, sys.argv[1]]
Command("shop", {"command": command, "deadline": 600}).send(notice())
"""


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child with its parent")
def test_a_command_ends_with_a_worker_that_is_killed(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(file)])
    try:
        wait_until(file.exists)
    finally:
        worker.kill()
        worker.wait()
    pid = int(file.read_text())
    try:
        wait_until(lambda: has_ended(pid))
    finally:
        if not has_ended(pid):
            os.kill(pid, signal.SIGKILL)

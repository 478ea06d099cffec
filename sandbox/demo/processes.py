"""Runs the other programs as commands, as a user would, and stops whatever it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
# Nothing else of the environment: a setting meant for a real receiver must not reach the demo's.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
# Seconds from SIGTERM to SIGKILL. `receiver serve` gives its own processes 30 to end and then kills
# them: killed before that, it would leave them behind.
PATIENCE = 35.0
TAIL = 25  # lines


class StepError(Exception):
    """A step of the demo did not come to pass."""


class Deadline:
    def __init__(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        """Seconds, never below zero."""
        return max(0.0, self._ends_at - time.monotonic())


@dataclass(frozen=True)
class Commands:
    """The Python of this process, with the settings of the demo."""

    settings: Mapping[str, str]
    deadline: Deadline

    def run(self, *arguments: str) -> str:
        """Return what `python -m <arguments>` printed; raise StepError unless it exits with 0."""
        shown = " ".join(arguments)
        try:
            done = subprocess.run(
                [sys.executable, "-m", *arguments],
                env=environment(self.settings),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=max(self.deadline.left, 0.1),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise StepError(f"`{shown}` did not end in time") from None
        if done.returncode != 0:
            raise StepError(
                f"`{shown}` ended with status {done.returncode}\n{tail(done.stdout + done.stderr)}"
            )
        return done.stdout


class Program:
    """A command that runs until the end of the `with`, in a process group of its own."""

    def __init__(self, log: Path, settings: Mapping[str, str], *arguments: str) -> None:
        self.log = log
        self._settings = settings
        self._arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._output: IO[bytes] | None = None

    def __enter__(self) -> Self:
        self._output = self.log.open("ab")
        # A group of its own: Ctrl-C reaches the demo alone, which then stops this in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", *self._arguments],
            env=environment(self._settings),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            _stop(self._process)
        if self._output is not None:
            self._output.close()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def check(self) -> None:
        """Raise StepError when it has ended by itself."""
        status = self._process.poll() if self._process else None
        if status is not None:
            raise StepError(f"`{' '.join(self._arguments)}` ended by itself with status {status}")

    def tail(self) -> str:
        return tail(self.log.read_text(errors="replace")) if self.log.exists() else ""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*", **settings}


def tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-TAIL:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

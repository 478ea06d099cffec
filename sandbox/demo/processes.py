"""Runs the other programs as commands, as a user would, and stops those that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Self

from sandbox.demo.progress_deadline import POLLED_EVERY, REMEDY, ProgressDeadline, StepError

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
# No other variable is inherited: a setting for a real receiver must not reach the demo's receiver.
INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV")
# For the same reason, no `.env` is read.
ALWAYS = {"RECEIVER_ENV_FILE": os.devnull, "PYTHONUNBUFFERED": "1", "NO_PROXY": "*"}
# Seconds from SIGTERM to SIGKILL. `receiver serve` gives its own processes 30 seconds to end and
# then kills them; if it were killed before that, they would be left running.
STOPPED_WITHIN = 90.0
TAIL = 25  # lines


@dataclass(frozen=True)
class Commands:
    """Runs commands with the Python of this process and the settings of the demo."""

    settings: Mapping[str, str]
    limit: float  # seconds that a command may run without printing anything
    clock: Callable[[], float] = time.monotonic

    def run(self, *arguments: str, without: tuple[str, ...] = ()) -> str:
        """Return what `python -m <arguments>` printed; raise StepError unless it exits with 0.

        The settings named in `without` are left out.
        """
        shown = " ".join(arguments)
        settings = {name: value for name, value in self.settings.items() if name not in without}
        with subprocess.Popen(
            [sys.executable, "-m", *arguments],
            env=environment(settings),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                output, errors = self._communicate(process, shown)
            except BaseException:
                process.kill()
                raise
        if process.returncode != 0:
            raise StepError(
                f"`{shown}` ended with status {process.returncode}\n{tail(output + errors)}"
            )
        return output

    def _communicate(self, process: subprocess.Popen[str], shown: str) -> tuple[str, str]:
        deadline = ProgressDeadline(self.limit, self.clock)
        while True:
            try:
                return process.communicate(timeout=POLLED_EVERY)
            except subprocess.TimeoutExpired as waiting:
                printed = (waiting.stdout or b"") + (waiting.stderr or b"")  # all of it so far
                deadline.note([len(printed)])
                if deadline.passed:
                    output = tail(printed.decode(errors="replace")) or "    nothing"
                    raise StepError(
                        f"`{shown}` has neither ended nor printed anything for {self.limit:g} s."
                        f" Its output:\n{output}\n{REMEDY}"
                    ) from None


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
        # In its own process group, so that Ctrl-C reaches only the demo, which then stops it.
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
        """Raise StepError if it has ended by itself."""
        status = self._process.poll() if self._process else None
        if status is not None:
            raise StepError(
                f"`{' '.join(self._arguments)}` ended by itself with status {status};"
                f" its output is in {self.log}"
            )

    def tail(self) -> str:
        return tail(self.log.read_text(errors="replace")) if self.log.exists() else ""


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
    return {**inherited, **ALWAYS, **settings}


def tail(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines()[-TAIL:])


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOPPED_WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()

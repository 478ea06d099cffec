"""Runs the processes of one machine together: starts, restarts and stops them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from receiver.observability.logger import Logger
from receiver.processes.current_hooks import REJECTED, RELOADED, Check, CurrentHooks
from receiver.processes.shutdown import CANNOT_LISTEN, accept_hangup, runs_in_a_terminal

PR_SET_PDEATHSIG = 1  # prctl(2)
DRAIN = 30.0  # seconds for the processes to end after SIGTERM
REMAINS_DRAIN = 5.0  # seconds for the children of a process that died to end
DEATHS, WITHIN = 5, 60.0  # give up after DEATHS deaths of one process within WITHIN seconds
# Seconds before a restart, after the first, second, third … death within WITHIN seconds.
DELAYS: tuple[float, ...] = (0.5, 1.0, 2.0, 4.0)
LOOK_EVERY = 0.1  # seconds
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
log = Logger()


def python_module() -> tuple[str, ...]:
    """Return the beginning of a command that runs one of our modules, whose name follows.

    A folder in the working directory that has the name of one of our packages is not imported,
    unless our packages are in that directory, as in a checkout.
    """
    is_checkout = Path(__file__).resolve().parents[2] == Path.cwd()
    return (sys.executable, "-m") if is_checkout else (sys.executable, "-P", "-m")


def report_command(bind: str | None) -> list[str]:
    """Return the command that prints the block at the start. The module is named, not imported."""
    return [*python_module(), "receiver.cli.started", bind or ""]


def commands(bind: str | None) -> dict[str, list[str]]:
    """Return the command of each process. The modules are named, not imported."""
    web = [*python_module(), "receiver.processes.web", "--config", "python:receiver.web.gunicorn"]
    address = ["--bind", bind] if bind else []
    return {
        "web": [*web, *address, "wsgi:app"],
        "worker": [*python_module(), "receiver", "worker"],
        "poller": [*python_module(), "submitter", "reconcile", "--forever"],
    }


@dataclass
class _Process:
    """A process that runs, or waits for its restart."""

    name: str
    command: Sequence[str]
    child: subprocess.Popen[bytes] | None = None
    group: int | None = None  # process group of the child, or of the children it left behind
    start_at: float = 0.0  # time of the next start, while it does not run
    died_at: list[float] = field(default_factory=list)  # within the last WITHIN seconds
    was_restarted: bool = False

    def start(self, current: CurrentHooks | None) -> None:
        """Start the process with the last accepted hooks file."""
        self.was_restarted = bool(self.group)
        descriptors, environment = current.hand_down() if current else ((), {})
        try:
            self.child = subprocess.Popen(
                self.command,
                start_new_session=True,
                preexec_fn=_prepare(os.getpid()),  # noqa: PLW1509 - one thread
                pass_fds=descriptors,
                env={**os.environ, **environment},
            )
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        self.group = self.child.pid

    def note_death(self, now: float) -> float | None:
        """Return the seconds until the restart; None if the process has died too often."""
        self.child = None
        self.died_at = [at for at in self.died_at if now - at < WITHIN] + [now]
        if len(self.died_at) >= DEATHS:
            return None
        delay = DELAYS[min(len(self.died_at), len(DELAYS)) - 1]
        self.start_at = now + delay
        return delay

    def signal(self, number: int) -> None:
        """Send a signal to the process, if it runs."""
        if self.child is not None and self.child.poll() is None:
            self.child.send_signal(number)

    def signal_group(self, number: int) -> bool:
        """Send a signal to the group of the process; return False if no process is left in it."""
        with suppress(ProcessLookupError, PermissionError):
            if self.group is not None:
                os.killpg(self.group, number)
                return True
        return False

    def is_gone(self, now: float) -> bool:
        """Return whether all children of the dead process, such as web workers, are gone."""
        if self.group is not None:
            with suppress(ChildProcessError):  # process 1 of a container inherits them
                os.waitpid(-self.group, os.WNOHANG)
        if not self.signal_group(0):
            return True
        if now >= self.died_at[-1] + REMAINS_DRAIN:
            self.signal_group(signal.SIGKILL)
        return False


class _Supervisor:
    """Supervises processes with these commands, by name."""

    def __init__(
        self,
        commands: Mapping[str, Sequence[str]],
        current: CurrentHooks | None,
        report: Sequence[str] = (),
    ) -> None:
        self._processes = [_Process(name, command) for name, command in commands.items()]
        self._report = _Process("report", report) if report else None
        self._current = current

    def run(self, received: list[int], check: Check, has_terminal: Callable[[], bool]) -> int:
        """Supervise until a signal to stop is received (0), or a process died too often (1)."""
        in_terminal = has_terminal()
        try:
            for process in self._processes:
                self._start(process)
            if self._report is not None:
                with suppress(OSError, subprocess.SubprocessError):
                    self._report.start(self._current)
            while True:
                while received:
                    number = received.pop(0)
                    if number != signal.SIGHUP or (in_terminal and not has_terminal()):
                        return 0
                    self._reload(check)
                for process in self._processes:
                    if not self._look_after(process):
                        return 1
                if self._report is not None and self._report.child is not None:
                    self._report.child.poll()  # it ends once, by itself
                time.sleep(LOOK_EVERY)
        finally:
            self._stop()

    def _look_after(self, process: _Process) -> bool:
        """Restart the process if necessary; return False to give up."""
        now = time.monotonic()
        if process.child is None:
            if now >= process.start_at and process.is_gone(now):
                log.info("a process is started again", process=process.name)
                return self._start(process)
            return True
        status = process.child.poll()
        if status is None:
            return True
        if status == CANNOT_LISTEN and not process.was_restarted:
            return False  # the process has reported why
        process.signal_group(signal.SIGTERM)
        return self._note_death(process, f"it ended with status {status}")

    def _start(self, process: _Process) -> bool:
        """Start the process; return False to give up."""
        try:
            process.start(self._current)
        except (OSError, subprocess.SubprocessError) as error:  # such as a lack of memory
            return self._note_death(process, f"it could not be started: {error}")
        return True

    def _note_death(self, process: _Process, reason: str) -> bool:
        """Log the death and the time of the restart; return False to give up."""
        delay = process.note_death(time.monotonic())
        details = {"process": process.name, "reason": reason, "deaths": len(process.died_at)}
        if delay is None:
            text = "a process keeps dying: giving up, and stopping the others"
            log.error(text, **details, within_s=WITHIN)
            return False
        log.error("a process ended by itself and is started again", **details, after_s=delay)
        return True

    def _reload(self, check: Check) -> None:
        """Read the hooks file again, for processes that are restarted, and forward SIGHUP.

        The web process and the poller read only which events the hooks receive. If only other
        options are invalid, the worker alone receives the signal and reports the problem, so that
        all processes keep the previous file.
        """
        concerned = self._processes
        if self._current is not None:
            previous, self._current = self._current, self._current.reloaded(check)
            if self._current.problem is not None:
                if previous.reloaded().problem is None:
                    concerned = [process for process in concerned if process.name == "worker"]
                log.error(REJECTED, process="serve", problem=self._current.problem)
            else:
                names = [entry.name for entry in self._current.entries]
                log.info(RELOADED, process="serve", hooks=names)
        for process in concerned:
            process.signal(signal.SIGHUP)

    def _stop(self) -> None:
        if self._report is not None:
            self._report.signal(signal.SIGKILL)
        for process in self._processes:
            process.signal(signal.SIGTERM)
        until = time.monotonic() + DRAIN
        for process in self._processes:
            child = process.child
            if child is not None:
                try:
                    child.wait(max(0.0, until - time.monotonic()))
                except subprocess.TimeoutExpired:
                    log.error("a process did not end in time", process=process.name, seconds=DRAIN)
                    child.kill()
                    child.wait()
            process.signal_group(signal.SIGKILL)


def supervise(
    commands: Mapping[str, Sequence[str]],
    current: CurrentHooks | None = None,
    check: Check = lambda _: None,
    report: Sequence[str] = (),
) -> int:
    """Run the commands until SIGTERM, SIGINT or SIGQUIT, and return the exit status 0.

    A process that ends by itself is started again, each time after a longer delay; the others
    continue. If one dies DEATHS times within WITHIN seconds, all are stopped and the exit status is
    1, so that the host restarts everything. At SIGHUP all processes read the hooks file again, if
    `check` accepts its entries.

    The processes share this process's output. Each has its own process group, so that Ctrl-C
    reaches it only as SIGTERM, after which it finishes its work. `report` is a command that is run
    once and ends by itself.
    """
    received: list[int] = []  # a handler may append to it; setting an event could deadlock
    nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (*STOPPING, signal.SIGHUP):
        signal.signal(number, lambda number, _: received.append(number))
    accept_hangup()
    log.info("starting", processes=list(commands))
    has_terminal: Callable[[], bool] = (lambda: False) if nohup else runs_in_a_terminal
    return _Supervisor(commands, current, report).run(received, check, has_terminal)


def _prepare(parent: int) -> Callable[[], None]:
    """Return a function that a child runs before it executes its command.

    On Linux the child receives SIGTERM when the supervisor is killed, so that no process is left
    behind. SIGHUP is blocked until the child can handle it.
    """

    def prepare() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
            if os.getppid() != parent:
                os._exit(1)

    return prepare

"""Forks the `python -m …` processes that a forked process, such as `receiver serve`, starts.

Its children then need no interpreter that imports the product: that takes 2 s of CPU time for the
processes of one `receiver serve`, and 6 s for those of a demo. Tests that are about the start of
these processes use a new interpreter for `receiver serve` itself; its children are then executed,
too.
"""

from __future__ import annotations

import atexit
import logging
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from tests.support import processes

OUTPUT_LOST = 120  # the exit status of an interpreter that cannot write all output
# The first words of the commands whose children are forked.
PARENTS = (["receiver", "serve"], ["tests.support.apps.parent", "starts"])
# The same for commands with threads. A child that such a process forked itself could inherit a lock
# that another thread holds, so the fork server forks it.
PARENTS_WITH_THREADS = (["sandbox", "demo"], ["tests.support.apps.parent", "has the server start"])


def install(command: Sequence[str]) -> None:
    """Make this process fork its children, if its command is one of those above."""
    if list(command[:2]) in PARENTS:
        subprocess.Popen = ForkingPopen  # type: ignore[misc]
    elif list(command[:2]) in PARENTS_WITH_THREADS:
        subprocess.Popen = PopenOfServer  # type: ignore[misc]


class ForkingPopen(subprocess.Popen):  # type: ignore[type-arg]
    """Forks for a `python -m …` with inherited standard streams, and executes anything else."""

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Callable[[], None] | None,
        close_fds: Any,
        pass_fds: Sequence[int],
        cwd: Any,
        env: Mapping[str, str] | None,
        *others: Any,
    ) -> None:
        streams, starts_session = others[3:9], others[14]
        if list(args[:2]) != [sys.executable, "-m"] or cwd is not None or set(streams) != {-1}:
            given = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others)
            super()._execute_child(*given)  # type: ignore[misc]
            return
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _run(list(args[2:]), env, pass_fds, preexec_fn, starts_session=starts_session)
        self._child_created = True


class PopenOfServer(subprocess.Popen):  # type: ignore[type-arg]
    """Has the fork server start each `python -m …` that it can; executes anything else.

    The process leads a session, whether this is asked for or not.
    """

    _forked: processes.ForkedProcess | None = None

    def _execute_child(
        self,
        args: Any,
        executable: Any,
        preexec_fn: Callable[[], None] | None,
        close_fds: Any,
        pass_fds: Sequence[int],
        cwd: Any,
        env: Mapping[str, str] | None,
        *others: Any,
    ) -> None:
        ends, command = others[3:9], list(args[2:])
        if (
            list(args[:2]) != [sys.executable, "-m"]
            or preexec_fn is not None
            or pass_fds
            or not processes.can_be_forked(command, env or os.environ)
        ):
            given = (args, executable, preexec_fn, close_fds, pass_fds, cwd, env, *others)
            super()._execute_child(*given)  # type: ignore[misc]
            return
        child_ends = (ends[0], ends[3], ends[5])
        streams = [number if end == -1 else end for number, end in enumerate(child_ends)]
        place = Path(cwd or ".").absolute()
        self._forked = processes.ForkedProcess(command, env or os.environ, streams, place)
        self.pid = self._forked.pid
        self._child_created = True
        self._close_pipe_fds(*ends)  # type: ignore[attr-defined]

    def _internal_poll(self, *arguments: Any, **named: Any) -> int | None:
        if self._forked is None:
            return super()._internal_poll(*arguments, **named)  # type: ignore[misc,no-any-return]
        if self.returncode is None:
            self.returncode = self._forked.poll()
        return self.returncode

    def _wait(self, timeout: float | None) -> int:
        if self._forked is None:
            return super()._wait(timeout)  # type: ignore[misc,no-any-return]
        self.returncode = self._forked.wait(timeout)
        return self.returncode


def words_of(pid: int | str) -> str:
    """Return words of the command of a process: the ones that it was executed with, and its name.

    A process that was forked by this module is named after the first word of its arguments, or
    else after its module.
    """
    process = Path(f"/proc/{pid}")
    return f"\0{(process / 'comm').read_text().strip()}\0{(process / 'cmdline').read_text()}"


def _run(
    command: list[str],
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    preexec_fn: Callable[[], None] | None,
    *,
    starts_session: bool,
) -> None:
    """Run the command in this forked process."""

    def begin() -> None:
        _become(env, pass_fds, starts_session=starts_session)
        if preexec_fn is not None:
            preexec_fn()
        has_words = command[1:2] and not command[1].startswith("-")
        name = command[1] if has_words else command[0].rpartition(".")[2]  # cut after 15 bytes
        Path("/proc/self/comm").write_text(name)

    run_to_the_end(command, begin)


def run_to_the_end(command: list[str], begin: Callable[[], None]) -> NoReturn:
    """Run `python -m <command>` in this forked process, and end the process as an interpreter does.

    The interpreter itself would also free all objects. As this changes their counts of references,
    the process would get a copy of nearly all memory of its parent, in 0.05 s of CPU time.
    """
    status, is_interrupted = 1, False
    try:
        begin()
        sys.argv = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - as at the end of an interpreter
        is_interrupted = isinstance(error, KeyboardInterrupt)
        sys.excepthook(type(error), error, error.__traceback__)
    finally:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads
        atexit._run_exitfuncs()  # noqa: SLF001
        if not _flush_streams():
            status = OUTPUT_LOST
        if is_interrupted:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
        os._exit(status)


def _flush_streams() -> bool:
    """Return whether all output could be written."""
    try:
        for stream in (sys.stdout, sys.stderr):
            if not stream.closed:
                stream.flush()
    except OSError as error:  # the reader of a pipe has ended, or the disk is full
        with suppress(OSError):
            sys.excepthook(type(error), error, error.__traceback__)
        return False
    return True


def _become(env: Mapping[str, str] | None, kept: Sequence[int], *, starts_session: bool) -> None:
    """Put this process into the state after an exec, without handlers and inherited descriptors."""
    atexit._clear()  # noqa: SLF001
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals():
        if callable(signal.getsignal(number)):
            is_int = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_int else signal.SIG_DFL)
    first = 3  # after the standard streams
    for descriptor in sorted(kept):
        os.closerange(first, descriptor)
        first = descriptor + 1
    os.closerange(first, os.sysconf("SC_OPEN_MAX"))
    if starts_session:
        os.setsid()
    if env is not None:
        os.environ.clear()
        os.environ.update(env)

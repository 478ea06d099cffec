"""Forks the `python -m …` processes that a forked process, such as `receiver serve`, starts.

Its children then need no interpreter that imports the product: that takes 2 s of CPU time for the
processes of one `receiver serve`. Tests that are about the start of these processes use a new
interpreter for `receiver serve` itself; its children are then executed, too.
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
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

# The first words of the commands whose children are forked.
PARENTS = (["receiver", "serve"], ["tests.support.apps.parent", "starts"])
UNWRITTEN = 120  # exit status of an interpreter that cannot write its last output


def install(command: Sequence[str]) -> None:
    """Make this process fork its children, if its command is one of PARENTS."""
    if list(command[:2]) in PARENTS:
        subprocess.Popen = ForkingPopen  # type: ignore[misc]


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


def words_of(pid: int | str) -> str:
    """Return words of the command of a process: the ones that it was executed with, and its name.

    A process that was forked by this module is named after the first word of its arguments, or
    else after its module.
    """
    process = Path(f"/proc/{pid}")
    return f"\0{(process / 'comm').read_text().strip()}\0{(process / 'cmdline').read_text()}"


def run_and_exit(command: list[str]) -> NoReturn:
    """Run `python -m <command>` in this forked process, and end it like an interpreter.

    An interpreter also frees its objects. That would copy the memory that this process shares with
    the one that forked it, which takes 0.06 s of CPU time.
    """
    status = 1
    try:
        sys.argv = command
        runpy.run_module(command[0], run_name="__main__", alter_sys=True)
        status = 0
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        if isinstance(ended.code, str):
            print(ended.code, file=sys.stderr)
    except BaseException as error:  # noqa: BLE001 - as at the end of an interpreter
        traceback.print_exc()
        if isinstance(error, KeyboardInterrupt):
            status = -signal.SIGINT
    _exit(status)


def _exit(status: int) -> NoReturn:
    """End this process with this exit status, or by signal N if it is -N."""
    threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001 - waits for threads
    atexit._run_exitfuncs()  # noqa: SLF001
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):  # its reader has ended, or it was closed
            status = status if stream.closed else UNWRITTEN
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        signal.raise_signal(-status)
    os._exit(status & 0xFF)


def _run(
    command: list[str],
    env: Mapping[str, str] | None,
    pass_fds: Sequence[int],
    preexec_fn: Callable[[], None] | None,
    *,
    starts_session: bool,
) -> NoReturn:
    """Run the command in this process, which was forked for it."""
    try:
        _become(env, pass_fds, starts_session=starts_session)
        if preexec_fn is not None:
            preexec_fn()
        has_words = command[1:2] and not command[1].startswith("-")
        name = command[1] if has_words else command[0].rpartition(".")[2]  # cut after 15 bytes
        Path("/proc/self/comm").write_text(name)
    except BaseException:  # noqa: BLE001 - nothing above may handle it in this process
        traceback.print_exc()
        _exit(1)
    run_and_exit(command)


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

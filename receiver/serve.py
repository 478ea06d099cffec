"""Runs one machine's processes together: starts them, passes SIGTERM on, waits for the drain."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import structlog

PR_SET_PDEATHSIG = 1  # prctl(2)
DRAIN = 30.0  # seconds the processes have to end after SIGTERM
log = structlog.get_logger()


def commands(bind: str | None) -> dict[str, list[str]]:
    """The command of each process; they are named, not imported."""
    web = [sys.executable, "-m", "gunicorn", "--config", "python:receiver.web.gunicorn"]
    address = ["--bind", bind] if bind else []
    return {
        "web": [*web, *address, "wsgi:app"],
        "worker": [sys.executable, "-m", "receiver", "worker"],
        "poller": [sys.executable, "-m", "submitter", "reconcile", "--forever"],
    }


def supervise(wanted: Mapping[str, Sequence[str]]) -> int:
    """Run the commands until SIGTERM or SIGINT (0), or until one ends by itself (1).

    They share our output. When one ends, all are stopped: the host starts us again. Each has a
    process group of its own, so that Ctrl-C reaches it as the SIGTERM that lets it drain.
    """
    came: list[int] = []  # a handler may append; to set an event there could wait for oneself
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, lambda number, _: came.append(number))
    log.info("starting", processes=list(wanted))
    children = {
        name: subprocess.Popen(command, start_new_session=True, preexec_fn=_end_with_parent)  # noqa: PLW1509 - one thread
        for name, command in wanted.items()
    }
    ended: list[str] = []
    while not ended and not came:
        time.sleep(0.1)
        ended = [name for name, child in children.items() if child.poll() is not None]
    for name in ended:
        log.error("a process ended by itself", process=name, status=children[name].returncode)
    _stop(children)
    return 1 if ended else 0


def _end_with_parent() -> None:
    """On Linux a child gets SIGTERM when the supervisor is killed: nothing is left behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop(children: Mapping[str, subprocess.Popen[bytes]]) -> None:
    for child in children.values():
        if child.poll() is None:
            child.terminate()
    until = time.monotonic() + DRAIN
    for name, child in children.items():
        try:
            child.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.error("a process did not end in time", process=name, seconds=DRAIN)
            child.kill()
            child.wait()

"""Runs servers as processes on loopback, measures them through /proc, and stops them by pid."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench import ROOT

STARTS_WITHIN = 60.0  # seconds
STOPS_WITHIN = 40.0
TICK = os.sysconf("SC_CLK_TCK")


class CannotMeasure(Exception):
    """The reason for a missing figure, which is shown in the table instead."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(
    command: Sequence[str | Path], log: Path, environment: Mapping[str, str], cwd: Path = ROOT
) -> Iterator[int]:
    """Run a program within the block, in its own session; yield its pid."""
    with log.open("ab") as file:
        child = subprocess.Popen(
            [str(part) for part in command],
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        yield child.pid
    finally:
        child.terminate()
        with suppress(subprocess.TimeoutExpired):
            child.wait(STOPS_WITHIN)
        # the session's id is its pid, so the session has no other processes
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait(STOPS_WITHIN)


def wait_until(is_so: Callable[[], bool], log: Path, seconds: float = STARTS_WITHIN) -> None:
    """Wait until the server responds. Raises CannotMeasure with the end of the log on timeout."""
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise CannotMeasure(f"not up within {seconds:g} s: {last_line(log)}")
        time.sleep(0.05)


def last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "no output"


def answers(port: int) -> bool:
    """Return whether the port speaks HTTP. A master process listens before its workers exist."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.settimeout(5)
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
        return connection.recv(100).startswith(b"HTTP/1.1 ")
    return False


def tree(pid: int) -> list[int]:
    """Yield the process and all its descendants. Any thread can have children, and they can end."""
    found = [pid]
    for one in found:
        with suppress(OSError):  # the process ended while its threads were being listed
            for children in Path(f"/proc/{one}/task").glob("*/children"):
                with suppress(OSError):  # or one of its threads ended
                    found += map(int, children.read_text().split())
    return found


def cpu_seconds(roots: Iterable[int]) -> float:
    """Return the CPU seconds of these process trees so far, including ended children."""
    ticks = 0
    for pid in {pid for root in roots for pid in tree(root)}:
        with suppress(OSError):
            ticks += sum(map(int, _stat(pid)[11:15]))
    return ticks / TICK


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def parent(pid: int) -> int:
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name, which can contain anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()

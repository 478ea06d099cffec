"""Processes that end with the process that started them, however that one ends."""

from __future__ import annotations

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# The standard input of this shell ends with the process that started it. It then sends the signal,
# unless it has read a line before.
WATCH = """trap "" INT TERM HUP; read -r line || kill -"$1" "$2" """


def run_to_its_end(command: list[str]) -> int:
    """Run the command, and return its exit status as a shell does. SIGTERM is passed on.

    Ctrl-C reaches the command directly. We wait until it has cleaned up; `subprocess.run` would
    kill it after 0.25 s.
    """
    processes: list[subprocess.Popen[bytes]] = []
    is_asked = threading.Event()

    def pass_on(*_: object) -> None:
        is_asked.set()
        for process in processes:
            process.terminate()

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, lambda *_: None)  # ignoring it would make the command ignore it
    processes.append(subprocess.Popen(command))
    if is_asked.is_set():
        pass_on()
    status = processes[0].wait()
    return status if status >= 0 else 128 - status


@contextmanager
def never_orphaned(process: subprocess.Popen[bytes], how: signal.Signals) -> Iterator[None]:
    """Send the signal to the process if this process ends within the block."""
    watcher = subprocess.Popen(
        ["/bin/sh", "-c", WATCH, "watcher", str(int(how)), str(process.pid)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        watcher.communicate(b"ended\n")

"""Measures how long callbacks take at a steady rate, without and with 100 listeners."""

from __future__ import annotations

import http.client
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench import APPS
from bench.disks import Disk
from bench.load import at, new_tasks, provider_task
from bench.ours import API_TOKEN, migrate, our_web
from bench.peers import Peers
from bench.processes import CannotMeasure
from bench.progress import say
from bench.site import Site
from receiver.signing.callback_urls import mint
from tests.support.samples import SECRET, body

LISTENERS = 100
PER_SECOND, CONNECTIONS = 100, 10


def measure(rounds: int, seconds: float, place: Path) -> dict[str, Any]:
    """Alternate between rounds with and without listeners, with one process and SQLite."""
    folder = place / "listeners"
    folder.mkdir()
    url = f"sqlite:///{folder}/receiver.db"
    migrate(url)
    found: dict[str, Any] = {"p50_ms": [], "p99_ms": [], "with_p50_ms": [], "with_p99_ms": []}
    with our_web(Site(folder, Disk(), Peers()), url, 1) as web:
        _send(web.port, 1)
        for number in range(rounds):
            _add(found, "", _send(web.port, seconds))
            with _listening(web.port) as received:
                _add(found, "with_", _send(web.port, seconds))
            say(f"{LISTENERS} listeners, round {number + 1}: {received[0]} events were received")
    return {**found, "listeners": LISTENERS, "per_second": PER_SECOND}


def _add(found: dict[str, Any], prefix: str, took: list[float]) -> None:
    found[f"{prefix}p50_ms"].append(at(took, 0.5))
    found[f"{prefix}p99_ms"].append(at(took, 0.99))


@contextmanager
def _listening(port: int) -> Iterator[list[int]]:
    """Read the streams in another process; at the end, add the number of events to the list."""
    command = [sys.executable, str(APPS / "listeners.py"), str(port), API_TOKEN, str(LISTENERS)]
    received: list[int] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        if process.stdout.readline() != b"listening\n":
            raise CannotMeasure("not all listeners were accepted")
        yield received
        process.stdin.close()
        received.append(int(process.stdout.readline() or 0))
    if process.returncode:
        raise CannotMeasure("a listener was disconnected")


def _send(port: int, seconds: float) -> list[float]:
    """Send callbacks at a steady rate; return the sorted times from due to response, in ms."""
    took: list[float] = []
    problems: list[str] = []
    each = round(PER_SECOND * seconds / CONNECTIONS)
    began = time.perf_counter()

    def run(number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        for index, task in enumerate(new_tasks(each)):
            due = began + (index + number / CONNECTIONS) * CONNECTIONS / PER_SECOND
            time.sleep(max(due - time.perf_counter(), 0))
            path = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
            headers = {"Content-Type": "application/json"}
            connection.request("POST", path, body("succeed", provider_task(task)), headers)
            response = connection.getresponse()
            response.read()
            took.append((time.perf_counter() - due) * 1000)
            if response.status != 200:
                problems.append(f"a callback was answered {response.status}")
        connection.close()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems or len(took) != each * CONNECTIONS:
        raise CannotMeasure(problems[0] if problems else "a connection of the load broke")
    return sorted(took)

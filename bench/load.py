"""The load: callbacks of new tasks, from wrk or, without it, from this process."""

from __future__ import annotations

import json
import math
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.processes import CannotMeasure
from receiver.clock import now_ms
from receiver.signing.callback_urls import mint
from receiver.tasks import new_task_id
from tests.support.samples import SECRET, body

STATUSES = ("submitted", "processing", "succeed")
SCRIPT = ROOT / "bench" / "callbacks.lua"
TASK_ID = "@"  # the place of the task's id in a body
LIKELY_MOST = 15_000  # requests per second that no server here exceeds


@dataclass(frozen=True, slots=True)
class Load:
    """The result of one run."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    refused: int = 0  # responses other than 2xx and 3xx
    broken: int = 0  # failed connections and missing responses
    repeated: int = 0  # 1: the tasks were used up and repeated

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Traffic:
    """The requests to send. `tasks`: a file from `write_tasks`; `request`: one request as bytes."""

    tasks: Path | None = None
    prefix: str = ""  # precedes the callback path
    duplicates: bool = False  # repeat the last callback of each task
    request: str | None = None


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def provider_task(task: str) -> str:
    """Return the provider's id of one of our tasks."""
    return f"at-kling-{task}"


def new_tasks(count: int) -> list[str]:
    """Return ids in chronological order, like those of `submitter submit`."""
    now = now_ms()
    return [new_task_id(now + number // 2) for number in range(count)]


def write_tasks(file: Path, tasks: list[str]) -> Path:
    """Write the file for the Lua script: a body for each status, then every task with its token."""
    bodies = [body(status, provider_task(TASK_ID)).decode() for status in STATUSES]
    lines = [f"{task} {mint(SECRET, 'kling', task)}" for task in tasks]
    file.write_text("\n".join([*bodies, "", *lines, ""]))
    return file


def fresh_traffic(file: Path, seconds: float, prefix: str = "") -> Traffic:
    """Return enough new tasks that none is repeated within this many seconds."""
    count = round(LIKELY_MOST * max(seconds, 1) / len(STATUSES)) + 1000
    return Traffic(write_tasks(file, new_tasks(count)), prefix)


def send(port: int, traffic: Traffic, connections: int, seconds: float) -> Load:
    """Keep this many connections busy for this long. wrk accepts whole seconds only."""
    if has_wrk() and seconds >= 1:
        return _wrk(port, traffic, connections, round(seconds))
    return _threads(port, traffic, connections, seconds)


def _wrk(port: int, traffic: Traffic, connections: int, seconds: int) -> Load:
    threads = min(2, connections)
    environment = {
        "PATH": os.environ["PATH"],
        "BENCH_THREADS": str(threads),
        "BENCH_LAG": str(math.ceil(connections / threads) + 5),
        "BENCH_PREFIX": traffic.prefix,
        "BENCH_DUPLICATES": str(int(traffic.duplicates)),
    }
    if traffic.tasks is not None:
        environment["BENCH_TASKS"] = str(traffic.tasks)
    if traffic.request is not None:
        environment["BENCH_REQUEST"] = traffic.request.replace("\r\n", "\\r\\n")
    options = ["-t", threads, "-c", connections, "-d", f"{seconds}s", "--timeout", "30s"]
    command = ["wrk", *map(str, options), "-s", str(SCRIPT), f"http://127.0.0.1:{port}/"]
    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    for line in done.stdout.splitlines():
        if line.startswith("BENCH "):
            return Load(**json.loads(line.removeprefix("BENCH ")))
    raise CannotMeasure(f"wrk: {done.stderr.strip() or done.stdout.strip()}")


class _Sender:
    """One connection of the load from this process."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self.connection = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.connection.makefile("rb")
        self.requests = requests
        self.took: list[float] = []
        self.refused = self.broken = 0

    def run(self, until: float) -> None:
        with self.connection:
            for request in self.requests:
                began = time.perf_counter()
                if began >= until:
                    return
                self.connection.sendall(request)
                if not (line := self.file.readline()):
                    self.broken += 1
                    return
                self.refused += not line.startswith((b"HTTP/1.1 2", b"HTTP/1.1 3"))
                self._read_rest()
                self.took.append(time.perf_counter() - began)

    def _read_rest(self) -> None:
        length = 0
        while (line := self.file.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        self.file.read(length)


def _threads(port: int, traffic: Traffic, connections: int, seconds: float) -> Load:
    """Send the same requests from Python threads, which are slower than wrk."""
    senders = [_Sender(port, share) for share in _shares(traffic, connections)]
    began = time.perf_counter()
    threads = [threading.Thread(target=one.run, args=(began + seconds,)) for one in senders]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 60)
    spent = time.perf_counter() - began
    took = sorted(moment for sender in senders for moment in sender.took)
    if not took:
        raise CannotMeasure("there was no response")
    refused, broken = sum(one.refused for one in senders), sum(one.broken for one in senders)
    p50, p99 = (1000 * at(took, p) for p in (0.5, 0.99))
    return Load(len(took), spent, p50, p99, refused, broken)


def at(ordered: list[float], share: float) -> float:
    """Return the value below which this share of the values lies."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _shares(traffic: Traffic, connections: int) -> list[list[bytes]]:
    """Yield the requests of each connection."""
    if traffic.request is not None:
        return [[traffic.request.encode()] * 100_000] * connections
    assert traffic.tasks is not None
    bodies, _, rest = traffic.tasks.read_text().partition("\n\n")
    statuses = bodies.splitlines()[-1:] if traffic.duplicates else bodies.splitlines()
    shares: list[list[bytes]] = [[] for _ in range(connections)]
    for number, line in enumerate(rest.splitlines()[: connections * 2000]):
        task, token = line.split()
        share = shares[number % connections]
        for template in statuses:
            share.append(_request(traffic.prefix, task, token, template.replace(TASK_ID, task)))
    return shares


def _request(prefix: str, task: str, token: str, text: str) -> bytes:
    return (
        f"POST {prefix}/callbacks/kling/{task}/{token} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        "User-Agent: Go-http-client/1.1\r\nContent-Type: application/json\r\n"
        f"Accept-Encoding: gzip\r\nContent-Length: {len(text)}\r\n\r\n{text}"
    ).encode()


def delete(file: Path) -> None:
    with suppress(FileNotFoundError):
        file.unlink()

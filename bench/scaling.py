"""What a callback and a delivery cost on SQLite and on PostgreSQL: the figures of docs/scaling.md.

    .venv/bin/python bench/scaling.py [SECONDS]

Real processes on loopback: gunicorn as in production, a worker, PostgreSQL with fsync. The load
comes from this process: callbacks of Kling with their tokens, three for each task, over kept
connections. CPU is what the kernel counted for each kind of process; it depends less on what else
the machine does than a rate does. All variants run in turn, several rounds; medians are printed as
a Markdown table.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import psycopg  # noqa: E402

from installation import free_port  # noqa: E402
from postgres_server import started  # noqa: E402
from receiver.signing import mint  # noqa: E402
from receiver.stores import Store, open_store  # noqa: E402
from samples import SECRET, body  # noqa: E402

CONNECTIONS = 32
ROUNDS = 3
INSERT = "begin; insert into rows_of_the_bench values (1)"
KINDS = {
    "plain": f"{INSERT}; commit",
    "with NOTIFY": f"{INSERT}; select pg_notify('bench', 'x'); commit",
}
STATUSES = ("submitted", "processing", "succeed")
TICK = os.sysconf("SC_CLK_TCK")
HOOKS = """
[[hook]]
name = "shop"
type = "slack"
url = "http://127.0.0.1:{port}/"
allow_private = true

[[hook]]
name = "books"
type = "slack"
url = "http://127.0.0.1:{port}/"
allow_private = true
"""


@dataclass
class Figures:
    """What one variant gave in each round."""

    per_second: list[float] = field(default_factory=list)
    web_ms: list[float] = field(default_factory=list)  # CPU of the web process for one callback
    database_ms: list[float] = field(default_factory=list)
    wal_bytes: list[float] = field(default_factory=list)
    deliveries: list[float] = field(default_factory=list)  # a second, by one worker
    worker_ms: list[float] = field(default_factory=list)  # its CPU for one delivery
    delivery_ms: list[float] = field(default_factory=list)  # the database's CPU for it


class Sink(BaseHTTPRequestHandler):
    """The other side of the hooks: takes everything at once."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Says nothing: it would be written a thousand times."""


def main(seconds: float) -> None:
    found: dict[str, Figures] = {}
    with tempfile.TemporaryDirectory() as name, started(durable=True) as server, sink() as port:
        folder = Path(name)
        (folder / "hooks.toml").write_text(HOOKS.format(port=port))
        urls = {"SQLite": f"sqlite:///{folder}/receiver.db", "PostgreSQL": server.url}
        for url in urls.values():
            store = open_store(url)
            store.migrate()
            store.close()
        for number in range(ROUNDS):
            for database, url in urls.items():
                for processes in (1, 2):
                    print(f"round {number + 1}: {database}, {processes} web", file=sys.stderr)
                    figures = found.setdefault(f"{database}, {processes} web", Figures())
                    with web(folder, url, processes) as (address, pid):
                        measure(figures, url, address, pid, seconds, f"{number}{processes}")
                measure_worker(found[f"{database}, 1 web"], folder, url)
        show(found)
        measure_commits(server.url)


def measure(figures: Figures, url: str, address: int, pid: int, seconds: float, salt: str) -> None:
    database = None if url.startswith("sqlite") else url
    load(address, 0.5, f"warm{salt}")
    before = cpu(family(pid)), cpu(postgres_processes()), wal(database)
    began = time.perf_counter()
    taken = load(address, seconds, salt)
    took = time.perf_counter() - began
    after = cpu(family(pid)), cpu(postgres_processes()), wal(database)
    web_s, database_s, wal_bytes = (b - a for a, b in zip(before, after, strict=True))
    figures.per_second.append(taken / took)
    figures.web_ms.append(web_s / taken * 1000)
    figures.database_ms.append(database_s / taken * 1000)
    figures.wal_bytes.append(wal_bytes / taken)


def measure_worker(figures: Figures, folder: Path, url: str) -> None:
    """Let one worker make what the callbacks left to do, until there is none left."""
    store = open_store(url)
    waiting = waiting_in(store)
    with process(folder, url, "receiver", "worker") as pid:
        while waiting_in(store) > waiting - 50:
            time.sleep(0.01)  # it has started
        begun, began = waiting_in(store), time.perf_counter()
        spent, spent_there = cpu([pid]), cpu(postgres_processes())
        while (left := waiting_in(store)) and time.perf_counter() - began < 10:
            time.sleep(0.1)
        made = begun - left
        figures.deliveries.append(made / (time.perf_counter() - began))
        figures.worker_ms.append((cpu([pid]) - spent) / made * 1000)
        there = cpu(postgres_processes()) - spent_there
        figures.delivery_ms.append(there / made * 1000)
        while waiting_in(store):
            time.sleep(0.1)
    store.close()


def waiting_in(store: Store) -> int:
    """How many deliveries are left, counted up to 10,000 of each hook."""
    return store.backlog(2**60).due


def measure_commits(url: str) -> None:
    """Commits a second from CONNECTIONS connections, each of one row: plain, and with NOTIFY.

    Those that notify wait for each other, disk included: what they reach in all is the limit.
    """
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table rows_of_the_bench (n integer)")
    rates: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for _ in range(ROUNDS):
        for kind, sql in KINDS.items():
            rates[kind].append(commits(url, sql))
    for kind, series in rates.items():
        print(f"Commits a second, {kind}: {statistics.median(series):.0f}")


def commits(url: str, sql: str, seconds: float = 2) -> float:
    made = [0] * CONNECTIONS
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            while time.perf_counter() < end:
                connection.execute(sql.encode())
                made[number] += 1

    threads = [threading.Thread(target=work, args=(number,)) for number in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(made) / seconds


def load(port: int, seconds: float, salt: str) -> int:
    """Send callbacks over CONNECTIONS connections; how many were answered 200."""
    taken = [0] * CONNECTIONS
    end = time.perf_counter() + seconds

    def send(sender: int) -> None:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            file = connection.makefile("rb")
            number = 0
            while time.perf_counter() < end:
                task = f"{salt}-{sender}-{number // 3}"
                connection.sendall(
                    request(task, ("submitted", "processing", "succeed")[number % 3])
                )
                if not (answer := file.readline()).startswith(b"HTTP/1.1 200"):
                    raise AssertionError(answer)
                length = 0
                while (line := file.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                file.read(length)
                taken[sender] += 1
                number += 1

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(taken)


def request(task: str, status: str) -> bytes:
    raw = body(status, task_id=f"at-kling-{task}")
    path = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw)}\r\n\r\n"
    )
    return head.encode() + raw


@contextmanager
def sink() -> Iterator[int]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@contextmanager
def web(folder: Path, url: str, processes: int) -> Iterator[tuple[int, int]]:
    port = free_port()
    options = ("--bind", f"127.0.0.1:{port}", "--workers", str(processes))
    command = ("gunicorn", "--config", "python:receiver.web.gunicorn", *options, "wsgi:app")
    with process(folder, url, *command) as pid:
        until = time.monotonic() + 60
        while len(family(pid)) <= processes or not answers(port):
            assert time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.05)
        yield port, pid


def answers(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        return b"200" in connection.recv(100)
    return False


@contextmanager
def process(folder: Path, url: str, *command: str) -> Iterator[int]:
    environment = {
        "PATH": os.environ["PATH"],
        "DATABASE_URL": url,
        "CALLBACK_SECRETS": SECRET,
        "HOOKS_FILE": str(folder / "hooks.toml"),
    }
    with (folder / "log").open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", *command], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    try:
        yield child.pid
    finally:
        child.terminate()
        child.wait(60)


def family(pid: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *map(int, children)]


def postgres_processes() -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and (entry / "comm").read_text().strip() == "postgres":
                found.append(int(entry.name))
    return found


def cpu(processes: list[int]) -> float:
    """Seconds of CPU so far."""
    total = 0
    for pid in processes:
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
    return total / TICK


def wal(url: str | None) -> float:
    if url is None:
        return 0
    with psycopg.connect(url) as connection:
        row = connection.execute("select pg_current_wal_lsn() - '0/0'").fetchone()
    return float(row[0]) if row else 0


def show(found: dict[str, Figures]) -> None:
    columns = (
        "callbacks/s",
        "web CPU ms",
        "database CPU ms",
        "WAL bytes",
        "deliveries/s",
        "worker CPU ms",
        "database CPU ms",
    )
    print(f"| | {' | '.join(columns)} |\n|---|{'---:|' * len(columns)}")
    for name, figures in found.items():
        values = [
            statistics.median(series) if series else None for series in vars(figures).values()
        ]
        cells = ("" if value is None else f"{value:.4g}" for value in values)
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 4)

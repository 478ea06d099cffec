"""After SIGTERM, running work is completed and recorded, and no new work begins."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import requests

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.ingest import Ingest
from receiver.stores.sqlite.writer import file_lock
from receiver.tasks import Status, Task
from tests.support.gunicorn_processes import (
    accept_connections,
    database,
    has_unread_bytes,
    idle_sockets,
    launch_all,
    path,
    raw,
    send,
    sockets,
    waits_for_lock,
)
from tests.support.http_server import LoopbackServer
from tests.support.installation import Installation, both_stores
from tests.support.patience import PATIENCE
from tests.support.samples import callback, subscription

IN_FLIGHT = 12
UNHURRIED = "tests.support.apps.unhurried:app"
STOPS_VISIBLY = "tests.support.apps.stops_visibly"
# Its output. With PostgreSQL, a worker has two queues.
STOPPING = "the process was told to stop"
QUEUE_STARTED, QUEUE_STOPPING = "Starting worker on", "Stop requested"
HOOKS = """
[[hook]]
name = "slack"
type = "slack"
url = "{url}"
allow_private = true
deadline = 3600
"""


def terminate(installation: Installation, name: str) -> None:
    os.kill(installation.running[name].pid, signal.SIGTERM)


def begin_to_drain(installation: Installation, processes: list[int]) -> None:
    """Send SIGTERM to the web process, and wait until each worker process has noticed it."""
    terminate(installation, "web")
    port = installation.port
    installation.wait_until(lambda: not accept_connections(processes, port))


def begin_to_stop(installation: Installation, name: str) -> None:
    """Send SIGTERM to a program that logs its stop, and wait until it accepts no more work."""
    log = installation.folder / f"{name}.log"
    has_queues = name == "worker" and not database(installation).exists()  # PostgreSQL
    if has_queues:  # a delivery can begin before they have started
        installation.wait_until(lambda: log.read_text().count(QUEUE_STARTED) == 2)
    terminate(installation, name)
    installation.wait_until(lambda: STOPPING in log.read_text())
    if has_queues:
        installation.wait_until(lambda: log.read_text().count(QUEUE_STOPPING) == 2)


def is_on_record(installation: Installation, task: str) -> bool:
    history = installation.store.queries.history(task)
    return [stored.callback.body for stored in history.callbacks] == [raw(task)]


def test_callbacks_in_flight_are_answered_and_on_record(installation: Installation) -> None:
    processes = launch_all(installation, UNHURRIED)
    idle = idle_sockets(installation)
    tasks = [f"task-{number}" for number in range(IN_FLIGHT)]
    with ThreadPoolExecutor(IN_FLIGHT) as pool:
        with file_lock(database(installation)):  # no commit is possible yet
            answers = [pool.submit(send, installation, task) for task in tasks]
            installation.wait_until(lambda: sockets(processes) >= idle + IN_FLIGHT)
            installation.wait_until(lambda: not has_unread_bytes(installation.port))
            installation.wait_until(lambda: waits_for_lock(database(installation)))
            begin_to_drain(installation, processes)
            assert not any(answer.done() for answer in answers)
        assert [answer.result().status_code for answer in answers] == [200] * IN_FLIGHT
    assert installation.status_at_the_end("web") == 0
    assert all(is_on_record(installation, task) for task in tasks)


def test_a_callback_that_is_still_arriving_is_answered(installation: Installation) -> None:
    processes = launch_all(installation, UNHURRIED)
    idle = idle_sockets(installation)
    head = (
        f"POST {path('slow')} HTTP/1.1\r\nHost: receiver\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(raw('slow'))}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as connection:
        connection.sendall(head.encode() + raw("slow")[:100])
        installation.wait_until(lambda: sockets(processes) > idle)
        begin_to_drain(installation, processes)
        connection.sendall(raw("slow")[100:])
        assert b" 200 " in connection.makefile("rb").readline()
    assert installation.status_at_the_end("web") == 0
    assert is_on_record(installation, "slow")


@both_stores
def test_every_callback_acknowledged_under_load_is_on_record(installation: Installation) -> None:
    launch_all(installation, UNHURRIED)
    acknowledged: list[str] = []

    def send_until_it_is_gone(number: int) -> set[int]:
        statuses = set()
        for turn in range(10_000):
            task = f"task-{number}-{turn}"
            try:
                answer = send(installation, task)
            except requests.ConnectionError:
                break
            statuses.add(answer.status_code)
            if answer.ok:
                acknowledged.append(task)
        return statuses

    with ThreadPoolExecutor(8) as pool:
        seen = [pool.submit(send_until_it_is_gone, number) for number in range(8)]
        installation.wait_until(lambda: len(acknowledged) > 100)
        terminate(installation, "web")
        assert installation.status_at_the_end("web") == 0
        assert set().union(*(one.result() for one in seen)) == {200}
    assert all(is_on_record(installation, task) for task in acknowledged)


class HeldServer:
    """An HTTP server that responds only when allowed; `asked` is set when a request waits."""

    def __init__(self) -> None:
        self.asked, self.may_answer = threading.Event(), threading.Event()
        self.url = ""


@contextmanager
def held_server() -> Iterator[HeldServer]:
    state = HeldServer()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            state.asked.set()
            state.may_answer.wait(PATIENCE)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")

        do_GET = do_POST = answer  # noqa: N815 - the library requires these names

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    server = LoopbackServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield state
    finally:
        state.may_answer.set()
        server.shutdown()
        server.server_close()


@both_stores
def test_a_worker_completes_its_attempt_and_begins_no_other(
    tmp_path: Path, installation: Installation
) -> None:
    ingest = Ingest(installation.store, [subscription("slack")])
    # With one slot, the worker looks for other work only when the first attempt has ended.
    installation.environment["WORKER_CONCURRENCY"] = "1"
    with held_server() as server:
        (tmp_path / "hooks.toml").write_text(HOOKS.format(url=server.url))
        installation.start("worker", STOPS_VISIBLY, "receiver", "worker")
        ingest.accept(callback(raw("first"), "first"))
        assert server.asked.wait(PATIENCE)
        begin_to_stop(installation, "worker")
        ingest.accept(callback(raw("second"), "second"))
        assert installation.running["worker"].poll() is None
        server.may_answer.set()
        assert installation.status_at_the_end("worker") == 0
    states = {found.task_id: found.state for found in installation.store.lists.deliveries()}
    assert states == {"first": State.DELIVERED, "second": State.PENDING}
    (attempts,) = installation.store.queries.history("first").attempts.values()
    assert [attempt.outcome for attempt in attempts] == ["delivered"]


@both_stores
def test_a_poller_completes_its_query_and_releases_all_claims(installation: Installation) -> None:
    now = now_ms()
    task = Task(
        "task-1", "kling", Status.SUBMITTED, now, now, deadline_at=now, provider_task_id="8283"
    )
    installation.store.inbox.create_task(task)
    with held_server() as server:
        installation.environment["KLING_BASE_URL"] = server.url
        installation.start("poller", STOPS_VISIBLY, "submitter", "reconcile", "--forever")
        assert server.asked.wait(PATIENCE)
        held_until = installation.store.polling.next_deadline_at()
        begin_to_stop(installation, "poller")
        assert installation.running["poller"].poll() is None
        server.may_answer.set()
        assert installation.status_at_the_end("poller") == 0
    log = installation.logs_of("poller")
    assert (log.count("poller started"), log.count("poller stopped")) == (1, 1)
    deadline_at = installation.store.polling.next_deadline_at()
    assert deadline_at is not None
    assert held_until is not None
    assert deadline_at < held_until  # by its own schedule, not the lease of a dead poller

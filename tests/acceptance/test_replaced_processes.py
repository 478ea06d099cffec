"""Web processes are replaced without refusing a request, and lose no counts."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import requests

from receiver.signing.callback_urls import mint
from tests.support.gunicorn_processes import path, raw, send, workers
from tests.support.installation import Installation, both_stores
from tests.support.patience import PATIENCE

UNHURRIED = "tests.support.apps.unhurried:app"
SENDERS = 6
JSON = {"Content-Type": "application/json"}


@contextmanager
def load(installation: Installation) -> Iterator[list[str]]:
    """Send callbacks without a pause, on new and persistent connections; yield the answered ones.

    At the end, check that every request received 200.
    """
    answered: list[str] = []
    is_over = threading.Event()

    def post_by_session(session: requests.Session, task: str) -> int:
        url = installation.url + path(task)
        return session.post(url, data=raw(task), headers=JSON, timeout=PATIENCE).status_code

    def run(number: int) -> None:
        turn = 0
        with requests.Session() as session:
            while not is_over.is_set():
                task = f"task-{number}-{turn}"
                if number % 2:
                    status = post_by_session(session, task)
                else:
                    status = send(installation, task).status_code
                assert status == 200
                answered.append(task)
                turn += 1

    with ThreadPoolExecutor(SENDERS) as pool:
        senders: list[Future[None]] = [pool.submit(run, number) for number in range(SENDERS)]
        try:
            yield answered
        finally:
            is_over.set()
        for sender in senders:
            sender.result()


def start(installation: Installation, *more: str) -> list[int]:
    """A stop may take as long as the current requests need."""
    installation.start_web(UNHURRIED, "--graceful-timeout", "1000000", *more)
    installation.wait_until_ready()
    installation.wait_until(lambda: len(workers(installation)) == 2)
    return workers(installation)


@both_stores
def test_no_request_is_refused_when_a_process_reaches_its_maximum_of_requests(
    installation: Installation,
) -> None:
    seen = set(start(installation, "--max-requests", "50"))

    def are_replaced() -> bool:
        seen.update(workers(installation))
        return len(seen) >= 6

    with load(installation) as answered:
        installation.wait_until(are_replaced)
    recorded = {task.id for task in installation.store.lists.tasks(limit=len(answered) + 1)}
    assert recorded == set(answered)
    assert "Traceback" not in installation.logs()


def test_no_request_is_refused_while_the_processes_are_reloaded(
    installation: Installation,
) -> None:
    """After SIGHUP, new processes accept requests, and the old ones finish theirs."""
    before = start(installation)
    with load(installation) as answered:
        for _ in range(3):
            serves_more(installation, answered)
            os.kill(installation.running["web"].pid, signal.SIGHUP)
            before = replaced(installation, before)
        serves_more(installation, answered)
    recorded = {task.id for task in installation.store.lists.tasks(limit=len(answered) + 1)}
    assert recorded == set(answered)
    assert "Traceback" not in installation.logs()
    assert installation.stop("web") == 0


def serves_more(installation: Installation, answered: list[str]) -> None:
    count = len(answered)
    installation.wait_until(lambda: len(answered) > count + 50)


def replaced(installation: Installation, before: list[int]) -> list[int]:
    """Wait until none of these processes is left, and return those that replaced them."""

    def are_gone() -> bool:
        now = workers(installation)
        return len(now) == 2 and not set(before) & set(now)

    installation.wait_until(are_gone)
    return workers(installation)


@both_stores
@pytest.mark.parametrize("how", ["SIGTERM", "max_requests"])
def test_metrics_and_rejections_of_a_process_are_on_record_when_it_has_ended(
    installation: Installation, how: str
) -> None:
    more = ["--max-requests", "4"] if how == "max_requests" else []
    installation.start_web("tests.support.apps.written_at_exit:app", "--workers", "1", *more)
    installation.wait_until(lambda: is_open(installation.port) and workers(installation))
    (process,) = workers(installation)
    assert send(installation, "task-1").status_code == 200
    wrong = f"/callbacks/kling/task-1/{mint('another secret of ours', 'kling', 'task-1')}"
    url = installation.url + wrong
    assert requests.post(url, data=b"{}", headers=JSON, timeout=PATIENCE).status_code == 404
    with socket.create_connection(("127.0.0.1", installation.port), PATIENCE) as client:
        client.sendall(b"\x16\x03\x01\x02\x00")
        assert b" 400 " in client.makefile("rb").readline()
    assert installation.store.activity.rejections() == []
    if how == "SIGTERM":
        assert installation.stop("web") == 0
    else:
        while process in workers(installation):
            requests.get(f"{installation.url}/healthz", timeout=PATIENCE)
    reasons = {rejection.reason for rejection in installation.store.activity.rejections()}
    assert len(reasons) == 2
    assert any("TLS" in reason for reason in reasons)
    measured = {reading.name: reading for reading in installation.store.metrics.samples()}
    assert "callbacks" in str(measured)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0

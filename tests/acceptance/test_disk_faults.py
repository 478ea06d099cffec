"""A commit that fails is a 503 with Retry-After, never a 2xx; and it heals without a restart."""

from __future__ import annotations

import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import requests

from disk import FAILED_SYNC, FAILED_WRITE, FULL, Disk, can_be_installed
from installation import Installation
from receiver.errors import NotFound
from receiver.signing import mint
from sandbox.server import Sandbox
from samples import SECRET, body

AT_ONCE = 6
Fault = Callable[[Installation], AbstractContextManager[None]]

can_be_watched = pytest.mark.skipif(
    not can_be_installed(),
    reason="SQLite is built into this Python and cannot be watched; take one that links "
    "libsqlite3: apt-get install python3-venv, make clean, make test PYTHON=/usr/bin/python3",
)


def start(installation: Installation, *, watched: bool = False, before: tuple[str, ...] = ()) -> None:
    app = ("--pythonpath", "tests", "on_a_watched_disk:app") if watched else ("wsgi:app",)
    bind = ("--bind", f"127.0.0.1:{installation.port}")
    config = ("--config", "python:receiver.web.gunicorn")
    installation.start("web", *before, "gunicorn", *config, *bind, *app)


def workers(installation: Installation) -> list[int]:
    master = installation.running["web"].pid
    return [int(pid) for pid in Path(f"/proc/{master}/task/{master}/children").read_text().split()]


def send(installation: Installation, task: str) -> requests.Response:
    url = f"{installation.url}/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
    headers = {"Content-Type": "application/json"}
    raw = body(task_id=f"at-kling-{task}")
    return requests.post(url, data=raw, headers=headers, timeout=40)


def send_at_once(installation: Installation, name: str) -> list[requests.Response]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda n: send(installation, f"{name}-{n}"), range(AT_ONCE)))


def must_be_refused(installation: Installation) -> None:
    for answer in send_at_once(installation, "task"):
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
    assert requests.get(f"{installation.url}/healthz", timeout=20).status_code == 200


def must_be_taken(installation: Installation) -> None:
    """What was refused is sent again, and taken as if it had never been sent."""
    answers = [(found.status_code, found.json()) for found in send_at_once(installation, "task")]
    assert answers == [(200, {"outcome": "recorded"})] * AT_ONCE
    for number in range(AT_ONCE):
        history = installation.store.history(f"task-{number}")
        assert [move.status for move in history.transitions] == ["succeeded"]
        assert [stored.repeats for stored in history.callbacks] == [0]
        assert len(history.deliveries) == 3


@contextmanager
def broken(installation: Installation, what: str, code: int) -> Iterator[None]:
    disk = Disk(installation.folder / "receiver.db")
    disk.break_(what, code)
    yield
    disk.mend()


@can_be_watched
@pytest.mark.parametrize(
    ("what", "code"),
    [("write", FULL), ("write", FAILED_WRITE), ("sync", FAILED_SYNC)],
    ids=["full disk", "write error", "sync error"],
)
def test_a_disk_that_fails(installation: Installation, what: str, code: int) -> None:
    Disk(installation.folder / "receiver.db").begin()
    start(installation, watched=True)
    installation.wait_until_ready()
    through_the_fault(installation, lambda: broken(installation, what, code))


def through_the_fault(
    installation: Installation, fault: Callable[[], AbstractContextManager[None]]
) -> None:
    assert send(installation, "before").status_code == 200
    processes = workers(installation)
    with fault():
        must_be_refused(installation)
        if installation.store._path.exists():
            assert [task.id for task in installation.store.tasks()] == ["before"]
    must_be_taken(installation)
    assert workers(installation) == processes  # none was started again
    assert "Traceback" not in installation.logs()

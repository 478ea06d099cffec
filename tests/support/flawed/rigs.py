"""A receiver under test, observed from outside: its responses, record, log and hook calls."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Protocol

import requests

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.errors import NotFound
from receiver.signing.callback_urls import callback_url
from sandbox.server import Sandbox
from tests.support import processes
from tests.support.flawed import receivers
from tests.support.http_server import LoopbackServer
from tests.support.installation import SHORT_LEASES, Installation
from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port
from tests.support.samples import SECRET

SIGNING_SECRET = "whsec_" + base64.b64encode(receivers.SIGNING_KEY).decode()
UNBUFFERED = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}


class Told:
    """The server that the hook calls. It may run a function of the task before it responds."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []  # event id, body
        self.before_answer: dict[str, Callable[[], None]] = {}  # by task
        handler = type("Mine", (_ToldHandler,), {"told": self})
        self.server = LoopbackServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/told"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True)
        self.thread.start()

    def of(self, task: str) -> list[str]:
        """Return the event ids of the calls about this task."""
        return [identity for identity, body in list(self.calls) if task in body]

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


class _ToldHandler(BaseHTTPRequestHandler):
    told: Told

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.told.calls.append((self.headers["webhook-id"], body))
        for task in [task for task in list(self.told.before_answer) if task in body]:
            self.told.before_answer.pop(task)()
        with suppress(OSError):
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


class Rig(Protocol):
    """One receiver under test."""

    told: Told
    base: str

    def start(self) -> None: ...

    def kill(self) -> None:
        """Kill it with SIGKILL, as a power cut would."""
        ...

    def url(self, task: str) -> str: ...

    def moves(self, task: str) -> list[str]:
        """Return the recorded transitions, with the provider's names of the statuses."""
        ...

    def status(self, task: str) -> str | None: ...

    def is_idle(self) -> bool:
        """Return whether every recorded delivery has ended."""
        ...

    @contextmanager
    def paused(self, after: str) -> Iterator[None]:
        """Within the block, a receiver with a race condition pauses after this step."""
        ...

    def paused_requests(self) -> int:
        """Return how many requests are paused."""
        ...

    def log(self) -> str: ...

    def close(self) -> None: ...


def post(
    url: str, body: bytes, headers: Mapping[str, str] | None = None, *, tolerant: bool = False
) -> int:
    """Send a callback and return the status; 0 if there was no response and that is acceptable."""
    with requests.Session() as session:
        session.trust_env = False
        sent = {"Content-Type": "application/json", **(headers or {})}
        try:
            return session.post(url, data=body, headers=sent, timeout=PATIENCE).status_code
        except requests.RequestException:
            if not tolerant:
                raise
            return 0


def signed(body: bytes, age: int = 0) -> dict[str, str]:
    """Return the provider's signature of this body, made this many seconds ago."""
    message_id, at = str(uuid.uuid4()), str(int(time.time()) - age)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": at,
        "webhook-signature": receivers.signature(message_id, at, body),
    }


class SmallRig:
    """One of the small receivers."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.told = name, folder, Told()
        self.port = free_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | processes.ForkedProcess | None = None
        self._paused_before = 0

    def start(self) -> None:
        program = [receivers.__name__, self.name, str(self.port), str(self.folder), self.told.url]
        with (self.folder / "log").open("ab") as log:
            self.process = processes.start(program, UNBUFFERED, log)
        _until_it_listens(self.base)

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait(PATIENCE)

    def url(self, task: str) -> str:
        return f"{self.base}/callbacks/kling/{task}/{receivers.token_of(task)}"

    def moves(self, task: str) -> list[str]:
        return self._read("select status from transitions where task = ?", task)

    def status(self, task: str) -> str | None:
        return next(iter(self._read("select status from tasks where id = ?", task)), None)

    def is_idle(self) -> bool:
        return not self._read("select id from deliveries where state = ?", "pending")

    @contextmanager
    def paused(self, after: str) -> Iterator[None]:
        self._paused_before = self.log().count(receivers.PAUSED)
        (self.folder / after).touch()
        try:
            yield
        finally:
            (self.folder / after).unlink()

    def paused_requests(self) -> int:
        return self.log().count(receivers.PAUSED) - self._paused_before

    def _read(self, sql: str, parameter: str) -> list[str]:
        connection = sqlite3.connect(self.folder / "record.db", timeout=PATIENCE)
        try:
            return [str(row[0]) for row in connection.execute(sql, (parameter,))]
        finally:
            connection.close()

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def close(self) -> None:
        self.kill()
        self.told.close()


HOOK = """
[[hook]]
name = "system"
type = "webhook"
url = "{url}"
secrets = ["{secret}"]
allow_private = true
"""
OURS = {"succeeded": "succeed"}  # our name of the status, and the provider's


class OurRig:
    """This project's receiver: gunicorn and a worker.

    Its leases do not expire by themselves: on a busy machine this could happen while its worker is
    alive, and a delivery would be sent twice. They expire when the worker is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.told = Told()
        self._sandbox = Sandbox()
        self._sandbox.__enter__()
        self._made = Installation(folder, self._sandbox)
        hook = HOOK.format(url=self.told.url, secret=SIGNING_SECRET)
        (folder / "hooks.toml").write_text(hook)
        self._made.environment["LEASE"] = "1000000"
        self._made.environment["KLING_WEBHOOK_SECRETS"] = SIGNING_SECRET
        self._made.migrate()
        self.base = self._made.url

    def start(self) -> None:
        self._made.start_web("tests.support.apps.unhurried:app")
        self._made.start("worker", SHORT_LEASES, "receiver", "worker")
        self._made.wait_until_ready()

    def kill(self) -> None:
        for name in ("web", "worker"):
            self._made.kill(name)
        for delivery in self._made.store.lists.deliveries(state=State.CLAIMED):
            self._made.store.outbox.renew([delivery], now_ms())

    def url(self, task: str) -> str:
        return callback_url(self.base, SECRET, "kling", task)

    def moves(self, task: str) -> list[str]:
        try:
            found = [move.status for move in self._made.store.queries.history(task).transitions]
        except NotFound:
            return []
        return [OURS.get(status, status) for status in found if status != "created"]

    def status(self, task: str) -> str | None:
        try:
            status = self._made.store.queries.task(task).status.value
        except NotFound:
            return None
        return OURS.get(status, status)

    def is_idle(self) -> bool:
        over = (State.DELIVERED, State.DEAD)
        return all(
            delivery.state in over for delivery in self._made.store.lists.deliveries(limit=1000)
        )

    @contextmanager
    def paused(self, after: str) -> Iterator[None]:  # noqa: ARG002
        """Do nothing, because this receiver has no race condition to show."""
        yield

    def paused_requests(self) -> int:
        return 0

    def log(self) -> str:
        return self._made.logs()

    def close(self) -> None:
        self._made.close()
        self._sandbox.__exit__()
        self.told.close()


def _until_it_listens(base: str) -> None:
    def listens() -> bool:
        with suppress(requests.ConnectionError):
            return post(f"{base}/callbacks/kling", b"{") in (400, 401)
        return False

    wait_until(listens)

"""A client of the sandbox's Kling API, and a server that receives its callbacks."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from importlib import resources
from typing import Any

import requests

from sandbox.providers.kling_auth import API_KEY
from tests.support.patience import PATIENCE, wait_until

TRY_ON = "/v1/images/kolors-virtual-try-on"


def encoded(name: str) -> str:
    return base64.b64encode((resources.files("sandbox") / "images" / name).read_bytes()).decode()


INPUTS = {"human_image": encoded("person.jpg"), "cloth_image": encoded("garment.png")}


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the first true value of `condition`; fail if there is none in time."""
    found: list[Any] = []

    def is_found() -> bool:
        found[:] = [condition()]
        return bool(found[0])

    wait_until(is_found)
    return found[0]


@dataclass
class Kling:
    """A client that sends any request of the test, correct or not."""

    url: str
    session: requests.Session
    authorization: str | None = f"Bearer {API_KEY}"

    def call(self, method: str, path: str, **options: Any) -> requests.Response:
        headers = {"Authorization": self.authorization, **options.pop("headers", {})}
        return self.session.request(
            method,
            self.url + path,
            headers=headers,
            timeout=PATIENCE,
            allow_redirects=False,
            **options,
        )

    def create(self, **fields: Any) -> requests.Response:
        body = {name: value for name, value in {**INPUTS, **fields}.items() if value is not None}
        return self.call("POST", TRY_ON, json=body)

    def post(self, body: bytes, content_type: str = "application/json") -> requests.Response:
        return self.call("POST", TRY_ON, data=body, headers={"Content-Type": content_type})

    def created(self, **fields: Any) -> dict[str, Any]:
        answer = self.create(**fields)
        assert answer.status_code == 200, answer.text
        data: dict[str, Any] = answer.json()["data"]
        return data

    def query(self, key: str) -> dict[str, Any]:
        data: dict[str, Any] = self.call("GET", f"{TRY_ON}/{key}").json()["data"]
        return data

    def ended(self, key: str) -> dict[str, Any]:
        """Wait for the end of a task and return it."""
        wait_for(lambda: self.query(key)["task_status"] in ("succeed", "failed"))
        return self.query(key)


class Moves:
    """Delays the scheduled jobs of the sandbox until `release` is called."""

    def __init__(self) -> None:
        self.waits: list[float] = []  # seconds, as the sandbox requested
        self._held: list[Callable[[], None]] = []
        self._is_holding = True
        self._lock = threading.Lock()

    def put_off(self, seconds: float, job: Callable[[], None]) -> None:
        with self._lock:
            self.waits.append(seconds)
            if self._is_holding:
                self._held.append(job)
                return
        job()

    def hold(self) -> None:
        self._is_holding = True

    def release(self) -> None:
        """Run all delayed jobs now, and later jobs immediately."""
        with self._lock:
            self._is_holding = False
            held, self._held = self._held, []
        for job in held:
            job()


@dataclass
class Sink:
    """Receives callbacks; responds with each of `answers` in turn, and then with 200."""

    url: str
    answers: list[int] = field(default_factory=list)
    received: list[tuple[dict[str, str], dict[str, Any]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        with self.lock:
            self.received.append((headers, json.loads(body)))
            return self.answers.pop(0) if self.answers else 200

    def statuses(self, task_id: str) -> list[str]:
        bodies = [body for _, body in self.received]
        return [body["task_status"] for body in bodies if body["task_id"] == task_id]


class SinkHandler(BaseHTTPRequestHandler):
    """The status 0 stands for a response that ends in the middle of its body."""

    sink: Sink

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.sink.take(dict(self.headers), body)
        self.send_response(status or 200)
        self.send_header("Content-Length", "2" if status else "200")
        self.end_headers()
        self.wfile.write(b"{}")
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Log nothing."""

"""A hook's secrets never appear in a dead letter, an alert or a log line."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from receiver.clock import now_ms
from receiver.config import hooks_file
from receiver.config.hook_secrets import secrets
from receiver.deliveries import Notice, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import Breaker
from receiver.hooks import build_all
from receiver.hooks.base import Done, Hook
from receiver.ingest import Ingest
from receiver.observability import logs
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.sqlite import SqliteStore
from receiver.text.display import hiding
from tests.support.dispatching import working
from tests.support.http_server import LoopbackServer
from tests.support.patience import wait_until
from tests.support.samples import body, callback, subscription

SIGNATURE = "canary-of-the-signed-link"
TOKEN = "Canary0ofTheCallbackUrl0aaaaaaaaaaaaaaaaaaa"
PATH = "T0CANARY/B0CANARY/canaryofslack"
SECRET = "whsec_Y2FuYXJ5IG9mIHRoZSB3ZWJob29rIHNlY3JldA=="
CANARIES = (SIGNATURE, TOKEN, PATH, SECRET.removeprefix("whsec_"))


HOOKS = """
[[hook]]
name = "crm"
type = "webhook"
url = "${{CRM_URL}}"
secrets = ["${{CRM_SECRET}}"]
allow_private = true

[[hook]]
name = "chat"
type = "slack"
url = "{url}/services/{path}"
allow_private = true
"""


class Echo(BaseHTTPRequestHandler):
    """A server that repeats the request in its response, as some error pages do."""

    def do_POST(self) -> None:
        told = self.rfile.read(int(self.headers["Content-Length"]))
        link = f"/callbacks/kling/task-1/{TOKEN}"
        said = f"{self.path} {link} {SECRET}\n{told.decode()}\n{self.headers}".encode()
        self.send_response(500)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *_: Any) -> None:
        """Log nothing: the test examines our log."""


class Broken:
    """A hook with a bug, which raises everything that it receives."""

    name = "broken"

    def send(self, notice: Notice) -> Done:
        raise OSError(f"cannot open {notice.media[0].url} with {SECRET}")


@pytest.fixture
def url() -> Iterator[str]:
    server = LoopbackServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_no_secret_stays_with_a_delivery_that_failed(
    store: SqliteStore, url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    link = f"https://cdn.example/0.png?Expires=9&Signature={SIGNATURE}"
    raw = body("succeed", task_result={"images": [{"index": 0, "url": link}]})
    given = {"CRM_URL": f"{url}/hook/{PATH}?key={SIGNATURE}", "CRM_SECRET": SECRET}
    (tmp_path / "hooks.toml").write_text(HOOKS.format(url=url, path=PATH))
    entries = hooks_file.load(tmp_path / "hooks.toml", lambda _: None)
    hooks: dict[str, Hook] = {**build_all(entries, given), "broken": Broken()}
    hide = hiding(secrets(entries, given))
    Ingest(store, [subscription(name) for name in hooks]).accept(callback(raw))
    logs.configure(hide)
    breaker = Breaker(failures=1, seconds=0, pauses=(0.01,))
    deliver = DeliveryWorker(store, hooks, RetryPolicy(delays=(0.01,)), breaker, hide=hide)
    with working(deliver):
        wait_until(lambda: len(store.lists.deliveries(state=State.DEAD)) == len(hooks))

    history = store.queries.history("task-1")
    answers = [made.answer for row in history.attempts.values() for made in row]
    assert len(answers) == 2 * len(hooks)
    assert any("answered 500" in answer for answer in answers)  # the response is stored
    assert any("OSError: cannot open https://cdn.example" in answer for answer in answers)
    alerts = [
        f"{alert.title} {alert.text}" for alert in store.endpoints.take_alerts(now_ms(), now_ms())
    ]
    assert len(alerts) == len(hooks)
    printed = capfd.readouterr()
    assert "a hook broke" in printed.err
    everything = [*answers, *alerts, *map(repr, store.endpoints.all()), printed.out, printed.err]
    found = [(canary, text) for canary in CANARIES for text in everything if canary in text]
    assert found == []

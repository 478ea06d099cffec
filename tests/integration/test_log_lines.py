"""Every log line names its request, task and delivery, and none repeats untrusted text."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from flask import Flask

from receiver.config.settings import Settings
from receiver.deliveries import Notice
from receiver.delivery.attempt import DeliveryWorker
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.observability import logs
from receiver.outgoing.retry import RetryPolicy
from receiver.signing.callback_urls import mint
from receiver.stores.sqlite import SqliteStore
from tests.support.applications import MakeApp
from tests.support.attempts import make_attempt
from tests.support.dispatching import working
from tests.support.patience import wait_until
from tests.support.samples import SECRET, body, callback, subscription

TOKEN = "a-token-for-the-tests"
NOW = 1_765_519_851_000
AUTH = {"Authorization": f"Bearer {TOKEN}"}
URL = f"/callbacks/kling/task-1/{mint(SECRET, 'kling', 'task-1')}"
Lines = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def make(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> Callable[[int], Flask]:
    def made(proxies: int) -> Flask:
        store.check_schema()
        (tmp_path / "hooks.toml").write_text("")
        return make_app(
            Settings(
                f"sqlite:///{tmp_path / 'receiver.db'}",
                (SECRET,),
                hooks_file=tmp_path / "hooks.toml",
                api_token=TOKEN,
                trusted_proxies=proxies,
            )
        )

    return made


@pytest.fixture
def app(make: Callable[[int], Flask]) -> Flask:
    return make(0)


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Lines]:
    """Return the lines that were logged since the last call."""
    logs.configure(form="json")
    structlog.contextvars.clear_contextvars()
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    structlog.contextvars.clear_contextvars()


def test_a_response_has_the_request_id_of_the_log(
    app: Flask, lines: Lines, store: SqliteStore, tmp_path: Path
) -> None:
    store.activity.heartbeat("w", "worker", 1)  # the lock file exists
    (tmp_path / "receiver.db-lock").unlink()
    (tmp_path / "receiver.db-lock").mkdir()
    client = app.test_client()
    lines()
    answer = client.post(URL, data=body(), content_type="application/json")
    found = lines()
    assert [line["event"] for line in found] == ["the record is unavailable", "request"]
    for line in found:
        assert line["request_id"] == answer.headers["X-Request-Id"]
        assert line["task"] == "task-1"


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/api/tasks", "/callbacks/kling/t/x"])
def test_every_response_has_its_own_request_id(app: Flask, path: str) -> None:
    client = app.test_client()
    found = {client.get(path).headers["X-Request-Id"] for _ in range(3)}
    assert len(found) == 3


def test_a_request_leaves_nothing_to_the_next(app: Flask, lines: Lines) -> None:
    client = app.test_client()
    client.post(URL, data=body(), content_type="application/json")
    lines()
    client.get("/nothing")
    (line,) = lines()
    assert "task" not in line


@pytest.mark.parametrize("path", ["/healthz", "/nothing", "/api/tasks/t", "/callbacks/kling/t/x"])
def test_a_thread_has_no_request_context_after_its_response(app: Flask, path: str) -> None:
    """A gthread worker logs errors outside of HTTP on that thread."""
    app.test_client().get(path, headers=AUTH)
    assert structlog.contextvars.get_contextvars() == {}


SANE = "7f3a:01-ab_c.Z"
GIVEN = [
    (0, SANE, False),  # no proxy is trusted
    (1, SANE, True),
    (1, "short", False),
    (1, "x" * 65, False),
    (1, "two,ids,of,two,proxies", False),
    (1, "with space", False),
    (1, 'quoted"12345', False),
    (1, "é1234567", False),
    (1, "", False),
    (1, mint(SECRET, "kling", "task-1"), False),  # a secret that was logged by mistake
]


@pytest.mark.parametrize(("proxies", "given", "is_taken"), GIVEN)
def test_only_a_trusted_proxy_sets_the_request_id_and_only_a_valid_one(
    make: Callable[[int], Flask], lines: Lines, proxies: int, given: str, is_taken: bool
) -> None:
    client = make(proxies).test_client()
    lines()
    answer = client.get("/nothing", headers={"X-Request-Id": given})
    (line,) = lines()
    assert (answer.headers["X-Request-Id"] == given) is is_taken
    assert line["request_id"] == answer.headers["X-Request-Id"]


def test_the_lines_of_an_api_request_name_its_subject(app: Flask, lines: Lines) -> None:
    client = app.test_client()
    asked: list[tuple[str, str, dict[str, Any]]] = [
        ("get", "/api/tasks/task-1", {"task": "task-1"}),
        ("post", "/api/deliveries/7/redeliver", {"delivery": 7}),
        ("post", "/api/callbacks/8/replay", {"callback": 8}),
        ("get", "/api/tasks/%1b[31m", {}),
    ]
    for method, path, named in asked:
        lines()
        getattr(client, method)(path, headers=AUTH)
        (line,) = lines()
        assert {name: line.get(name) for name in ("task", "delivery", "callback")} == {
            "task": None,
            "delivery": None,
            "callback": None,
            **named,
        }


def test_names_from_unauthenticated_requests_are_not_logged(app: Flask, lines: Lines) -> None:
    client = app.test_client()
    client.get("/api/tasks/canary")
    client.post("/callbacks/kling/canary/wrong", data=b"{}", content_type="application/json")
    assert "canary" not in json.dumps(lines())


class Careless:
    """A hook that makes a library log a warning, and then fails."""

    name = "careless"

    def __init__(self) -> None:
        self.logger = logging.getLogger("a.careless.library")
        self.logger.propagate = False

    def send(self, _: Notice) -> Done:
        self.logger.warning("a library complains")
        raise ZeroDivisionError


def test_every_line_of_a_delivery_names_it(store: SqliteStore, lines: Lines) -> None:
    Ingest(store, [subscription("careless")]).accept(callback(body()))
    deliver = DeliveryWorker(store, {"careless": Careless()}, RetryPolicy(delays=()))
    with working(deliver):
        wait_until(lambda: store.lists.deliveries()[0].ended_at)
    (delivery,) = store.lists.deliveries()
    found = lines()
    events = [line["event"] for line in found]
    assert events == ["a library complains", "a hook broke", "delivery is dead"]
    for line in found:
        named = (line["delivery"], line["task"], line["hook"])
        assert named == (delivery.id, "task-1", "careless")


class Curious:
    """A hook that records the context of a line logged now."""

    name = "mail"

    def send(self, _: Notice) -> Done:
        self.context = structlog.contextvars.get_contextvars()
        return Done("ok")


def test_the_lines_of_a_delivery_name_it_with_every_dispatcher(store: SqliteStore) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(body()))
    hook = Curious()
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1, 1)
    make_attempt(DeliveryWorker(store, {"mail": hook}), delivery)
    assert (hook.context["delivery"], hook.context["task"]) == (delivery.id, "task-1")
    assert structlog.contextvars.get_contextvars() == {}

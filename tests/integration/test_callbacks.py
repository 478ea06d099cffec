"""`POST /callbacks/…`: every answer of the contract, over a real record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver import logs
from receiver.clock import now_ms
from receiver.signing import mint
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status
from samples import SECRET, body, payload

JSON = "application/json; charset=utf-8"


def url(task: str = "task-1", provider: str = "kling", secret: str = SECRET) -> str:
    return f"/callbacks/{provider}/{task}/{mint(secret, provider, task)}"


def post(client: FlaskClient, where: str, raw: bytes, **more: Any) -> tuple[int, dict[str, Any]]:
    answer = client.post(where, data=raw, content_type=more.pop("content_type", JSON), **more)
    return answer.status_code, answer.get_json()


@pytest.mark.parametrize(
    ("raws", "outcome"),
    [
        ([body("succeed")], "recorded"),
        ([body("succeed"), body("succeed")], "duplicate"),
        ([body("succeed"), body("processing")], "stale"),
        ([body("succeed"), body("failed")], "conflict"),
    ],
)
def test_the_answer_says_what_became_of_it(
    client: FlaskClient, raws: list[bytes], outcome: str
) -> None:
    answers = [post(client, url(), raw) for raw in raws]
    assert answers[-1] == (200, {"outcome": outcome})


def test_a_recorded_callback_with_its_recorded_headers(
    client: FlaskClient, store: SqliteStore
) -> None:
    headers = json.loads(payload("kling/callback-video-succeed.headers.json"))
    raw = payload("kling/callback-video-succeed.json")
    assert len(raw) == int(headers["Content-Length"])
    assert client.post(url(), data=raw, headers=headers).status_code == 200
    assert store.task("task-1").provider_task_id == "828338674605220001"
    (stored,) = store.callbacks()
    assert stored.callback.body == raw
    assert stored.callback.headers["User-Agent"] == headers["User-Agent"]


def test_fifty_times_eight_at_once_is_one_transition(app: Flask, store: SqliteStore) -> None:
    def send(_: int) -> tuple[int, dict[str, Any]]:
        return post(app.test_client(), url(), body("succeed"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(50)))
    assert {status for status, _ in answers} == {200}
    outcomes = [document["outcome"] for _, document in answers]
    assert sorted(outcomes) == ["duplicate"] * 49 + ["recorded"]
    history = store.history("task-1")
    assert [move.status for move in history.transitions] == ["succeeded"]
    assert [delivery.hook for delivery in history.deliveries] == ["mail"]
    assert [stored.repeats for stored in history.callbacks] == [49]


def nothing_here(client: FlaskClient) -> bytes:
    answer = client.post("/callbacks/some/where/else/entirely", data=b"{}", content_type=JSON)
    assert answer.status_code == 404
    return answer.get_data()


@pytest.mark.parametrize(
    "where",
    [
        url(secret="another-secret-altogether"),
        url()[:-1],
        url() + "x",
        "/callbacks/kling/task-1/",
        "/callbacks/nobody/task-1/" + mint(SECRET, "nobody", "task-1"),
        "/callbacks/kling/task-2/" + mint(SECRET, "kling", "task-1"),
        "/callbacks/appypie/task-1/" + mint(SECRET, "kling", "task-1"),
        "/callbacks/kling/ta%2Fsk/" + mint(SECRET, "kling", "task-1"),
        "/callbacks/kling/%F0%9F%98%80/token",
        "/callbacks/kling//" + mint(SECRET, "kling", "task-1"),
        "/callbacks/kling/task-1/%FF%FE",
    ],
)
def test_a_wrong_token_is_indistinguishable_from_an_unknown_path(
    client: FlaskClient, store: SqliteStore, where: str
) -> None:
    answer = client.post(where, data=body(), content_type=JSON)
    assert answer.status_code == 404
    assert answer.get_data() == nothing_here(client)
    assert store.tasks() == []


def test_a_wrong_token_is_refused_before_the_body_is_looked_at(client: FlaskClient) -> None:
    answer = client.post(url()[:-1], data=b"not json", content_type="text/plain")
    assert answer.status_code == 404


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_415(client: FlaskClient, content_type: str) -> None:
    status, problem = post(client, url(), body(), content_type=content_type)
    assert (status, problem["detail"]) == (415, "Send application/json.")


def test_not_json_is_400_and_kept(client: FlaskClient, store: SqliteStore) -> None:
    status, problem = post(client, url(), b'{"task_id": "1"')
    assert status == 400
    assert "not JSON" in problem["detail"]
    (stored,) = store.callbacks(outcome=Outcome.QUARANTINED)
    assert stored.callback.body == b'{"task_id": "1"'


def test_an_unknown_status_is_422_and_kept(client: FlaskClient, store: SqliteStore) -> None:
    status, problem = post(client, url(), body("completed"))
    assert status == 422
    assert "task_status" in problem["detail"]
    (stored,) = store.callbacks(outcome=Outcome.QUARANTINED)
    assert stored.callback.body == body("completed")
    assert store.task("task-1").status is Status.CREATED


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_413(
    client: FlaskClient, store: SqliteStore, chunked: bool
) -> None:
    raw = body(padding="x" * (256 * 1024))
    if chunked:  # no Content-Length: gunicorn says that the stream ends by itself
        environ = {"wsgi.input_terminated": True}
        stream = BytesIO(raw)
        answer = client.post(url(), input_stream=stream, content_type=JSON, environ_base=environ)
    else:
        answer = client.post(url(), data=raw, content_type=JSON)
    assert answer.status_code == 413
    assert store.callbacks() == []


@pytest.mark.parametrize("method", ["get", "put", "delete", "patch"])
def test_another_method_is_405(client: FlaskClient, method: str) -> None:
    answer = getattr(client, method)(url())
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]


def test_what_could_not_be_stored_is_503_and_heals(
    client: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    lock = tmp_path / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()  # no lock, no write
    answer = client.post(url(), data=body(), content_type=JSON)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert store.callbacks() == []
    lock.rmdir()
    assert post(client, url(), body()) == (200, {"outcome": "recorded"})


def test_problems_are_problem_documents(client: FlaskClient) -> None:
    answer = client.post(url(), data=b"[]", content_type=JSON)
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json() == {
        "title": HTTPStatus(422).phrase,
        "status": 422,
        "detail": "expected a JSON object, got list",
    }


def test_no_token_reaches_the_log(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    post(client, url(), body())
    post(client, url("task-2")[:-1], body())
    client.get(url())
    out, err = capfd.readouterr()
    assert "/callbacks/<provider>/<task_id>/<token>" in err
    for task in ("task-1", "task-2"):
        assert mint(SECRET, "kling", task)[:-1] not in out + err


def test_secrets_in_headers_are_not_kept(client: FlaskClient, store: SqliteStore) -> None:
    headers = {"Authorization": "Bearer canary", "Cookie": "canary=1", "X-Kept": "yes"}
    post(client, url(), body(), headers=headers)
    (stored,) = store.callbacks()
    assert "canary" not in repr(stored.callback.headers)
    assert stored.callback.headers["X-Kept"] == "yes"


def test_alive_and_ready(client: FlaskClient, store: SqliteStore) -> None:
    assert client.get("/healthz").get_json() == {"status": "ok"}
    ready = client.get("/readyz")
    assert ready.status_code == 200
    assert ready.get_json() == {
        "status": "ok",
        "worker_seen": False,
        "deliveries_due": 0,
        "deliveries_dead": 0,
        "backlog_age_seconds": 0,
    }
    post(client, url(), body())
    store.heartbeat("w", "worker", now_ms())
    ready = client.get("/readyz")
    assert ready.get_json()["worker_seen"] is True
    assert ready.get_json()["deliveries_due"] == 1
    assert ready.get_json()["backlog_age_seconds"] > 0


def test_not_ready_when_it_cannot_store(client: FlaskClient, tmp_path: Path) -> None:
    lock = tmp_path / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()
    assert client.get("/readyz").status_code == 503
    assert client.get("/healthz").status_code == 200

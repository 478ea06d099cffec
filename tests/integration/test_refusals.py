"""Refused requests are recorded and limited; requests with a valid token never are."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.transfer import Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.stores.sqlite.database import SqliteDatabase
from receiver.text.limits import MAX_REJECTED_AT_ONCE
from receiver.web import rejections
from receiver.web.attempt_limiter import AttemptLimiter
from tests.support.applications import MakeApp, merge
from tests.support.samples import SECRET, body

KLING = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
TOKEN = mint(SECRET, "kling", "task-1")
RIGHT = f"/callbacks/kling/task-1/{TOKEN}"
WRONG = f"/callbacks/kling/task-1/{TOKEN[:-4]}AAAA"
JSON = "application/json"
GZIP = {"Content-Encoding": "gzip"}
API = "the-token-of-the-api"
Made = Callable[..., Flask]


@pytest.fixture
def made(
    tmp_path: Path, store: SqliteStore, make_app: MakeApp, monkeypatch: pytest.MonkeyPatch
) -> Made:
    # On a busy machine, seconds can pass between two requests. No refusal is given back.
    monkeypatch.setattr(rejections, "AttemptLimiter", partial(AttemptLimiter, per_second=1e-6))

    def make(proxies: int = 0, secrets: tuple[str, ...] = ()) -> Flask:
        store.check_schema()  # already migrated
        return make_app(
            Settings(
                database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
                callback_secrets=(SECRET,),
                hooks_file=tmp_path / "hooks.toml",
                webhook_secrets={"kling": secrets} if secrets else {},
                trusted_proxies=proxies,
                api_token=API,
            )
        )

    return make


@pytest.fixture
def app(made: Made) -> Flask:
    return made()


@pytest.fixture
def trace(app: Flask, store: SqliteStore) -> Callable[[], list[Rejection]]:
    def flushed() -> list[Rejection]:
        app.extensions["rejections"].flush()
        return store.activity.rejections()

    return flushed


def send(client: FlaskClient, path: str, sender: str = "192.0.2.1", **more: object) -> int:
    more = {"method": "POST", "data": body(), "content_type": JSON, **more}
    return client.open(path, environ_base={"REMOTE_ADDR": sender}, **more).status_code  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("path", "more", "status", "reason", "shown"),
    [
        (
            WRONG,
            {},
            404,
            "wrong token: it matches none of CALLBACK_SECRETS",
            "/callbacks/kling/task-1/…",
        ),
        (
            RIGHT + "?a=b",
            {"method": "PUT"},
            405,
            "method is not allowed",
            "/callbacks/kling/task-1/…",
        ),
        ("/callbacks/foo/t/x", {}, 404, 'unknown provider "foo"', "/callbacks/foo/t/…"),
        (f"/callbacks/{TOKEN}/t/x", {}, 404, 'unknown provider "…"', "/callbacks/…/t/…"),
        (
            "/callbacks/modellix/t/x",
            {},
            404,
            "modellix has no callbacks",
            "/callbacks/modellix/t/…",
        ),
        ("/callbacks/kling", {}, 404, "no secret is set for kling", "/callbacks/kling"),
        (f"/callback/kling/t/{TOKEN}", {}, 404, "unknown path", "/callback/kling/t/…"),
        ("/wp-login.php", {"method": "GET"}, 404, "unknown path", "/wp-login.php"),
        (RIGHT, {"data": b"{"}, 400, "the body is not JSON", "/callbacks/kling/task-1/…"),
        (RIGHT, {"data": b"{}"}, 422, "not Kling's callback protocol", "/callbacks/kling/task-1/…"),
        (RIGHT, {"data": b"x" * 300_000}, 413, "", "/callbacks/kling/task-1/…"),
        (
            RIGHT,
            {"data": gzip.compress(b"x" * 300_000), "headers": GZIP},
            413,
            "after decompression",
            "/callbacks/kling/task-1/…",
        ),
        (
            RIGHT,
            {"data": b"not gzip", "headers": GZIP},
            400,
            "cannot be decompressed",
            "/callbacks/kling/task-1/…",
        ),
        *(
            (
                WRONG,
                {"method": method},
                404,
                "wrong token: it matches none of CALLBACK_SECRETS",
                "/callbacks/kling/task-1/…",
            )
            for method in ("GET", "HEAD")
        ),
        ("/callbacks//nobody/t/x/", {}, 404, "unknown provider", "/callbacks/nobody/t/…"),
    ],
)
def test_a_refusal_is_recorded_with_its_reason_and_without_the_token(
    client: FlaskClient,
    trace: Callable[[], list[Rejection]],
    path: str,
    more: dict[str, Any],
    status: int,
    reason: str,
    shown: str,
) -> None:
    assert send(client, path, **more) == status
    (rejection,) = trace()
    assert reason in rejection.reason
    assert rejection.reason
    assert (rejection.path, rejection.address, rejection.count) == (shown, "192.0.2.1", 1)
    assert rejection.method == more.get("method", "POST")
    assert TOKEN[:12] not in repr(rejection)


def test_a_wrong_signature_says_what_is_wrong(made: Made, store: SqliteStore) -> None:
    app = made(secrets=(KLING,))
    old = now_ms() // 1000 - 4_000
    headers = {"webhook-id": "m", "webhook-timestamp": str(old)}
    signed = {**headers, "webhook-signature": sign(KLING, "m", old, body())}
    client = app.test_client()
    assert send(client, "/callbacks/kling", headers=signed) == 401
    assert send(client, "/callbacks/kling") == 401
    app.extensions["rejections"].flush()
    reasons = [rejection.reason for rejection in store.activity.rejections()]
    assert [reason.partition(":")[0] for reason in reasons] == [
        "not signed, and the URL has no token",
        "the signature is too old",
    ]


def test_accepted_callbacks_and_other_requests_leave_no_rejection(
    client: FlaskClient, trace: Callable[[], list[Rejection]], tmp_path: Path
) -> None:
    allowed = {"Authorization": f"Bearer {API}"}
    assert send(client, RIGHT) == 200
    assert send(client, "/healthz", method="GET") == 200
    assert send(client, "/api/tasks/nobody", method="GET") == 401
    assert send(client, "/api/tasks/nobody", method="GET", headers=allowed) == 404
    assert send(client, "/api/nothing", method="GET", headers=allowed) == 404
    assert trace() == []
    (tmp_path / "receiver.db-lock").unlink()
    (tmp_path / "receiver.db-lock").mkdir()
    assert send(client, RIGHT) == 503  # a fault of ours, not a refusal
    (tmp_path / "receiver.db-lock").rmdir()
    assert trace() == []


@pytest.mark.parametrize("sent_by", ["wrong token", "unknown path", "wrong signature", "API"])
def test_after_many_refusals_an_address_is_limited_but_never_a_correct_token(
    made: Made, store: SqliteStore, sent_by: str
) -> None:
    store.check_schema()
    client = made(secrets=(KLING,)).test_client()
    path, usual = {
        "wrong token": (WRONG, 404),
        "unknown path": ("/nowhere", 404),
        "wrong signature": ("/callbacks/kling", 401),
        "API": ("/api/tasks", 401),
    }[sent_by]
    statuses = [send(client, path) for _ in range(MAX_REJECTED_AT_ONCE + 5)]
    assert statuses[:MAX_REJECTED_AT_ONCE] == [usual] * MAX_REJECTED_AT_ONCE
    assert statuses[-1] == 429
    bodies = []
    for refused in (WRONG, "/nowhere", "/callbacks/nobody/t/x"):
        answer = client.post(refused, environ_base={"REMOTE_ADDR": "192.0.2.1"})
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        bodies.append(answer.get_data())
    assert len(set(bodies)) == 1  # still indistinguishable
    for _ in range(MAX_REJECTED_AT_ONCE):
        assert send(client, RIGHT) == 200
    allowed = {"Authorization": f"Bearer {API}"}
    assert send(client, "/api/tasks", method="GET", headers=allowed) == 200
    assert send(client, "/api/nothing", method="GET", headers=allowed) == 404
    at = now_ms() // 1000
    signed = {"webhook-id": "m", "webhook-timestamp": str(at)}
    signed["webhook-signature"] = sign(KLING, "m", at, body())
    assert send(client, "/callbacks/kling", headers=signed) == 200
    assert send(client, WRONG, sender="192.0.2.2") == 404  # somebody else


@pytest.mark.parametrize("sent_by", ["wrong token", "wrong signature", "API", "metrics", "probe"])
def test_wrong_tokens_count_for_all_processes_and_cause_no_write(
    made: Made, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, sent_by: str
) -> None:
    monkeypatch.setattr(threading.Timer, "start", lambda _: None)  # no merge of the counts is due
    path, usual, method = {
        "wrong token": (WRONG, 404, "POST"),
        "wrong signature": ("/callbacks/kling", 401, "POST"),
        "API": ("/api/tasks", 401, "GET"),
        "metrics": ("/metrics", 401, "GET"),
        "probe": (WRONG, 404, "GET"),
    }[sent_by]
    first, second = made(secrets=(KLING,)), made(secrets=(KLING,))
    client = first.test_client()
    with monkeypatch.context() as unwritable:
        unwritable.setattr(SqliteDatabase, "write", None)
        assert {send(client, path, method=method) for _ in range(MAX_REJECTED_AT_ONCE)} == {usual}
    merge(first)
    assert Transfer(store.database).count("refused_attempts") == 1
    other = second.test_client()
    assert send(other, path, method=method) == 429
    assert send(other, path, method=method, sender="192.0.2.2") == usual  # somebody else
    assert send(other, RIGHT) == 200
    allowed = {"Authorization": f"Bearer {API}"}
    assert send(other, "/api/tasks", method="GET", headers=allowed) == 200


def test_refused_bodies_are_not_limited(client: FlaskClient) -> None:
    assert {send(client, RIGHT, data=b"{") for _ in range(MAX_REJECTED_AT_ONCE + 5)} == {400}
    assert {send(client, RIGHT, method="PUT") for _ in range(MAX_REJECTED_AT_ONCE + 5)} == {405}
    assert {send(client, RIGHT, method="GET") for _ in range(MAX_REJECTED_AT_ONCE + 5)} == {200}


@pytest.mark.parametrize(("proxies", "address"), [(0, "192.0.2.1"), (1, "203.0.113.7")])
def test_the_address_is_taken_from_a_trusted_proxy_only(
    made: Made, store: SqliteStore, proxies: int, address: str
) -> None:
    app = made(proxies=proxies)
    *_, status = (
        send(app.test_client(), WRONG, headers={"X-Forwarded-For": f"198.51.100.{n}, 203.0.113.7"})
        for n in range(MAX_REJECTED_AT_ONCE + 5)
    )
    assert status == 429  # a client that claims other addresses is not another client
    app.extensions["rejections"].flush()
    assert {rejection.address for rejection in store.activity.rejections()} == {address}


@pytest.mark.parametrize("method", ["OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
@pytest.mark.parametrize("path", [RIGHT, WRONG, "/callbacks/nobody/t/x", "/callbacks/kling"])
def test_other_methods_are_refused_whoever_sends_them(
    client: FlaskClient, method: str, path: str
) -> None:
    answer = client.open(path, method=method)
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}
    assert answer.get_data() == client.open(RIGHT, method=method).get_data()


PROBED = ("right", "wrong token", "unknown provider", "without callbacks", "no secret", "unsigned")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("case", PROBED)
def test_a_self_check_is_answered_and_counted_like_a_callback_and_records_nothing(
    made: Made, store: SqliteStore, case: str, method: str
) -> None:
    app = made(secrets=(KLING,) if case == "unsigned" else ())
    path = {
        "right": RIGHT,
        "wrong token": WRONG,
        "unknown provider": "/callbacks/nobody/t/x",
        "without callbacks": "/callbacks/modellix/t/x",
        "no secret": "/callbacks/kling",
        "unsigned": "/callbacks/kling",
    }[case]
    client = app.test_client()
    found = client.open(path, method=method)
    if case == "right":
        assert (found.status_code, found.get_data()) == (200, b"")
        assert found.content_length == 0
        expected = 0
    else:
        posted = client.post(path)
        assert found.status_code == posted.status_code
        assert method == "HEAD" or found.get_data() == posted.get_data()
        expected = 2
    app.extensions["rejections"].flush()
    reasons = [(one.reason, one.path) for one in store.activity.rejections()]
    assert len(reasons) == expected
    assert len(set(reasons)) == min(expected, 1)
    assert store.lists.callbacks() == []
    assert store.lists.tasks() == []


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_self_checks_use_up_the_refusals_of_an_address(client: FlaskClient, method: str) -> None:
    probes = [send(client, WRONG, method=method) for _ in range(MAX_REJECTED_AT_ONCE + 1)]
    assert probes == [404] * MAX_REJECTED_AT_ONCE + [429]
    assert send(client, WRONG) == 429
    assert send(client, RIGHT, method=method) == 200


def test_a_self_check_without_a_token_has_to_be_signed(made: Made) -> None:
    client = made(secrets=(KLING,)).test_client()
    at = now_ms() // 1000
    headers = {"webhook-id": "m", "webhook-timestamp": str(at)}
    for method in ("GET", "HEAD"):
        right = {**headers, "webhook-signature": sign(KLING, "m", at, b"")}
        wrong = {**headers, "webhook-signature": sign(KLING, "m", at, b"x")}
        sent: dict[str, Any] = {"method": method, "data": b""}
        assert send(client, "/callbacks/kling", headers=right, **sent) == 200
        assert send(client, "/callbacks/kling", headers=wrong, **sent) == 401

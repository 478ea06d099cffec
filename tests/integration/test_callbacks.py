"""`POST /callbacks/…`: every response of the contract, on a real record."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http import HTTPStatus
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from gunicorn.http.errors import ParseException

from receiver import providers
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.observability import logs
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.stores.sql.activity import ActivityLog
from receiver.stores.sql.inbox import Inbox
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status
from receiver.text.limits import MAX_BODY
from receiver.web import health
from tests.support.applications import MakeApp
from tests.support.samples import SECRET, body, callback, payload

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
def test_the_response_says_what_became_of_the_callback(
    client: FlaskClient, raws: list[bytes], outcome: str
) -> None:
    answers = [post(client, url(), raw) for raw in raws]
    assert answers[-1] == (200, {"outcome": outcome})


def test_the_response_is_exact_to_the_byte(client: FlaskClient) -> None:
    answer = client.post(url(), data=body(), content_type=JSON)
    assert answer.data == b'{"outcome":"recorded"}\n'
    assert answer.headers["Content-Type"] == "application/json"


def test_a_real_callback_with_its_headers_is_accepted(
    client: FlaskClient, store: SqliteStore
) -> None:
    headers = json.loads(payload("kling/callback-video-succeed.headers.json"))
    raw = payload("kling/callback-video-succeed.json")
    assert len(raw) == int(headers["Content-Length"])
    assert client.post(url(), data=raw, headers=headers).status_code == 200
    assert store.queries.task("task-1").provider_task_id == "828338674605220001"
    (stored,) = store.lists.callbacks()
    assert stored.callback.body == raw
    assert stored.callback.headers["User-Agent"] == headers["User-Agent"]


def test_fifty_times_eight_concurrent_copies_are_one_transition_each(
    app: Flask, store: SqliteStore
) -> None:
    def send(_: int) -> tuple[int, dict[str, Any]]:
        return post(app.test_client(), url(), body("succeed"))

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, range(50)))
    assert {status for status, _ in answers} == {200}
    outcomes = [document["outcome"] for _, document in answers]
    assert sorted(outcomes) == ["duplicate"] * 49 + ["recorded"]
    history = store.queries.history("task-1")
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
    assert store.lists.tasks() == []


def test_a_wrong_token_is_refused_before_the_body_is_read(client: FlaskClient) -> None:
    answer = client.post(url()[:-1], data=b"not json", content_type="text/plain")
    assert answer.status_code == 404


def test_a_body_that_is_not_json_is_400_and_stored(client: FlaskClient, store: SqliteStore) -> None:
    status, problem = post(client, url(), b'{"task_id": "1"')
    assert status == 400
    assert "not JSON" in problem["detail"]
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    assert stored.callback.body == b'{"task_id": "1"'


def test_an_unknown_status_is_422_and_stored(client: FlaskClient, store: SqliteStore) -> None:
    status, problem = post(client, url(), body("completed"))
    assert status == 422
    assert "task_status" in problem["detail"]
    (stored,) = store.lists.callbacks(outcome=Outcome.QUARANTINED)
    assert stored.callback.body == body("completed")
    assert store.queries.task("task-1").status is Status.CREATED


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_long_is_413(
    client: FlaskClient, store: SqliteStore, chunked: bool
) -> None:
    raw = body(padding="")
    raw = body(padding="x" * (MAX_BODY + 1 - len(raw)))
    assert len(raw) == MAX_BODY + 1
    if chunked:  # no Content-Length: gunicorn reports the end of the stream
        environ = {"wsgi.input_terminated": True}
        stream = BytesIO(raw)
        answer = client.post(url(), input_stream=stream, content_type=JSON, environ_base=environ)
    else:
        answer = client.post(url(), data=raw, content_type=JSON)
    assert answer.status_code == 413
    assert store.lists.callbacks() == []


@pytest.mark.parametrize("method", ["put", "delete", "patch", "options"])
def test_another_method_is_405(client: FlaskClient, method: str) -> None:
    answer = getattr(client, method)(url())
    assert answer.status_code == 405
    assert set(answer.headers["Allow"].split(", ")) == {"GET", "HEAD", "POST"}


def test_a_callback_that_could_not_be_stored_is_503_until_the_store_recovers(
    client: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    lock = tmp_path / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()  # nothing can be written without the lock
    answer = client.post(url(), data=body(), content_type=JSON)
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert store.lists.callbacks() == []
    lock.rmdir()
    assert post(client, url(), body()) == (200, {"outcome": "recorded"})


def test_errors_are_problem_documents(client: FlaskClient) -> None:
    answer = client.post(url(), data=b"[]", content_type=JSON)
    assert answer.mimetype == "application/problem+json"
    assert answer.get_json() == {
        "title": HTTPStatus(422).phrase,
        "status": 422,
        "detail": "expected a JSON object, got list",
    }


def test_no_token_is_logged(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    logs.configure()
    post(client, url(), body())
    post(client, url("task-2")[:-1], body())
    client.get(url())
    out, err = capfd.readouterr()
    assert "/callbacks/<provider>/<task_id>/<token>" in err
    for task in ("task-1", "task-2"):
        assert mint(SECRET, "kling", task)[:-1] not in out + err


def test_secrets_in_headers_are_not_stored(client: FlaskClient, store: SqliteStore) -> None:
    headers = {"Authorization": "Bearer canary", "Cookie": "canary=1", "X-Kept": "yes"}
    post(client, url(), body(), headers=headers)
    (stored,) = store.lists.callbacks()
    assert "canary" not in repr(stored.callback.headers)
    assert stored.callback.headers["X-Kept"] == "yes"


AUTH = {"Authorization": "Bearer a-token-for-the-tests"}


@pytest.fixture
def open_api(settings: Settings, make_app: MakeApp) -> FlaskClient:
    """Return a client of an application with an API token."""
    return make_app(replace(settings, api_token="a-token-for-the-tests")).test_client()


def test_healthz_and_readyz(open_api: FlaskClient, store: SqliteStore) -> None:
    assert open_api.get("/healthz").get_json() == {"status": "ok"}
    ready = open_api.get("/readyz", headers=AUTH)
    assert ready.status_code == 200
    assert ready.get_json() == {
        "status": "ok",
        "worker_seen": False,
        "deliveries_due": 0,
        "deliveries_dead": 0,
        "backlog_age_seconds": 0,
        "counters": {},
    }
    post(open_api, url(), body())
    store.activity.heartbeat("w", "worker", now_ms())
    ready = open_api.get("/readyz", headers=AUTH)
    assert ready.get_json()["worker_seen"] is True
    assert ready.get_json()["deliveries_due"] == 1
    assert ready.get_json()["backlog_age_seconds"] > 0
    post(open_api, url(), body("failed"))
    counters = open_api.get("/readyz", headers=AUTH).get_json()["counters"]
    assert counters == {"conflicts": {"kling": 1}}


@pytest.mark.parametrize("scheme", [None, "Basic YTpi", "Digest x", "a-token-for-the-tests"])
def test_without_the_token_readyz_shows_only_the_status(
    open_api: FlaskClient, client: FlaskClient, scheme: str | None
) -> None:
    post(open_api, url(), body())
    headers = {} if scheme is None else {"Authorization": scheme}
    for served in (open_api, client):
        answer = served.get("/readyz", headers=headers)
        assert (answer.status_code, answer.get_json()) == (200, {"status": "ok"})
    # Without a configured token, there is nothing to guess.
    assert client.get("/readyz", headers=AUTH).get_json() == {"status": "ok"}


def test_readyz_refuses_a_wrong_token(open_api: FlaskClient) -> None:
    wrong = {"Authorization": "Bearer a-guess"}
    assert open_api.get("/readyz", headers=wrong).status_code == 401


def test_many_readiness_checks_commit_once(
    client: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "CHECK_INTERVAL", 1e9)
    seen: list[str] = []
    heartbeat = ActivityLog.heartbeat

    def count(self: ActivityLog, name: str, kind: str, now: int) -> None:
        seen.append(kind)
        heartbeat(self, name, kind, now)

    monkeypatch.setattr(ActivityLog, "heartbeat", count)
    assert {client.get("/readyz").status_code for _ in range(50)} == {200}
    assert seen == ["web"]
    assert store.activity.last_seen("web")


@pytest.mark.parametrize("headers", [{}, AUTH])
def test_readyz_notes_that_the_hooks_file_was_rejected(
    open_api: FlaskClient,
    store: SqliteStore,
    monkeypatch: pytest.MonkeyPatch,
    headers: dict[str, str],
) -> None:
    """It stays ready, because the previous hooks are used. The problem itself is not shown."""
    monkeypatch.setattr(health, "CHECK_INTERVAL", 0)
    assert "hooks_file" not in open_api.get("/readyz", headers=headers).text
    store.activity.report_problem("host:1", "worker", "hooks.toml: is not TOML", now_ms())
    answer = open_api.get("/readyz", headers=headers)
    assert answer.status_code == 200
    assert answer.get_json()["status"] == "ok"
    assert answer.get_json()["hooks_file"] == health.HOOKS_REJECTED
    store.activity.report_problem("host:1", "worker", None, now_ms())
    assert "hooks_file" not in open_api.get("/readyz", headers=headers).text


def test_not_ready_when_it_cannot_store(client: FlaskClient, tmp_path: Path) -> None:
    lock = tmp_path / "receiver.db-lock"
    lock.unlink()
    lock.mkdir()
    answer = client.get("/readyz")
    assert (answer.status_code, answer.mimetype) == (503, "application/problem+json")
    assert answer.get_json()["check"] == "record"
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get("/healthz").status_code == 200


# -- signatures


KLING = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="


@pytest.fixture
def signing_app(app: Flask, tmp_path: Path, make_app: MakeApp) -> Flask:
    """The application with Kling's webhook secret."""
    assert app.testing is False
    settings = Settings(
        database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
        callback_secrets=(SECRET,),
        webhook_secrets={"kling": (KLING,)},
    )
    return make_app(settings)


def signature(raw: bytes, secret: str = KLING, at: int | None = None) -> dict[str, str]:
    sent = now_ms() // 1000 if at is None else at
    return {
        "webhook-id": "m-1",
        "webhook-timestamp": str(sent),
        "webhook-signature": sign(secret, "m-1", sent, raw),
    }


def test_a_signed_callback_needs_no_token(signing_app: Flask, store: SqliteStore) -> None:
    raw = body(task_info={"external_task_id": "ORDER-7"})
    found = post(signing_app.test_client(), "/callbacks/kling", raw, headers=signature(raw))
    assert found == (200, {"outcome": "recorded"})
    (task,) = store.lists.tasks()
    assert (task.reference, task.trust) == ("ORDER-7", "signed")


def test_a_signed_callback_with_a_token_is_trusted_by_its_signature(
    signing_app: Flask, store: SqliteStore
) -> None:
    raw = payload("kling/signature-vector.json").replace(b"succeeded", b"processing")
    assert post(signing_app.test_client(), url(), raw, headers=signature(raw))[0] == 200
    assert store.queries.task("task-1").trust == "signed"


def test_an_unsigned_callback_with_a_token_is_still_accepted(
    signing_app: Flask, store: SqliteStore
) -> None:
    """When all secrets are deleted at Kling, callbacks of running tasks also become unsigned."""
    assert post(signing_app.test_client(), url(), body())[0] == 200
    assert store.queries.task("task-1").trust == "token"


@pytest.mark.parametrize("where", [url(), "/callbacks/kling"])
@pytest.mark.parametrize(
    "change",
    [
        {"webhook-signature": "v1,AAAA"},
        {"webhook-signature": "nonsense"},
        {"webhook-timestamp": "0"},
        {"webhook-timestamp": "soon"},
        {"webhook-id": ""},
        {"webhook-id": "\u00e9\u00ff"},
    ],
)
def test_a_wrong_signature_is_401_and_nothing_is_stored(
    signing_app: Flask, store: SqliteStore, where: str, change: dict[str, str]
) -> None:
    headers = {**signature(body()), **change}
    assert post(signing_app.test_client(), where, body(), headers=headers)[0] == 401
    assert store.lists.callbacks() == []


def test_the_signature_is_checked_before_the_body_is_parsed(signing_app: Flask) -> None:
    raw = b"not json at all"
    forged = {**signature(raw), "webhook-signature": "v1,AAAA"}
    assert post(signing_app.test_client(), "/callbacks/kling", raw, headers=forged)[0] == 401
    assert (
        post(signing_app.test_client(), "/callbacks/kling", raw, headers=signature(raw))[0] == 400
    )


def test_a_stale_signature_is_refused(signing_app: Flask) -> None:
    old = signature(body(), at=now_ms() // 1000 - 301)
    assert post(signing_app.test_client(), url(), body(), headers=old)[0] == 401


def test_unsigned_without_a_token_is_401(signing_app: Flask) -> None:
    assert post(signing_app.test_client(), "/callbacks/kling", body())[0] == 401


@pytest.mark.parametrize("provider", ["kling", "appypie", "modellix", "nobody"])
def test_without_a_secret_the_url_without_a_token_does_not_exist(
    client: FlaskClient, provider: str
) -> None:
    where = f"/callbacks/{provider}"
    answer = client.post(where, data=body(), content_type=JSON, headers=signature(body()))
    assert answer.status_code == 404
    assert answer.get_data() == nothing_here(client)


def test_a_provider_without_callbacks_has_no_callback_url(client: FlaskClient) -> None:
    assert post(client, url(provider="modellix"), body())[0] == 404
    assert post(client, url(provider="appypie"), body())[0] == 200


@pytest.mark.parametrize(
    ("raw", "names"),
    [
        (b'{"timestamp": 1, "data": {}}', "PiAPI"),
        (b'{"code": 200, "msg": "ok", "data": {"state": "success"}}', "kie.ai"),
        (b'{"task_id": "1", "status": "COMPLETED", "generated": []}', "Freepik"),
    ],
)
def test_similar_protocols_are_told_what_was_expected(
    client: FlaskClient, store: SqliteStore, raw: bytes, names: str
) -> None:
    status, problem = post(client, url(), raw)
    assert status == 422
    assert names in problem["detail"]
    assert "task_status" in problem["detail"]
    assert [stored.callback.body for stored in store.lists.callbacks()] == [raw]


def test_a_repeated_body_is_recorded_once_it_can_be_parsed(
    client: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that repeats a refused callback succeeds after an update that can parse it."""
    raw = body("brand-new")
    assert post(client, url(), raw)[0] == 422
    event = providers.get("kling").parse(callback(body("succeed")))
    monkeypatch.setattr(type(providers.get("kling")), "parse", lambda *_: event)
    assert post(client, url(), raw) == (200, {"outcome": "recorded"})
    (stored,) = store.lists.callbacks()
    assert (stored.outcome, stored.problem, stored.repeats) == ("recorded", None, 1)


# -- cases found in attempts to break the receiver


@pytest.mark.parametrize(
    "raw",
    [
        b'{"task_id": "p", "task_status": "failed", "task_status_msg": "x\xed\xa0\x80y"}',
        '{"task_id": "p", "task_status": "failed", "task_status_msg": "\\ud800"}'.encode("utf-16"),
        b"\xef\xbb\xbf" + body(),
    ],
    ids=["surrogate in utf-8", "surrogate in utf-16", "byte order mark"],
)
def test_text_that_cannot_be_stored_is_replaced_and_its_bytes_are_kept(
    client: FlaskClient, store: SqliteStore, raw: bytes
) -> None:
    assert post(client, url(), raw) == (200, {"outcome": "recorded"})
    assert [stored.callback.body for stored in store.lists.callbacks()] == [raw]
    reason = store.queries.task("task-1").reason
    assert reason in (None, "\ufffd", "x\ufffd\ufffd\ufffdy")


def test_absurd_amounts_cause_no_500(client: FlaskClient, store: SqliteStore) -> None:
    charge = {"charge_type": "unit", "amount": "9e999999"}
    raw = json.dumps({"id": "p", "status": "failed", "billing": [charge, charge]}).encode()
    assert post(client, url(), raw) == (200, {"outcome": "recorded"})
    assert store.queries.task("task-1").cost is None
    assert store.lists.callbacks()[0].problem == "billing.amount: expected decimal strings"


def test_thousands_of_outputs_are_limited(client: FlaskClient, store: SqliteStore) -> None:
    images = [{"index": chr(0x4E00 + n), "url": "https://a"} for n in range(5_000)]
    status, _ = post(client, url(), body(task_result={"images": images}))
    assert status == 200
    assert "task_result.images: more than 256" in str(store.lists.callbacks()[0].problem)


@pytest.mark.parametrize("field", ["created_at", "updated_at"])
def test_a_date_beyond_belief_is_not_used(
    client: FlaskClient, store: SqliteStore, field: str
) -> None:
    raw = body("succeed", "p-1", **{field: 253_402_300_799_999})
    assert post(client, url(), raw) == (200, {"outcome": "recorded"})
    (stored,) = store.lists.callbacks()
    assert stored.problem == f"{field}: Not an instant."
    expected = stored.callback.received_at if field == "updated_at" else 1_765_519_850_000
    assert store.queries.history("task-1").transitions[-1].occurred_at == expected


def test_a_fault_of_ours_is_a_500_that_tells_no_token(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def breaks(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    logs.configure()
    monkeypatch.setattr(Inbox, "record", breaks)
    answer = client.post(url(), data=body(), content_type=JSON)
    assert answer.status_code == 500
    assert answer.mimetype == "application/problem+json"
    out, err = capfd.readouterr()
    assert "ZeroDivisionError" in err
    assert mint(SECRET, "kling", "task-1") not in out + err + answer.get_data(as_text=True)


def test_a_strangers_words_stay_out_of_the_log(
    client: FlaskClient, capfd: pytest.CaptureFixture[str]
) -> None:
    logs.configure()
    client.post("/callbacks/kling/%c2%9b31mHELLO/token", data=b"{}", content_type=JSON)
    assert "HELLO" not in capfd.readouterr().err


def test_unsigned_without_a_token_is_refused_before_its_body_is_read(signing_app: Flask) -> None:
    class Endless(BytesIO):
        def read(self, *_: object) -> bytes:
            raise AssertionError("the body was waited for")

    answer = signing_app.test_client().post(
        "/callbacks/kling", input_stream=Endless(), content_type=JSON
    )
    assert answer.status_code == 401


@pytest.mark.parametrize("replace", [False, True])
def test_a_database_that_is_removed_or_replaced_is_not_written_behind_our_back(
    client: FlaskClient, tmp_path: Path, replace: bool
) -> None:
    assert post(client, url(), body()) == (200, {"outcome": "recorded"})
    assert client.get("/readyz").status_code == 200
    for suffix in ("", "-wal", "-shm"):
        (tmp_path / f"receiver.db{suffix}").unlink(missing_ok=True)
    if not replace:
        assert client.post(url(), data=body(), content_type=JSON).status_code == 503
        assert client.get("/readyz").status_code == 503
        assert not (tmp_path / "receiver.db").exists()
        return
    SqliteStore(tmp_path / "receiver.db").migrate()
    assert post(client, url(), body()) == (200, {"outcome": "recorded"})
    with closing(SqliteStore(tmp_path / "receiver.db")) as other:
        assert [task.id for task in other.lists.tasks()] == ["task-1"]  # in the current file


class _Stream(BytesIO):
    """The stream of a request body, which may end early."""

    def __init__(self, raw: bytes, error: Exception | None = None) -> None:
        super().__init__(raw)
        self.error = error
        self.is_read = False

    def read(self, size: int | None = -1) -> bytes:
        self.is_read = True
        if self.error:
            raise self.error
        return super().read(size)


def sent(client: FlaskClient, stream: _Stream, length: int) -> int:
    said = {"CONTENT_LENGTH": str(length)}
    answer = client.post(url(), input_stream=stream, content_type=JSON, environ_overrides=said)
    return answer.status_code


@pytest.mark.parametrize("error", [OSError(), ValueError(), ParseException()])
def test_a_body_that_breaks_off_is_refused(client: FlaskClient, error: Exception) -> None:
    assert sent(client, _Stream(b"", error), 100) == 400


def test_a_body_shorter_than_it_says_is_refused_and_kept_nowhere(
    client: FlaskClient, store: SqliteStore
) -> None:
    assert sent(client, _Stream(body()), len(body()) + 1) == 400
    assert store.lists.callbacks() == []


def test_of_what_follows_a_body_nothing_is_read(client: FlaskClient) -> None:
    stream = _Stream(body() + b"the next request")
    assert sent(client, stream, len(body())) == 200
    assert stream.tell() == len(body())


def test_what_says_it_is_too_long_is_refused_unread(client: FlaskClient) -> None:
    stream = _Stream(body())
    assert sent(client, stream, MAX_BODY + 1) == 413
    assert not stream.is_read

"""The API: authentication, pagination without gaps or repetitions, and repair."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from receiver.config.settings import Settings
from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task, new_task_id
from receiver.text.display import rfc3339
from tests.support.applications import MakeApp
from tests.support.samples import SECRET, body, callback, subscription

TOKEN = "a-token-for-the-tests"
NOW = 1_765_519_851_000
Made = Callable[[str | None], Flask]


@pytest.fixture
def made(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> Made:
    store.check_schema()
    hooks = tmp_path / "hooks.toml"
    hooks.write_text("")
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    return lambda token: make_app(Settings(url, (SECRET,), hooks_file=hooks, api_token=token))


@pytest.fixture
def app(made: Made) -> Flask:
    return made(TOKEN)


@pytest.fixture
def api(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def put(store: SqliteStore, reference: str, **more: Any) -> Task:
    task = Task(new_task_id(), "kling", Status.CREATED, NOW, NOW, reference=reference, **more)
    store.inbox.create_task(task)
    return task


def delivered(store: SqliteStore) -> int:
    """Return a delivery that has ended."""
    Ingest(store, [subscription("mail")]).accept(callback(body("succeed")))
    (delivery,) = store.outbox.claim("w", NOW + 10_000, NOW + 20_000, 1)
    store.outbox.settle(delivery, Attempt(1, NOW, NOW, "delivered", "ok"), State.DELIVERED, None)
    return delivery.id


AUTH = [
    (None, None, 401),
    (None, "Bearer ", 401),
    (None, f"Bearer {TOKEN}", 401),
    (TOKEN, None, 401),
    (TOKEN, "", 401),
    (TOKEN, "Bearer", 401),
    (TOKEN, f"Basic {TOKEN}", 401),
    (TOKEN, TOKEN, 401),
    (TOKEN, f"Bearer {TOKEN}x", 401),
    (TOKEN, f"Bearer {TOKEN[:-1]}", 401),
    (TOKEN, "Bearer \xff", 401),
    (TOKEN, f"Bearer {TOKEN}", 200),
    (TOKEN, f"bearer {TOKEN}", 200),
]


@pytest.mark.parametrize(("token", "said", "status"), AUTH)
def test_the_api_requires_the_token(
    made: Made, token: str | None, said: str | None, status: int
) -> None:
    client = made(token).test_client()
    headers = {} if said is None else {"Authorization": said}
    assert client.get("/api/tasks", headers=headers).status_code == status


def test_every_route_of_the_api_requires_the_token(app: Flask) -> None:
    client = app.test_client()
    routes = [rule for rule in app.url_map.iter_rules() if re.match("/(api|metrics)", rule.rule)]
    assert len(routes) > 5
    for rule in routes:
        path = re.sub("<[^>]*>", "1", rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS", "HEAD"}):
            assert client.open(path, method=method).status_code == 401, (method, rule.rule)


@pytest.mark.parametrize("token", [None, TOKEN])
def test_every_path_without_the_right_token_gets_the_same_response(
    made: Made, token: str | None
) -> None:
    answers = set()
    client = made(token).test_client()
    for given in ("Bearer wrong", "Bearer", ""):
        for path in ("/api/tasks", "/api/nothing", "/api"):
            answer = client.get(path, headers={"Authorization": given})
            answers.add((answer.status_code, answer.data, answer.headers["WWW-Authenticate"]))
            assert answer.mimetype == "application/problem+json"
    assert len(answers) == 1


def test_other_routes_require_no_token(app: Flask) -> None:
    assert app.test_client().get("/healthz").status_code == 200


def test_a_task_is_shown_with_its_history(api: FlaskClient, store: SqliteStore) -> None:
    delivered(store)
    found = api.get("/api/tasks/task-1").get_json()
    assert [move["status"] for move in found["transitions"]] == ["succeeded"]
    assert [stored["outcome"] for stored in found["callbacks"]] == ["recorded"]
    assert found["deliveries"][0]["answers"][0]["outcome"] == "delivered"
    assert api.get("/api/tasks/nobody").status_code == 404


@pytest.mark.parametrize(
    ("query", "references"),
    [
        ("", ["c", "b", "a"]),
        ("reference=b", ["b"]),
        ("account=shop2", ["c"]),
        ("status=created", ["c", "b", "a"]),
        ("status=succeed", []),
        ("provider=modellix", []),
        ("provider=kling&status=created&account=default", ["b", "a"]),
    ],
)
def test_filters_narrow_the_list(
    api: FlaskClient, store: SqliteStore, query: str, references: list[str]
) -> None:
    for reference, account in (("a", "default"), ("b", "default"), ("c", "shop2")):
        put(store, reference, account=account)
    found = api.get(f"/api/tasks?{query}").get_json()
    assert [task["reference"] for task in found["tasks"]] == references
    assert found["next"] is None


def test_a_providers_spelling_of_a_status_finds_the_same_tasks(
    api: FlaskClient, store: SqliteStore
) -> None:
    delivered(store)
    for word in ("succeeded", "succeed"):
        assert len(api.get(f"/api/tasks?status={word}").get_json()["tasks"]) == 1


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=many", "limit"),
        ("cursor=", "cursor"),
        ("cursor=xyz", "cursor"),
        ("cursor=dGFza3M6LTE", "cursor"),  # tasks:-1
        ("cursor=dGFza3M6OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk", "cursor"),
        ("cursor=ZGVsaXZlcmllczo1", "cursor"),  # deliveries:5
        ("status=done", "status"),
        ("provider=nobody", "provider"),
        ("colour=red", "colour"),
        ("status=created&status=failed", "status"),
    ],
)
def test_an_invalid_value_is_named(api: FlaskClient, query: str, field: str) -> None:
    answer = api.get(f"/api/tasks?{query}")
    assert answer.status_code == 422
    assert answer.mimetype == "application/problem+json"
    assert [error["field"] for error in answer.get_json()["errors"]] == [field]


def test_all_invalid_values_are_named_together(api: FlaskClient) -> None:
    answer = api.get("/api/tasks?limit=0&status=done&cursor=x&provider=p&colour=red")
    named = [error["field"] for error in answer.get_json()["errors"]]
    assert named == ["colour", "cursor", "limit", "provider", "status"]


def pages(api: FlaskClient, path: str, key: str, name: str) -> list[str]:
    """Return everything on all pages, from the newest to the oldest."""
    found: list[str] = []
    cursor: str | None = ""
    while cursor is not None:
        page = api.get(f"{path}?limit=7{cursor and f'&cursor={cursor}'}").get_json()
        found += [row[name] for row in page[key]]
        cursor = page["next"]
    return found


def test_pages_skip_and_repeat_nothing_while_tasks_are_added(
    api: FlaskClient, store: SqliteStore
) -> None:
    before = [put(store, f"old-{number}").id for number in range(60)]
    stop = threading.Event()

    def add() -> None:
        while not stop.is_set():
            put(store, "new")

    adding = threading.Thread(target=add)
    adding.start()
    try:
        for _ in range(5):
            found = pages(api, "/api/tasks", "tasks", "id")
            assert len(found) == len(set(found))
            assert [task for task in found if task in set(before)] == before[::-1]
    finally:
        stop.set()
        adding.join()


def test_deliveries_are_paginated_too(api: FlaskClient, store: SqliteStore) -> None:
    ingest = Ingest(store, [subscription("mail"), subscription("pictures")])
    for number in range(10):
        ingest.accept(callback(body("succeed"), task_id=f"task-{number}"))
    found = pages(api, "/api/deliveries", "deliveries", "id")
    assert found == sorted(found, reverse=True)
    assert len(found) == 20
    for query in ("task=task-3", "hook=mail&task=task-3", "state=dead"):
        page = api.get(f"/api/deliveries?{query}").get_json()["deliveries"]
        assert len(page) == {"task=task-3": 2, "hook=mail&task=task-3": 1, "state=dead": 0}[query]
    assert api.get("/api/deliveries?state=odd").status_code == 422


def test_an_exactly_full_last_page_has_no_successor(api: FlaskClient, store: SqliteStore) -> None:
    for number in range(7):
        put(store, f"{number}")
    assert api.get("/api/tasks?limit=7").get_json()["next"] is None


def test_an_ended_delivery_is_redelivered_once(api: FlaskClient, store: SqliteStore) -> None:
    path = f"/api/deliveries/{delivered(store)}/redeliver"
    answer = api.post(path)
    assert (answer.status_code, answer.get_json()["state"]) == (202, "pending")
    assert api.post(path).status_code == 409


def test_a_reference_in_place_of_an_id_is_answered_with_the_search_for_it(
    api: FlaskClient, store: SqliteStore
) -> None:
    task = put(store, "ORDER 1 é")
    search = "GET /api/tasks?reference=ORDER+1+%C3%A9"
    for query in ("", "?wait=1"):
        answer = api.get(f"/api/tasks/ORDER 1 é{query}")
        assert answer.status_code == 404
        reason = "no task has the id ORDER 1 é"
        assert answer.get_json()["detail"] == f"{reason}; if it is a reference, use {search}"
    (found,) = api.get(search.removeprefix("GET ")).get_json()["tasks"]
    assert found["id"] == task.id


@pytest.mark.parametrize("number", ["99", str(2**63 - 1), str(2**63), "9" * 400, "x", "-1"])
def test_unknown_objects_are_not_found(api: FlaskClient, number: str) -> None:
    assert api.post(f"/api/deliveries/{number}/redeliver").status_code == 404
    assert api.post(f"/api/callbacks/{number}/replay").status_code == 404


def test_a_callback_is_replayed(api: FlaskClient, store: SqliteStore) -> None:
    store.inbox.quarantine(callback(body("succeed")), "not understood then")
    store.inbox.quarantine(callback(b"{}"), "not understood")
    newest, oldest = store.lists.callbacks()
    answer = api.post(f"/api/callbacks/{oldest.id}/replay")
    assert (answer.status_code, answer.get_json()) == (200, {"outcome": "recorded"})
    assert api.post(f"/api/callbacks/{newest.id}/replay").status_code == 409


def test_a_mismatch_is_accepted(api: FlaskClient, store: SqliteStore) -> None:
    Ingest(store).accept(callback(body("processing", "first")))
    Ingest(store).accept(callback(body("succeed", "second"), received_at=NOW + 1))
    history = api.get("/api/tasks/task-1").get_json()
    assert (history["mismatched_at"], history["callback_task_id"]) == (rfc3339(NOW + 1), None)
    assert [one["outcome"] for one in history["callbacks"]] == ["recorded", "mismatch"]
    path = f"/api/callbacks/{history['callbacks'][1]['id']}/replay"
    assert api.post(path).get_json() == {"outcome": "mismatch"}
    answer = api.post(f"{path}?accept=true")
    assert (answer.status_code, answer.get_json()) == (200, {"outcome": "recorded"})
    assert api.get("/api/tasks/task-1").get_json()["provider_task_id"] == "second"
    refusal = api.post(f"{path}?accept=true")
    assert refusal.status_code == 409
    assert "is not a mismatch" in refusal.get_json()["detail"]
    assert api.post(f"{path}?accept=maybe").status_code == 422


def test_an_id_that_only_callbacks_contain_is_shown(api: FlaskClient, store: SqliteStore) -> None:
    said = replace(callback(body("processing", "by-kling")), provider="appypie")
    Ingest(store).accept(said)
    history = api.get("/api/tasks/task-1").get_json()
    assert history["callback_task_id"] == history["provider_task_id"] == "by-kling"


def test_a_read_only_installation_creates_no_task(api: FlaskClient) -> None:
    assert api.post("/api/tasks", json={}).status_code == 405


# -- redelivery by filter


def dead(store: SqliteStore, *tasks: str) -> None:
    for task in tasks:
        Ingest(store, [subscription("mail")]).accept(callback(body("succeed"), task))
    for delivery in store.outbox.claim("w", NOW + 10_000, NOW + 20_000, 99):
        store.outbox.settle(delivery, Attempt(1, NOW, NOW, "failed", "no"), State.DEAD, None)


def test_matching_deliveries_are_redelivered_after_a_dry_run(
    api: FlaskClient, store: SqliteStore
) -> None:
    dead(store, "a", "b")
    wanted = {"hook": "mail", "since": "2025-01-01T00:00:00Z", "dry_run": True}
    answer = api.post("/api/deliveries/redeliver", json=wanted)
    expected = {"redelivered": 2, "created": 0, "done": True, "dry_run": True}
    assert (answer.status_code, answer.json) == (200, expected)
    assert store.lists.deliveries(state=State.PENDING) == []
    answer = api.post("/api/deliveries/redeliver", json={**wanted, "dry_run": False})
    assert (answer.status_code, answer.json) == (202, {**expected, "dry_run": False})
    assert len(store.lists.deliveries(state=State.PENDING)) == 2


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        (b"{", "body"),  # an invalid body must not mean "all"
        (b"", "body"),
        (b"[]", "body"),
        (b'{"hok": "mail"}', "hok"),
        (b'{"state": "pending"}', "state"),
        (b'{"since": "yesterday"}', "since"),
        (b'{"dry_run": "no"}', "dry_run"),
        (b'{"hook": 7}', "hook"),
        (b'{"hook":' * 5_000, "body"),
        (b"[" * 100_000, "body"),
        (b'{"since": ' + b"1" * 5_000 + b"}", "body"),
    ],
)
def test_an_invalid_filter_redelivers_nothing(
    api: FlaskClient, store: SqliteStore, sent: bytes, field: str
) -> None:
    dead(store, "a")
    answer = api.post("/api/deliveries/redeliver", data=sent, content_type="application/json")
    assert answer.status_code == 422
    assert answer.json is not None
    assert [error["field"] for error in answer.json["errors"]] == [field]
    assert store.lists.deliveries(state=State.PENDING) == []

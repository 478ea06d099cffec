"""Results over HTTP: outputs with their files, metadata, and the evidence for a status."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from flask.testing import FlaskClient

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.console import output
from receiver.console import records as tables
from receiver.deliveries import GIVEN_UP, Attempt, File, State, Subscription
from receiver.delivery.attempt import DeliveryWorker
from receiver.events import Callback, Event, Source
from receiver.ingest import Ingest
from receiver.maintenance.prune import prune
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import NEVER_REACHED, IdSource, Status, Task, Trust
from receiver.text.display import hiding, rfc3339
from tests.support.applications import MakeApp
from tests.support.attempts import current_notice
from tests.support.samples import SECRET, body, callback, subscription

TOKEN = "a-token-for-the-tests"
NOW = 1_765_519_851_000
BODY = b"<script>alert(1)</script>"
URL = "https://cdn.example/0.png"


@pytest.fixture
def api(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> FlaskClient:
    store.check_schema()
    hooks = tmp_path / "hooks.toml"
    hooks.write_text("")
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    client = make_app(Settings(url, (SECRET,), hooks_file=hooks, api_token=TOKEN)).test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {TOKEN}"
    return client


def succeed(store: SqliteStore, *files: File, task: str = "task-1") -> None:
    """Record a result, and the files that a hook stored for it."""
    Ingest(store, [subscription("pictures")]).accept(callback(body("succeed"), task))
    (delivery,) = store.outbox.claim("w", NOW + 10_000, NOW + 20_000, 1)
    attempt = Attempt(1, NOW, NOW, "delivered", "ok")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, list(files))


def stored(path: Path, index: str = "0", content_type: str = "image/png") -> File:
    path.write_bytes(BODY)
    return File(index, str(path), "ab" * 32, len(BODY), content_type)


def both(api: FlaskClient, task: str = "task-1") -> list[dict[str, Any]]:
    """Return the task by itself and in the list."""
    one = api.get(f"/api/tasks/{task}").get_json()
    (listed,) = api.get("/api/tasks").get_json()["tasks"]
    return [one, listed]


def test_an_output_names_its_file_and_the_path_of_our_copy(
    api: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    file = stored(tmp_path / "0.png")
    succeed(store, file)
    for shown in both(api):
        (media,) = shown["media"]
        expires_at = media.pop("expires_at")
        assert expires_at.endswith("Z")
        assert media == {
            "kind": "image",
            "index": "0",
            "url": URL,
            "file": file.url,
            "sha256": file.sha256,
            "size": file.size,
            "href": "/api/tasks/task-1/files/0",
        }
        with api.get(media["href"]) as answer:
            assert (answer.status_code, answer.data) == (200, BODY)


def test_an_output_that_was_not_downloaded_has_no_file(
    api: FlaskClient, store: SqliteStore
) -> None:
    succeed(store)
    for shown in both(api):
        (media,) = shown["media"]
        found = {name: media[name] for name in ("url", "file", "sha256", "size", "href")}
        assert found == {"url": URL, "file": None, "sha256": None, "size": None, "href": None}


def test_an_open_task_has_no_outputs(api: FlaskClient, store: SqliteStore) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    assert [shown["media"] for shown in both(api)] == [[], []]


def test_a_file_in_a_bucket_is_named_but_not_served(api: FlaskClient, store: SqliteStore) -> None:
    succeed(store, File("0", "s3://shop/0.png", "ab" * 32, 3, "image/png"))
    for shown in both(api):
        (media,) = shown["media"]
        assert (media["file"], media["href"]) == ("s3://shop/0.png", None)
    answer = api.get("/api/tasks/task-1/files/0")
    assert answer.status_code == 404
    assert "s3://shop/0.png" in answer.get_json()["detail"]


def test_a_file_is_shown_after_its_message_was_pruned(
    api: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    succeed(store, stored(tmp_path / "0.mp4", content_type="video/mp4"))
    list(prune(store, NOW * 2))
    for shown in both(api):
        (media,) = shown["media"]
        assert (media["kind"], media["url"], media["size"]) == ("video", None, len(BODY))
        assert media["href"] == "/api/tasks/task-1/files/0"


@pytest.mark.parametrize("index", ["0", "a/b", "..", "../../etc/passwd", "ä %2F", "replaced"])
def test_the_index_is_compared_and_never_used_as_a_path(
    api: FlaskClient, store: SqliteStore, tmp_path: Path, index: str
) -> None:
    succeed(store, stored(tmp_path / "0.png", index))
    (media,) = (one for one in both(api)[0]["media"] if one["href"])
    assert media["href"] == f"/api/tasks/task-1/files/{quote(index, safe='')}"
    with api.get(media["href"]) as answer:
        assert answer.data == BODY


@pytest.mark.parametrize("content_type", ["text/html", "image/svg+xml", "application/pdf", ""])
def test_a_file_that_could_run_in_a_browser_is_an_attachment(
    api: FlaskClient, store: SqliteStore, tmp_path: Path, content_type: str
) -> None:
    succeed(store, stored(tmp_path / "0.html", content_type=content_type))
    with api.get("/api/tasks/task-1/files/0") as answer:
        assert answer.headers["Content-Type"] == "application/octet-stream"
        assert answer.headers["Content-Disposition"] == "attachment; filename=0.html"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "sandbox" in answer.headers["Content-Security-Policy"]


def test_a_part_of_a_file_is_served_and_a_known_file_is_not_sent_again(
    api: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    succeed(store, stored(tmp_path / "0.png"))
    path = "/api/tasks/task-1/files/0"
    with api.get(path, headers={"Range": "bytes=1-6"}) as answer:
        assert (answer.status_code, answer.data) == (206, b"script")
        assert answer.headers["Content-Range"] == f"bytes 1-6/{len(BODY)}"
    with api.get(path) as answer:
        assert answer.headers["Content-Length"] == str(len(BODY))
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        known = {"If-None-Match": answer.headers["ETag"]}
    with api.get(path, headers=known) as answer:
        assert answer.status_code == 304
    assert api.get(path, headers={"Range": "bytes=99999-"}).status_code == 416


def to_a_link(path: Path) -> None:
    path.rename(path.with_name("secret"))
    path.symlink_to(path.with_name("secret"))


def to_a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def to_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "change",
    [
        to_a_link,
        to_a_pipe,
        to_a_folder,
        Path.unlink,
        lambda path: path.write_bytes(BODY + b"!"),
    ],
)
def test_only_the_file_that_was_stored_is_served(
    api: FlaskClient, store: SqliteStore, tmp_path: Path, change: Callable[[Path], object]
) -> None:
    succeed(store, stored(tmp_path / "0.png"))
    change(tmp_path / "0.png")
    answer = api.get("/api/tasks/task-1/files/0")
    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")


def test_files_of_other_tasks_and_indices_are_not_found(
    api: FlaskClient, store: SqliteStore, tmp_path: Path
) -> None:
    succeed(store, stored(tmp_path / "0.png"))
    store.inbox.create_task(Task("other", "kling", Status.CREATED, NOW, NOW))
    for path in ("other/files/0", "nobody/files/0", "task-1/files/1", "task-1/files/" + "%2e%2e"):
        answer = api.get(f"/api/tasks/{path}")
        assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert api.get("/api/tasks/task-1/files/0", headers={"Authorization": ""}).status_code == 401


# -- metadata

OWN = {"cart": 7, "lines": [{"sku": "ä", "n": 1.5}], "gift": None, "ok": True}


def test_metadata_are_returned_by_the_api_and_in_events(
    api: FlaskClient, store: SqliteStore
) -> None:
    task = Task("task-1", "kling", Status.CREATED, NOW, NOW, reference="r", metadata=OWN)
    store.inbox.create_task(task)
    succeed(store)
    assert [shown["metadata"] for shown in both(api)] == [OWN, OWN]
    (delivery,) = store.lists.deliveries()
    event = current_notice(DeliveryWorker(store, {}), delivery).as_json()
    assert event["task"]["metadata"] == OWN


def test_secrets_in_metadata_are_hidden(
    api: FlaskClient, store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    own = {"callback": f"https://a.example/callbacks/kling/task-1/{'x' * 43}", "s": SECRET}
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, metadata=own))
    for shown in both(api):
        assert SECRET not in str(shown)
    output.hide_secrets(hiding([SECRET]))
    try:
        tables.show_timeline(store.queries.history("task-1"))
    finally:
        output.hide_secrets(str)
    printed = capsys.readouterr().out
    assert "metadata" in printed
    assert "x" * 43 not in printed
    assert SECRET not in printed


# -- actions of our own


def evidence(api: FlaskClient) -> tuple[str | None, list[tuple[str, str | None]]]:
    shown = api.get("/api/tasks/task-1").get_json()
    return shown["trust"], [(move["status"], move["trust"]) for move in shown["transitions"]]


def test_giving_up_is_not_attributed_to_the_provider(
    api: FlaskClient, store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    Ingest(store, [Subscription("mail", frozenset({GIVEN_UP}))]).give_up("task-1", NOW + 1)
    assert evidence(api) == (None, [("created", None), ("given_up", None)])
    assert [shown["given_up_at"] for shown in both(api)] == [rfc3339(NOW + 1)] * 2
    tables.show_timeline(store.queries.history("task-1"))
    assert "verified" not in capsys.readouterr().out
    (delivery,) = store.lists.deliveries()
    assert current_notice(DeliveryWorker(store, {}), delivery).as_json()["trust"] is None


def test_a_result_after_giving_up_is_attributed_to_its_message(
    api: FlaskClient, store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    Ingest(store).give_up("task-1", NOW + 1)
    succeed(store)
    moves = [("created", None), ("given_up", None), ("succeeded", "token")]
    assert evidence(api) == ("token", moves)
    tables.show_timeline(store.queries.history("task-1"))
    assert capsys.readouterr().out.count("verified by the token in the callback URL") == 1


def test_a_create_that_was_never_sent_is_not_attributed_to_the_provider(
    api: FlaskClient, store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, trust=Trust.QUERIED))
    note = Callback("kling", "task-1", b"", now_ms(), source=Source.CREATE, trust=Trust.QUERIED)
    event = Event("kling", "", Status.FAILED, NOW, reason=NEVER_REACHED)
    Ingest(store).record(note, event)
    assert evidence(api) == (None, [("created", None), ("failed", None)])
    assert api.get("/api/tasks/task-1").get_json()["callbacks"] == []
    tables.show_timeline(store.queries.history("task-1"))
    printed = capsys.readouterr().out
    assert "queried" not in printed
    assert "bytes" not in printed


# -- filters


def test_given_up_and_the_providers_task_id_are_filters(
    api: FlaskClient, store: SqliteStore
) -> None:
    for name in ("a", "b"):
        task = Task(
            name, "kling", Status.SUBMITTED, NOW, NOW,
            provider_task_id=f"at-{name}", id_source=IdSource.CREATE,
        )  # fmt: skip
        store.inbox.create_task(task)
    Ingest(store).give_up("a", NOW)

    def found(query: str) -> list[str]:
        return [task["id"] for task in api.get(f"/api/tasks?{query}").get_json()["tasks"]]

    assert found("status=given_up") == ["a"]
    assert found("status=submitted") == ["b", "a"]
    assert found("provider_task_id=at-b") == ["b"]
    assert found("provider_task_id=at-b&status=given_up") == []


def test_a_response_says_that_the_token_is_unset(
    tmp_path: Path, store: SqliteStore, make_app: MakeApp
) -> None:
    store.check_schema()
    (tmp_path / "hooks.toml").write_text("")
    url = f"sqlite:///{tmp_path / 'receiver.db'}"
    client = make_app(Settings(url, (SECRET,), hooks_file=tmp_path / "hooks.toml")).test_client()
    for path in ("/api/tasks", "/api/nothing", "/api", "/metrics"):
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
            assert "API_TOKEN is not set" in answer.get_json()["detail"]


def test_a_response_that_names_a_known_status_is_not_called_a_duplicate(
    store: SqliteStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW))
    succeed(store)
    note = Callback("kling", "task-1", b"{}", now_ms(), source=Source.QUERY, trust=Trust.QUERIED)
    Ingest(store).record(note, Event("kling", "", Status.SUCCEEDED, NOW))
    tables.show_timeline(store.queries.history("task-1"))
    printed = capsys.readouterr().out
    assert "2 bytes, status already recorded" in printed
    assert "duplicate" not in printed

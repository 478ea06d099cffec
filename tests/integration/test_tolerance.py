"""A body with an invalid part, from the request to both stores, the commands and the API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask

from receiver.cli import main
from receiver.config.settings import Settings
from receiver.errors import NotTheProtocol
from receiver.events import Source
from receiver.ingest import Ingest
from receiver.signing.callback_urls import mint
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.tasks import Outcome, Status, Trust
from tests.support.applications import MakeApp
from tests.support.samples import SECRET, callback

API = "the-token-of-the-api"
URL = "https://cdn.example/a.png"
ODD = (
    rb'{"task_id": 828312345678901234, "task_status": "SUCCEED", "task_status_msg": "a'
    b"\n\0\xe9"
    rb'\ud83d", "task_result": {"images": [{"index": "\ude00", "url": "https://cdn.example/a.png",'
    rb' "watermark_url": "\u0000", "duration": "\udfff"}, null], "videos": {}}, "task_info":'
    rb' {"external_task_id": "\u0000"}, "final_unit_deduction": "1\u0000", "updated_at": "\ud83d",'
    rb' "n\ud83d": [NaN, {"a": 1, "a": "\u0000"}]}'
)
NAMED = [
    "updated_at",
    "task_result.images[1]",
    "task_result.videos",
    "task_info.external_task_id",
]


@pytest.fixture(params=["sqlite", "postgres"])
def database(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    migrated: Callable[[Path], Store],
    fresh: Callable[[], str],
) -> Iterator[tuple[str, Store]]:
    """The URL of an empty record, and the record."""
    if request.param == "sqlite":
        path = tmp_path / "receiver.db"
        url, store = f"sqlite:///{path}", migrated(path)
    else:
        url = fresh()
        store = PostgresStore(url)
    yield url, store
    store.close()


@pytest.fixture
def app(database: tuple[str, Store], tmp_path: Path, make_app: MakeApp) -> Flask:
    return make_app(
        Settings(
            database_url=database[0],
            callback_secrets=(SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            api_token=API,
        )
    )


def shown(monkeypatch: pytest.MonkeyPatch, url: str, *arguments: str) -> str:
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


def texts_in(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts_in(inner)


def test_an_unusual_callback_is_recorded_and_names_what_was_ignored(
    app: Flask, database: tuple[str, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, store = database
    path = f"/callbacks/kling/task-1/{mint(SECRET, 'kling', 'task-1')}"
    client = app.test_client()
    answer = client.post(path, data=ODD, content_type="application/json")
    assert (answer.status_code, answer.get_json()) == (200, {"outcome": "recorded"})

    history = store.queries.history("task-1")
    (stored,) = history.callbacks
    assert stored.callback.body == ODD
    assert [part.partition(":")[0] for part in str(stored.problem).split("; ")] == NAMED
    task = history.task
    assert (task.status, task.provider_task_id) == (Status.SUCCEEDED, "828312345678901234")
    assert (task.reason, task.cost) == ("a\n\ufffd\ufffd\ufffd", "1\ufffd")
    assert task.reference is None

    api = client.get("/api/tasks/task-1", headers={"Authorization": f"Bearer {API}"}).get_json()
    assert api["callbacks"][0]["problem"] == stored.problem
    # The displayed parts of the task; the raw body is shown as received, with its escapes.
    told = {**api, "callbacks": [{**one, "body": ""} for one in api["callbacks"]]}
    for text in texts_in(told):
        text.encode()
        assert "\0" not in text

    for arguments in (("tasks", "show", "task-1"), ("callbacks",), ("callbacks", "--json")):
        output = shown(monkeypatch, url, *arguments)
        assert NAMED[0] in output
        output.encode()
        assert "\0" not in output


def test_the_response_to_a_query_is_recorded_like_a_callback(
    database: tuple[str, Store],
) -> None:
    _, store = database
    ingest = Ingest(store)
    raw = b'{"code": 0, "data": ' + ODD + b"}"
    sent = callback(raw, source=Source.QUERY, trust=Trust.QUERIED)
    assert ingest.accept(sent) is Outcome.RECORDED
    (stored,) = store.lists.callbacks()
    assert stored.callback.body == raw
    assert [part.partition(":")[0] for part in str(stored.problem).split("; ")] == NAMED


def test_a_refused_body_that_repeats_unusual_words_is_quarantined(
    database: tuple[str, Store],
) -> None:
    _, store = database
    raw = rb'{"code": 1201, "message": "no\u0000 \ud83d"}'
    with pytest.raises(NotTheProtocol):
        Ingest(store).accept(callback(raw, source=Source.QUERY, trust=Trust.QUERIED))
    (stored,) = store.lists.callbacks()
    assert (stored.outcome, stored.callback.body) == (Outcome.QUARANTINED, raw)
    assert "1201 no\ufffd \ufffd" in str(stored.problem)


def test_a_replay_names_what_is_ignored_today(
    database: tuple[str, Store],
) -> None:
    """The replay of a message that an older release refused names the fields now ignored."""
    _, store = database
    store.inbox.quarantine(callback(ODD), "the body is not JSON")
    (stored,) = store.lists.callbacks()
    assert Ingest(store).replay(stored.id) is Outcome.RECORDED
    (again,) = store.lists.callbacks()
    assert [part.partition(":")[0] for part in str(again.problem).split("; ")] == NAMED


def test_a_problem_has_a_limited_length(database: tuple[str, Store]) -> None:
    _, store = database
    document: dict[str, Any] = {"task_id": "p", "task_status": "succeed"}
    document["task_result"] = {"images": [{"url": URL}, *[None] * 200]}
    Ingest(store).accept(callback(json.dumps(document).encode()))
    (stored,) = store.lists.callbacks()
    assert stored.outcome is Outcome.RECORDED
    assert 900 < len(str(stored.problem)) <= 1_000  # cut at the end of a word

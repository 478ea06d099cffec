"""A complete body is stored, whatever its compression, content type and path."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.testing import FlaskClient

from receiver import providers
from receiver.cli import main
from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.delivery.attempt import DeliveryWorker
from receiver.errors import BodyTooLong, NotTheProtocol
from receiver.ingest import Ingest
from receiver.maintenance.copy import copy
from receiver.maintenance.forget import forget
from receiver.serializers.outputs import media_of
from receiver.signing.callback_urls import mint
from receiver.signing.standard_webhooks import sign
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.inbox import Inbox
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task, Trust
from receiver.text.limits import MAX_BODY
from submitter.cli import tasks
from tests.support.applications import MakeApp
from tests.support.attempts import current_notice
from tests.support.dashboard_visits import PASSWORD, log_in
from tests.support.samples import SECRET, body, callback, subscription

API = "the-token-of-the-api"
KLING = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
NAME = "Anna Example"
TOKEN = mint(SECRET, "kling", "task-1")
PATH = f"/callbacks/kling/task-1/{TOKEN}"
GZIP = {"Content-Encoding": "gzip"}
RAW = body("succeed", task_status_msg=NAME, next=f"https://shop.example{PATH}")
PACKED = gzip.compress(RAW)


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
def app(tmp_path: Path, store: SqliteStore, make_app: MakeApp) -> Flask:
    store.check_schema()  # already migrated
    (tmp_path / "hooks.toml").write_text("")
    return make_app(
        Settings(
            database_url=f"sqlite:///{tmp_path / 'receiver.db'}",
            callback_secrets=(SECRET,),
            hooks_file=tmp_path / "hooks.toml",
            webhook_secrets={"kling": (KLING,)},
            api_token=API,
            dashboard_password=PASSWORD,
        )
    )


def send(client: FlaskClient, raw: bytes, path: str = PATH, **headers: str) -> tuple[int, Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = client.post(path, data=raw, headers=named)
    return answer.status_code, answer.get_json()


def signature(raw: bytes) -> dict[str, str]:
    at = now_ms() // 1000
    return {
        "webhook-id": "m",
        "webhook-timestamp": str(at),
        "webhook-signature": sign(KLING, "m", at, raw),
    }


# -- compressed bodies


def test_a_compressed_body_is_parsed_and_stored_as_received(
    client: FlaskClient, store: SqliteStore
) -> None:
    assert send(client, PACKED, **GZIP) == (200, {"outcome": "recorded"})
    (stored,) = store.lists.callbacks()
    assert stored.callback.body == PACKED
    assert stored.callback.headers["Content-Encoding"] == "gzip"
    assert store.queries.task("task-1").reason == NAME


def test_the_same_content_is_a_duplicate_in_any_encoding(
    client: FlaskClient, store: SqliteStore
) -> None:
    assert send(client, PACKED, **GZIP)[0] == 200
    again = gzip.compress(RAW, 1, mtime=7)
    assert send(client, again, **GZIP) == (200, {"outcome": "duplicate"})
    assert send(client, zlib.compress(RAW), Content_Encoding="deflate")[0] == 200
    assert send(client, RAW) == (200, {"outcome": "duplicate"})
    (stored,) = store.lists.callbacks()
    assert stored.repeats == 3
    assert providers.parse(stored.callback).media  # the first body with its headers


def test_the_same_bytes_with_another_encoding_are_another_message(
    client: FlaskClient, store: SqliteStore
) -> None:
    """Otherwise, the parsed body would be recorded with the headers of the other body."""
    assert send(client, PACKED)[0] == 400
    assert send(client, PACKED, **GZIP) == (200, {"outcome": "recorded"})
    assert [one.outcome for one in store.lists.callbacks()] == ["recorded", "quarantined"]
    recorded, _ = store.lists.callbacks()
    assert providers.parse(recorded.callback).status is Status.SUCCEEDED


def test_every_reader_of_a_body_decompresses_it(
    client: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Ingest(store, [subscription("mail")]).accept(callback(PACKED, headers=GZIP))
    (delivery,) = store.outbox.claim("w", now_ms(), now_ms() + 10_000, 1)
    (media,) = current_notice(DeliveryWorker(store, {}), delivery).media
    assert media.url == "https://cdn.example/0.png"
    assert media.url in str(tasks.task_document(store.queries.history("task-1")))
    assert media_of(store.lists.callbacks()[0].callback) == (media,)

    allowed = {"Authorization": f"Bearer {API}"}
    shown = client.get("/api/tasks/task-1", headers=allowed).get_json()
    assert shown["callbacks"][0]["body"].encode() == RAW
    assert shown["callbacks"][0]["headers"]["Content-Encoding"] == "gzip"

    log_in(client, PASSWORD)
    page = client.get("/dashboard/tasks/task-1").text
    assert NAME in page
    assert media.url in page
    assert TOKEN not in page  # redacted, although it was compressed

    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'receiver.db'}")
    monkeypatch.setenv("CALLBACK_SECRETS", SECRET)
    done = CliRunner().invoke(main, ["callbacks", "--json"])
    assert (done.exit_code, NAME in done.output) == (0, True)


def test_a_body_that_cannot_be_decompressed_is_shown_as_received(
    client: FlaskClient, store: SqliteStore
) -> None:
    assert send(client, b"<not gzip>", **GZIP)[0] == 400
    allowed = {"Authorization": f"Bearer {API}"}
    shown = client.get("/api/tasks/task-1", headers=allowed).get_json()
    assert shown["callbacks"][0]["body"] == "<not gzip>"
    log_in(client, PASSWORD)
    assert "&lt;not gzip&gt;" in client.get("/dashboard/quarantine").text
    assert len(store.lists.callbacks()) == 1


def test_a_replay_decompresses_the_body(database: tuple[str, Store]) -> None:
    _, store = database
    store.inbox.quarantine(callback(PACKED, headers=GZIP), "not understood then")
    (stored,) = store.lists.callbacks()
    assert stored.callback.body == PACKED
    assert Ingest(store).replay(stored.id) is Outcome.RECORDED
    assert store.queries.task("task-1").reason == NAME


def test_a_replay_of_a_body_that_is_too_long_says_so(database: tuple[str, Store]) -> None:
    _, store = database
    bomb = callback(gzip.compress(b" " * (MAX_BODY + 1)), headers=GZIP)
    with pytest.raises(BodyTooLong):
        Ingest(store).accept(bomb)
    (stored,) = store.lists.callbacks()
    assert (stored.callback, stored.outcome) == (bomb, Outcome.QUARANTINED)
    with pytest.raises(BodyTooLong):
        Ingest(store).replay(stored.id)


def test_a_compressed_body_is_forgotten_with_its_task(database: tuple[str, Store]) -> None:
    _, store = database
    Ingest(store).accept(callback(PACKED, headers=GZIP))
    store.inbox.quarantine(callback(PACKED[:-5], headers=GZIP), "cut off")
    forget(store, "task-1")
    for stored in store.lists.callbacks():
        assert (stored.callback.body, stored.callback.headers) == (b"", {})
    assert Ingest(store).accept(callback(gzip.compress(RAW, 1), headers=GZIP)) is Outcome.STALE
    assert {one.callback.body for one in store.lists.callbacks()} == {b""}


def test_a_copy_of_a_compressed_body_can_be_replayed(
    store: SqliteStore, tmp_path: Path, fresh: Callable[[], str]
) -> None:
    store.inbox.quarantine(callback(PACKED, headers=GZIP), "not understood then")
    store.close()
    url = fresh()
    for _ in copy(f"sqlite:///{tmp_path / 'receiver.db'}", url):
        pass
    target = PostgresStore(url)
    (stored,) = target.lists.callbacks()
    assert Ingest(target).replay(stored.id) is Outcome.RECORDED
    target.close()


# -- a complete body is stored

ODD: dict[str, tuple[bytes, dict[str, str], int]] = {
    "a form": (b"task_id=1&status=x", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
    "a form with parts": (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
        {"Content-Type": "multipart/form-data; boundary=x"},
        400,
    ),
    "a form without its parts": (b"x", {"Content-Type": "multipart/form-data"}, 400),
    "XML": (b"<a/>", {"Content-Type": "application/xml"}, 400),
    "an unknown coding": (b"\x28\xb5\x2f\xfd", {"Content-Encoding": "zstd"}, 400),
    "damaged gzip": (gzip.compress(RAW)[:-9], GZIP, 400),
    "too long after decompression": (gzip.compress(b"[" * (MAX_BODY + 1)), GZIP, 413),
    "nested too deeply after decompression": (gzip.compress(b"[" * MAX_BODY), GZIP, 400),
    "another protocol, compressed": (gzip.compress(b'{"a": 1}'), GZIP, 422),
    "as long as it may be": (b"x" * MAX_BODY, {}, 400),
    "binary data": (bytes(range(256)), {"Content-Type": "image/png"}, 400),
    "nothing": (b"", {}, 400),
}


@pytest.mark.parametrize(("raw", "headers", "status"), ODD.values(), ids=ODD)
@pytest.mark.parametrize("is_signed", [False, True])
def test_a_complete_body_that_cannot_be_parsed_is_quarantined(
    client: FlaskClient,
    store: SqliteStore,
    raw: bytes,
    headers: dict[str, str],
    status: int,
    is_signed: bool,
) -> None:
    more = signature(raw) if is_signed else {}
    assert send(client, raw, **headers, **more)[0] == status
    (stored,) = store.lists.callbacks()
    assert (stored.callback.body, stored.outcome) == (raw, "quarantined")
    assert stored.callback.trust is (Trust.SIGNED if is_signed else Trust.TOKEN)
    assert stored.problem


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "?"],
)
@pytest.mark.parametrize("raw", [RAW, b"\xef\xbb\xbf" + RAW, RAW.decode().encode("utf-16")])
def test_content_type_and_byte_order_mark_do_not_matter(
    client: FlaskClient, content_type: str | None, raw: bytes
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    assert send(client, raw, **headers) == (200, {"outcome": "recorded"})


@pytest.mark.parametrize("breaks", ["parse", "record"])
def test_an_exception_of_an_adapter_or_the_store_loses_no_body(
    client: FlaskClient, store: SqliteStore, monkeypatch: pytest.MonkeyPatch, breaks: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise KeyError("a mistake of ours", PATH)

    broken = type(providers.get("kling")) if breaks == "parse" else Inbox
    monkeypatch.setattr(broken, breaks, fail)
    assert send(client, RAW)[0] == 500
    (stored,) = store.lists.callbacks()
    assert (stored.callback.body, stored.outcome) == (RAW, "quarantined")
    assert "KeyError" in str(stored.problem)
    assert TOKEN not in str(stored.problem)
    monkeypatch.undo()
    assert Ingest(store).replay(stored.id) is Outcome.RECORDED


def test_a_body_for_a_task_of_another_provider_is_stored_without_the_task(
    database: tuple[str, Store],
) -> None:
    _, store = database
    store.inbox.create_task(Task("task-1", "appypie", Status.CREATED, 1, 1))
    for raw in (RAW, b"no JSON"):
        with pytest.raises(Exception, match=r"appypie|not JSON"):
            Ingest(store).accept(callback(raw))
    assert [one.callback.body for one in store.lists.callbacks()] == [b"no JSON", RAW]
    assert {(one.callback.task_id, one.outcome) for one in store.lists.callbacks()} == {
        (None, Outcome.QUARANTINED)
    }
    assert store.queries.history("task-1").callbacks == ()
    for stored in store.lists.callbacks():  # the token belongs to another task than the body
        with pytest.raises(NotTheProtocol, match="another provider"):
            Ingest(store).replay(stored.id)


# -- paths


@pytest.mark.parametrize(
    "path",
    [
        f"{PATH}/",
        f"{PATH}//",
        f"{PATH}%20",
        f"{PATH}/%20?a=b",
        f"{PATH}?task=1",
        f"{PATH}%3Ftask=1",
        f"{PATH}&task=1",
        PATH.replace("/kling", "//kling"),
        PATH.replace("/task-1/", "//task-1//"),
        PATH.replace("task-1", "t%61sk-1"),
    ],
)
def test_an_altered_path_is_accepted(client: FlaskClient, store: SqliteStore, path: str) -> None:
    assert send(client, RAW, path) == (200, {"outcome": "recorded"})
    assert store.queries.task("task-1").status is Status.SUCCEEDED
    for method in ("GET", "HEAD"):
        probe = client.open(path, method=method)
        assert (probe.status_code, probe.get_data()) == (200, b"")
    (stored,) = store.lists.callbacks()
    assert TOKEN not in str(stored.callback.headers)


@pytest.mark.parametrize("path", ["/callbacks/kling/", "/callbacks//kling", "/callbacks/kling%20"])
def test_an_altered_path_of_a_signed_callback_is_accepted(client: FlaskClient, path: str) -> None:
    assert send(client, RAW, path, **signature(RAW)) == (200, {"outcome": "recorded"})


# -- signed messages about unknown tasks

TESTS = {
    "a test event": b'{"type": "test", "message": "hello"}',
    "a test event of Standard Webhooks": b'{"type": "t", "timestamp": 1, "data": {"a": 1}}',
    "a test event with an id": b'{"id": "evt-1", "status": "ping"}',
    "an id without a status": b'{"task_id": "unknown-1"}',
    "a list": b'["ping"]',
    "a text": b'"ping"',
    "an empty object": b"{}",
    "nothing": b"",
    "an empty object with a byte order mark": b"\xef\xbb\xbf{}",
}


@pytest.mark.parametrize("raw", TESTS.values(), ids=TESTS)
@pytest.mark.parametrize("is_packed", [False, True])
def test_a_signed_message_about_an_unknown_task_is_stored_and_answered_with_200(
    client: FlaskClient, store: SqliteStore, raw: bytes, is_packed: bool
) -> None:
    sent = gzip.compress(raw) if is_packed else raw
    headers = signature(sent) | (GZIP if is_packed else {})
    answer = send(client, sent, "/callbacks/kling", **headers)
    assert answer == (200, {"outcome": "quarantined"})
    (stored,) = store.lists.callbacks()
    assert (stored.callback.body, stored.callback.task_id) == (sent, None)
    assert stored.outcome == "quarantined"
    assert (store.lists.tasks(), store.lists.deliveries()) == ([], [])
    log_in(client, PASSWORD)
    assert client.get("/dashboard/quarantine").status_code == 200


def test_an_unparsable_signed_message_about_a_known_task_is_refused(
    client: FlaskClient, store: SqliteStore
) -> None:
    """The provider repeats the message, perhaps after an update."""
    store.inbox.create_task(Task("task-1", "kling", Status.SUBMITTED, 1, 1, provider_task_id="p-1"))
    raw = body("upscaling", "p-1")
    assert send(client, raw, "/callbacks/kling", **signature(raw))[0] == 422
    new = json.dumps({"id": "p-1", "status": "upscaling"}).encode()
    assert send(client, new, "/callbacks/kling", **signature(new))[0] == 422
    assert len(store.lists.callbacks(outcome=Outcome.QUARANTINED)) == 2


def test_an_unparsable_message_with_a_token_is_refused(client: FlaskClient) -> None:
    raw = b'{"type": "test"}'
    assert send(client, raw, **signature(raw))[0] == 422


@pytest.mark.parametrize("raw", TESTS.values(), ids=TESTS)
def test_only_a_signed_message_is_answered_with_200(store: SqliteStore, raw: bytes) -> None:
    unsigned = replace(callback(raw), task_id=None, trust=Trust.TOKEN)
    with pytest.raises(Exception, match=r".+"):
        Ingest(store).accept(unsigned)


# -- an empty body is empty in any encoding


@pytest.mark.parametrize("raw", [b"", b"{}", b" {\n} ", b"\xef\xbb\xbf{}"])
@pytest.mark.parametrize("is_packed", [False, True])
def test_an_empty_body_records_no_task(
    client: FlaskClient, store: SqliteStore, raw: bytes, is_packed: bool
) -> None:
    sent, headers = (gzip.compress(raw), GZIP) if is_packed else (raw, {})
    assert send(client, sent, **headers)[0] in (400, 422)
    assert store.lists.tasks() == []
    assert len(store.lists.callbacks()) == 1

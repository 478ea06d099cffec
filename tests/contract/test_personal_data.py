"""`forget` and `prune` erase the columns listed in `stores/sql/personal_data.py` in both databases.

A new column makes the first test fail until it is decided whether it can contain personal data.
"""

from __future__ import annotations

import html
import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Attempt, File, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import AlertKind, Endpoint
from receiver.hooks.webhook import Webhook
from receiver.ingest import Ingest
from receiver.maintenance.forget import forget
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.sql import personal_data
from receiver.stores.sql.activity import Rejection
from receiver.stores.sql.endpoints import HookTestOutcome
from receiver.stores.sql.idempotency import StoredResponse
from receiver.stores.sql.transfer import TABLES, Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Status, Task
from tests.support.attempts import make_attempt
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000
KEY = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
ANNA = "Anna of Example Street"

PERSONAL = {name: set(table.personal) for name, table in personal_data.TABLES.items()}
PERSONAL = {name: columns for name, columns in PERSONAL.items() if columns}
KEPT_BY_PRUNE = {
    name: {column for column, one in table.personal.items() if one.kept_because}
    for name, table in personal_data.TABLES.items()
}
only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # the test reads the file


# Tables of libraries: they contain names of migrations, and ids of deliveries with names of hooks.
THEIRS = ("sqlite_", "_sqlite_", "procrastinate_", "callback_receiver_migrations")


def columns(store: Store) -> dict[str, set[str]]:
    """Return the columns of each of our tables in this database, by table."""
    found: dict[str, set[str]] = {}
    with store.database.reading() as session:
        if isinstance(store, SqliteStore):
            tables = session.execute("select name from sqlite_master where type = 'table'")
            for name in [row["name"] for row in tables.fetchall()]:
                rows = session.execute(f"pragma table_info({name})").fetchall()
                found[name] = {row["name"] for row in rows}
        else:
            for row in session.execute(
                "select table_name, column_name from information_schema.columns"
                " where table_schema = current_schema()"
            ).fetchall():
                found.setdefault(row["table_name"], set()).add(row["column_name"])
    return {name: names for name, names in found.items() if not name.startswith(THEIRS)}


def holding(store: Store, words: str) -> dict[str, set[str]]:
    """Return the columns of every table that contain these words in some row, by table."""
    found: dict[str, set[str]] = {}
    with store.database.reading() as session:
        for table in every_table(store):
            for row in session.execute(f"select * from {table}").fetchall():  # noqa: S608
                for column in row.keys():  # noqa: SIM118 - SQLite's row is no dict
                    if words in _text(row[column]):
                        found.setdefault(table, set()).add(column)
    return found


def every_table(store: Store) -> list[str]:
    """Include the tables of libraries."""
    sql = "select tablename as name from pg_tables where schemaname = current_schema()"
    if isinstance(store, SqliteStore):
        sql = "select name from sqlite_master where type = 'table'"
    with store.database.reading() as session:
        return [row["name"] for row in session.execute(sql).fetchall()]


def _text(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def put_on_record(store: Store) -> None:
    """Record one ended task, with the name of a person in every column where it can occur."""
    task = Task("a", "kling", Status.CREATED, NOW, NOW, reference=ANNA, metadata={"for": ANNA})
    store.inbox.create_task(task)
    store.inbox.keep_inputs("a", {"human": ANNA.encode()})
    store.inbox.quarantine(callback(ANNA.encode(), "a"), f"{ANNA} is not JSON")
    message = callback(body("failed", task_status_msg=ANNA), "a", headers={"X-Customer": ANNA})
    Ingest(store, [subscription("mail"), subscription("chat")]).accept(message)
    holder = store.idempotency.claim(f"order of {ANNA}", b"digest", "a", NOW, NOW + 1)
    assert holder is not None
    store.idempotency.settle(holder, NOW, StoredResponse(201, json.dumps({"reference": ANNA})))
    delivered, failed = store.outbox.claim("w", LATER, LATER + 10_000, 2)
    picture = File("0", f"/data/{ANNA}.png", "ab" * 32, 3, "image/png", ANNA.encode())
    attempt = Attempt(1, NOW, NOW, "delivered", f"took it for {ANNA}")
    store.outbox.settle(delivered, attempt, State.DELIVERED, None, [picture], output={"to": ANNA})
    answer = f"no such customer: {ANNA}"
    disabled = (Endpoint(failed.hook, disabled_at=NOW, said=answer), AlertKind.DISABLED)
    attempt = Attempt(1, NOW, NOW, "failed", answer)
    store.outbox.settle(failed, attempt, State.DELIVERED, None, change=lambda _: disabled)
    store.activity.add_rejections([Rejection(NOW, ANNA, f"no {ANNA}", ANNA, f"/callbacks/{ANNA}")])
    store.endpoints.request_test("chat", "succeeded", NOW)
    (trial,) = store.endpoints.claim_tests(NOW, NOW + 1)
    store.endpoints.end_test(trial, HookTestOutcome.FAILED, f"unlike the last one, {ANNA}", NOW)
    # A signed message that could not be parsed belongs to no task.
    nobodys = replace(callback(ANNA.encode(), headers={"X-Name": ANNA}), task_id=None)
    store.inbox.quarantine(nobodys, f"{ANNA} is unknown")


def test_every_column_is_classified_once(store: Store) -> None:
    listed = {}
    for name, table in personal_data.TABLES.items():
        impersonal = table.impersonal.split()
        if not isinstance(store, SqliteStore):
            impersonal += table.only_in_postgres.split()
        assert len(impersonal) == len(set(impersonal))
        assert not table.personal.keys() & set(impersonal)
        listed[name] = {*impersonal, *table.personal}
    assert columns(store) == listed


def test_every_table_is_copied_or_created_anew(store: Store) -> None:
    copied = {name for name, table in personal_data.TABLES.items() if table.is_copied}
    assert set(TABLES) == copied
    assert set(personal_data.TABLES) == set(columns(store))


def test_the_name_is_in_every_personal_column(store: Store) -> None:
    put_on_record(store)
    assert holding(store, ANNA) == PERSONAL


def test_forgetting_erases_every_personal_column(store: Store) -> None:
    put_on_record(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    assert holding(store, ANNA) == {}


def test_pruning_erases_every_column_except_those_with_a_reason(store: Store) -> None:
    put_on_record(store)
    list(prune(store, LATER))
    left = {name: columns for name, columns in KEPT_BY_PRUNE.items() if columns}
    assert holding(store, ANNA) == left == {"tasks": {"reference"}, "files": {"url"}}


def test_pruning_erases_texts_of_a_task_without_messages(store: Store) -> None:
    store.inbox.create_task(Task("a", "kling", Status.FAILED, NOW, NOW, reason=ANNA))
    list(prune(store, LATER))
    assert store.queries.task("a").reason is None


def test_a_copy_includes_every_personal_column(store: Store, tmp_path: Path) -> None:
    put_on_record(store)
    target = SqliteStore(tmp_path / "copy" / "receiver.db")
    target.migrate()
    for table in TABLES:
        for found in Transfer(store.database).pages(table):
            Transfer(target.database).load(table, found)
    try:
        assert holding(target, ANNA) == PERSONAL
        target.erasures.close_task("a", LATER)
        target.erasures.erase("a", LATER)
        assert holding(target, ANNA) == {}
    finally:
        target.close()


@pytest.mark.parametrize("verb", ["forget", "prune"])
@only_sqlite
def test_no_byte_of_the_name_remains_in_the_files_of_the_database(
    store: Store, tmp_path: Path, verb: str
) -> None:
    put_on_record(store)
    assert ANNA in contents(tmp_path)
    if verb == "forget":
        store.erasures.close_task("a", LATER)
        store.erasures.erase("a", LATER)
        assert ANNA not in contents(tmp_path)
    else:
        list(prune(store, LATER))
        shown = contents(tmp_path)
        # The reference is kept, once in the table and once in its index, and so is the path of the
        # file.
        assert shown.count(ANNA) == shown.count(f"/data/{ANNA}.png") + 2
    assert store.erasures.unfinished() is None


@only_sqlite
def test_remnants_between_the_rows_of_a_page_are_removed(store: Store, tmp_path: Path) -> None:
    """SQLite leaves such remnants when it splits a full page."""
    put_on_record(store)
    store.close()
    file = tmp_path / "receiver.db"
    put_between_rows(file)
    again = SqliteStore(file)
    try:
        again.erasures.close_task("a", LATER)
        assert again.erasures.erase("a", LATER)
        assert again.erasures.unfinished() is None
    finally:
        again.close()
    assert ANNA not in contents(tmp_path)
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("pragma integrity_check").fetchone() == ("ok",)
        assert connection.execute("pragma auto_vacuum").fetchone() == (2,)


@only_sqlite
def test_remnants_are_removed_although_a_reader_delayed_the_erasure(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_on_record(store)
    store.close()
    file = tmp_path / "receiver.db"
    put_between_rows(file)
    again = SqliteStore(file)
    reader = sqlite3.connect(file)
    reader.execute("begin")
    reader.execute("select count(*) from tasks").fetchone()
    monkeypatch.setattr("receiver.maintenance.erasures.time.sleep", lambda _: reader.rollback())
    try:
        forget(again, "a")
    finally:
        again.close()
        reader.close()
    assert ANNA not in contents(tmp_path)


def put_between_rows(file: Path) -> None:
    pages, size = bytearray(file.read_bytes()), 4096
    starts = [start for start in range(size, len(pages), size) if pages[start] == 13]  # of rows
    for start in starts:
        rows = int.from_bytes(pages[start + 3 : start + 5])
        content = int.from_bytes(pages[start + 5 : start + 7]) or 65_536
        if content - 8 - 2 * rows > 2 * len(ANNA):
            pages[start + content - len(ANNA) : start + content] = ANNA.encode()
    file.write_bytes(pages)


def contents(folder: Path) -> str:
    found = b"".join(path.read_bytes() for path in sorted(folder.glob("receiver.db*")))
    return found.decode("utf-8", "replace")


@pytest.mark.parametrize(
    "echo",
    [
        ANNA,
        ANNA.upper(),
        quote(ANNA),
        quote_plus(ANNA),
        quote(quote(ANNA)),
        "".join(f"\\u{ord(letter):04x}" for letter in ANNA),
        html.escape(f"<b>{ANNA}</b>"),
        ANNA.replace(" ", "_"),
        json.dumps({"customer": json.dumps(ANNA)}),
    ],
)
def test_forgetting_erases_repetitions_of_the_name_in_other_texts(store: Store, echo: str) -> None:
    put_on_record(store)
    hooks = [subscription("shop"), subscription("cutout"), subscription("label")]
    Ingest(store, hooks).accept(callback(body(), "b"))
    (failed,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    answer = f"no place: {echo} came first"
    change = (Endpoint("shop", 5, NOW, 1, NOW, said=answer), AlertKind.PAUSED)
    attempt = Attempt(1, NOW, NOW, "failed", answer)
    store.outbox.settle(failed, attempt, State.DEAD, None, change=lambda _: change)
    returning, other = store.outbox.claim("w", LATER, LATER + 10_000, 2)
    attempt = Attempt(1, NOW, NOW, "delivered", "")
    for delivery, output in ((returning, {"for": [answer]}), (other, {"for": "another customer"})):
        store.outbox.settle(delivery, attempt, State.DELIVERED, None, output=output)
    store.activity.add_rejections([Rejection(NOW, "192.0.2.1", "wrong token", "POST", f"/{echo}")])
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    assert holding(store, echo) == {}
    assert store.endpoints.of("shop").said == personal_data.FORGOTTEN
    assert store.queries.delivery(returning.id).output == {}
    assert store.queries.delivery(other.id).output == {"for": "another customer"}


def test_forgetting_keeps_outputs_of_another_task_with_the_same_reference(store: Store) -> None:
    """`forget --reference` erases them with that task."""
    for task in ("a", "b"):
        store.inbox.create_task(Task(task, "kling", Status.CREATED, NOW, NOW, reference=ANNA))
    Ingest(store, [subscription("cutout")]).accept(callback(body(), "b"))
    (delivery,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    attempt = Attempt(1, NOW, NOW, "delivered", "")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, output={"for": ANNA})
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    assert store.queries.delivery(delivery.id).output == {"for": ANNA}


@pytest.mark.parametrize("verb", ["forget", "prune"])
def test_a_text_of_an_endpoint_is_erased_with_the_task_that_caused_it(
    store: Store, verb: str
) -> None:
    """The text does not name the person, and the response itself was pruned earlier."""
    Ingest(store, [subscription("chat")]).accept(callback(body(), "a"))
    (failed,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    text = "the lady in the red coat is not welcome"
    change = (Endpoint("chat", 5, NOW, 1, NOW, said=text), AlertKind.PAUSED)
    attempt = Attempt(1, NOW, NOW, "failed", text)
    store.outbox.settle(failed, attempt, State.DELIVERED, None, change=lambda _: change)
    if verb == "prune":
        store.retention.prune(LATER)
    else:
        store.erasures.close_task("a", LATER)
        store.erasures.erase("a", LATER)
    assert holding(store, text) == {}
    assert store.endpoints.of("chat").said.startswith("(erased: ")


def test_a_forgotten_idempotency_key_still_prevents_a_second_task(store: Store) -> None:
    put_on_record(store)
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    found = store.idempotency.find(f"order of {ANNA}", NOW + 2)
    assert found is not None
    assert found.answer is not None
    assert found.answer.status == 410
    assert store.idempotency.claim(f"order of {ANNA}", b"digest", "b", NOW + 2, NOW + 3) is None


def test_forgetting_keeps_what_an_endpoint_responded_for_other_tasks(store: Store) -> None:
    Ingest(store, [subscription("chat")]).accept(callback(body(), "b"))
    (failed,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    change = (Endpoint("chat", 5, NOW, 1, NOW, said="answered 503"), AlertKind.PAUSED)
    attempt = Attempt(1, NOW, NOW, "failed", "answered 503")
    store.outbox.settle(failed, attempt, State.DEAD, None, change=lambda _: change)
    Ingest(store, [subscription("chat")]).accept(callback(body("failed", "p-2"), "a"))
    store.erasures.close_task("a", LATER)
    store.erasures.erase("a", LATER)
    assert store.endpoints.of("chat").said == "answered 503"


@pytest.mark.parametrize("answer", ["the lady in the red coat is unknown", ""])
def test_the_migration_assigns_texts_of_endpoints_to_their_tasks(
    lacking: Callable[..., Store], answer: str
) -> None:
    """A text whose response was already erased by `prune` is erased by the migration."""
    store = lacking("0015_personal_data")
    Ingest(store, [subscription("chat")]).accept(callback(body(), "a"))
    (failed,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    attempt = Attempt(1, NOW, NOW, "failed", answer)
    store.outbox.settle(failed, attempt, State.DEAD, None)
    Transfer(store.database).load(
        "endpoints",
        [{"hook": "chat", "disabled_at": NOW, "said": "the lady in the red coat is unknown"}],
    )
    assert store.migrate() == ["0015_personal_data"]
    if answer:
        assert store.endpoints.of("chat").said == answer
        store.erasures.close_task("a", LATER)
        store.erasures.erase("a", LATER)
    assert holding(store, "red coat") == {}
    assert store.endpoints.of("chat").said.startswith("(erased: ")


def test_pruning_keeps_what_is_needed_for_a_day(store: Store) -> None:
    """A key is kept to prevent a second task, and an alert is kept until it is sent."""
    now = now_ms()
    Ingest(store, [subscription("chat")]).accept(callback(body(), "a", received_at=now))
    (failed,) = store.outbox.claim("w", now, now + 10_000, 1)
    change = (Endpoint("chat", 5, now, 1, now, said="no answer"), AlertKind.PAUSED)
    attempt = Attempt(1, now, now, "failed", "no answer")
    store.outbox.settle(failed, attempt, State.PENDING, now, change=lambda _: change)
    assert store.idempotency.claim("key", b"digest", "b", now, now + 1) is not None
    store.activity.add_rejections([Rejection(now, "192.0.2.1", "wrong token", "POST", "/x")])
    list(prune(store, now + 1_000))
    assert store.idempotency.find("key", now) is not None
    assert [alert.said for alert in store.endpoints.take_alerts(now, now + 1)] == ["no answer"]
    assert store.activity.rejections() == []


def test_a_delivery_repeats_no_text_of_another_task(store: Store) -> None:
    """A disabled hook refuses deliveries of every task, and the reason may name the first one."""
    put_on_record(store)
    Ingest(store, [subscription("chat")]).accept(callback(body(), "b"))
    (delivery,) = store.outbox.claim("w", LATER, LATER + 10_000, 1)
    deliver = DeliveryWorker(
        store, {"chat": Webhook("chat", {"url": "http://192.0.2.1", "secrets": [KEY]})}
    )
    assert make_attempt(deliver, delivery) is State.DEAD
    (attempt,) = store.queries.history("b").attempts[delivery.id]
    assert "the hook is disabled" in attempt.answer
    assert ANNA not in attempt.answer

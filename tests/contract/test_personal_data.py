"""Every column of the record is listed here with what `forget` and `prune` do to it.

A new column makes the first test fail until somebody has decided whether it can hold personal data.
"""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from receiver.deliveries import Attempt, File, State
from receiver.endpoints import AlertKind, Endpoint
from receiver.ingest import Ingest
from receiver.stores.base import Answered, Store
from receiver.stores.sql.transfer import TABLES
from receiver.tasks import Status, Task
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000
ANNA = "Anna of Example Street"

# Columns that can hold the words or pictures of a person, by table.
PERSONAL = {
    "tasks": {"reference", "reason"},
    "callbacks": {"problem", "headers", "body"},
    "attempts": {"answer"},
    "files": {"url", "thumbnail"},
    "inputs": {"thumbnail"},
    "idempotency_keys": {"answer"},
    "endpoints": {"said"},
    "alerts": {"said"},
}
# `prune` erases what was sent and answered. It leaves what lists of old tasks show, and the place
# of the file, which belongs to the user. The last failure of an endpoint goes when it works again,
# an alert after a day, and an idempotency key after a day.
PRUNED = {
    "callbacks": {"problem", "headers", "body"},
    "attempts": {"answer"},
    "files": {"thumbnail"},
    "inputs": {"thumbnail"},
}
# Ids, statuses, times, amounts, digests, and the operator's own names.
IMPERSONAL = {
    "tasks": "seq id provider account provider_task_id callback_task_id id_source status trust cost"
    " cost_unit conflict created_at updated_at expects_callback asked deadline_at given_up_at"
    " mismatched_at",
    "callbacks": "id task provider source trust outcome received_at repeats digest",
    "transitions": "id task status callback occurred_at recorded_at trust corrected revision"
    " outputs",
    "deliveries": "id transition hook state after due_at attempts retries_from worker ended_at",
    "attempts": "id delivery number started_at ended_at outcome",
    "files": "delivery attempt media_index sha256 size content_type",
    "inputs": "task name",
    "forgotten": "task closed_at erased_at",
    "idempotency_keys": "key digest task created_at held_until status",
    "endpoints": "hook failures failing_since openings retry_at paused_at disabled_at timed_out",
    "alerts": "id hook kind at due_at",
    "trials": "hook status asked_at tries again_at ended_at outcome answer",  # of a made-up task
    "rejections": "id at address reason method path count",  # of strangers, about no task
    "pauses": "name until",
    "counters": "name provider value",
    "measures": "name labels value",
    "processes": "name kind seen_at",
    "clocks": "boot offset_ms step seen_at suspected_ms",
    "clock_steps": "id boot at by_ms moved_ms",
    "task_counts": "provider status value",
    "delivery_counts": "hook state value",
    "hours": "place provider series bucket hour value last_at",
}
# What `copy` leaves out: processes announce themselves anew, and triggers count again.
NOT_COPIED = {"processes", "task_counts", "delivery_counts", "hours"}
only_sqlite = pytest.mark.parametrize("store", ["sqlite"], indirect=True)  # it looks into the file


def columns(path: Path) -> dict[str, set[str]]:
    """The columns of every table of ours in this SQLite file, by table."""
    with sqlite3.connect(path) as connection:
        tables = connection.execute(
            "select name from sqlite_master where type = 'table'"
            " and name not like 'sqlite^_%' escape '^' and name <> '_sqlite_migrations'"
        ).fetchall()
        found = {
            table: {row[1] for row in connection.execute(f"pragma table_info({table})")}
            for (table,) in tables
        }
    connection.close()
    return found


def holding(store: Store, words: str) -> dict[str, set[str]]:
    """The columns in which these words stand in some row, by table."""
    found: dict[str, set[str]] = {}
    for table in TABLES:
        for row in (row for rows in store.dump(table) for row in rows):
            for column, value in row.items():
                if words in _text(value):
                    found.setdefault(table, set()).add(column)
    return found


def _text(value: Any) -> str:
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode("utf-8", "replace")
    return str(value)


def put_on_record(store: Store) -> None:
    """One ended task, with the name of a person wherever it can get."""
    store.create_task(Task("a", "kling", Status.CREATED, NOW, NOW, reference=ANNA))
    store.keep_inputs("a", {"human": ANNA.encode()})
    store.quarantine(callback(ANNA.encode(), "a"), f"{ANNA} is not JSON")
    told = callback(body("failed", task_status_msg=ANNA), "a", headers={"X-Customer": ANNA})
    Ingest(store, [subscription("mail"), subscription("chat")]).accept(told)
    held = store.claim_key("key", b"digest", "a", NOW, NOW + 1)
    assert held is not None
    store.settle_key(held, NOW, Answered(201, json.dumps({"reference": ANNA})))
    delivered, failed = store.claim("w", LATER, LATER + 10_000, 2)
    picture = File("0", f"/data/{ANNA}.png", "ab" * 32, 3, "image/png", ANNA.encode())
    attempt = Attempt(1, NOW, NOW, "delivered", f"took it for {ANNA}")
    store.settle(delivered, attempt, State.DELIVERED, None, [picture])
    answer = f"no such customer: {ANNA}"
    gone = (Endpoint(failed.hook, disabled_at=NOW, said=answer), AlertKind.DISABLED)
    attempt = Attempt(1, NOW, NOW, "failed", answer)
    store.settle(failed, attempt, State.DELIVERED, None, change=lambda _: gone)


@only_sqlite
@pytest.mark.usefixtures("store")
def test_every_column_is_listed_once(tmp_path: Path) -> None:
    listed = {table: set(names.split()) for table, names in IMPERSONAL.items()}
    for table, names in PERSONAL.items():
        assert not names & listed[table]
        listed[table] |= names
    assert columns(tmp_path / "receiver.db") == listed


@only_sqlite
@pytest.mark.usefixtures("store")
def test_every_table_is_copied_or_made_anew(tmp_path: Path) -> None:
    assert set(TABLES) == set(columns(tmp_path / "receiver.db")) - NOT_COPIED


def test_the_name_stands_in_every_personal_column(store: Store) -> None:
    put_on_record(store)
    assert holding(store, ANNA) == PERSONAL


def test_forgetting_erases_every_personal_column(store: Store) -> None:
    put_on_record(store)
    store.close_task("a", LATER)
    store.erase("a", LATER)
    assert holding(store, ANNA) == {}


def test_pruning_erases_every_column_that_was_sent_or_answered(store: Store) -> None:
    put_on_record(store)
    store.prune(LATER)
    store.prune_inputs(LATER)
    left = {
        table: names - PRUNED.get(table, set())
        for table, names in PERSONAL.items()
        if names - PRUNED.get(table, set())
    }
    assert holding(store, ANNA) == left


def test_forgetting_leaves_what_an_endpoint_said_of_other_tasks(store: Store) -> None:
    Ingest(store, [subscription("chat")]).accept(callback(body(), "b"))
    (failed,) = store.claim("w", LATER, LATER + 10_000, 1)
    change = (Endpoint("chat", 5, NOW, 1, NOW, said="answered 503"), AlertKind.PAUSED)
    attempt = Attempt(1, NOW, NOW, "failed", "answered 503")
    store.settle(failed, attempt, State.DEAD, None, change=lambda _: change)
    Ingest(store, [subscription("chat")]).accept(callback(body("failed", "p-2"), "a"))
    store.close_task("a", LATER)
    store.erase("a", LATER)
    assert store.endpoint("chat").said == "answered 503"

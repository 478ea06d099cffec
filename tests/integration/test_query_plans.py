"""No verb that runs for each callback, delivery or question scans a table that grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.deliveries import Attempt, State
from receiver.endpoints import Endpoint
from receiver.ingest import Ingest
from receiver.observability.metrics import Sample
from receiver.stores.activity import ActivityKind
from receiver.stores.base import ALWAYS
from receiver.stores.sqlite import SqliteStore, readers, writer
from receiver.stores.upkeep import DeliverySelection
from receiver.tasks import Status, Task
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
GROWING = (
    "tasks",
    "callbacks",
    "transitions",
    "deliveries",
    "attempts",
    "files",
    "inputs",
    "idempotency_keys",
)
ALIASES = ("d", "t", "c", "tr", "a", "f", "i")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement that any connection runs."""
    seen: list[str] = []
    original = writer.connect

    def traced(path: Path, *, read_only: bool) -> sqlite3.Connection:
        connection = original(path, read_only=read_only)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(writer, "connect", traced)
    monkeypatch.setattr(readers, "connect", traced)
    return seen


def run_a_life(store: SqliteStore) -> None:
    """All that happens to a task, once."""
    ingest = Ingest(store, [subscription("pictures"), subscription("mail", after="pictures")])
    store.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, deadline_at=NOW))
    store.overdue(NOW, NOW + 1, 4)
    store.put_off(store.task("task-1"), NOW + 2)
    store.next_deadline_at()
    store.usual_duration("kling")
    ingest.accept(callback(body("processing")))
    ingest.accept(callback(body("succeed")))
    ingest.accept(callback(body("succeed")))
    ingest.accept(callback(body("failed")))
    store.ask_at("task-1", NOW)
    store.next_due_at(NOW)
    (delivery,) = store.claim("w", NOW, NOW + 1, 4)
    store.renew([delivery], NOW + 2)
    store.told(delivery)
    store.expired(NOW)
    failing = Endpoint("pictures", 1, NOW)
    attempt = Attempt(1, NOW, NOW, "delivered", "ok")
    store.settle(delivery, attempt, State.DELIVERED, None, change=lambda _: (failing, None))
    store.endpoint("pictures")
    store.backlog(NOW)
    store.redeliver(delivery.id, NOW)
    store.redeliver_all(DeliverySelection(), NOW)
    store.catch_up(subscription("later"), NOW, NOW)
    store.take_alerts(NOW, NOW)
    store.prune(NOW)
    store.keep_inputs("task-1", {"human": b"small"})
    store.inputs("task-1")
    store.prune_inputs(NOW)
    store.close_task("task-1", NOW)
    store.task_by_provider_id("kling", "828338674605220001")
    store.history("task-1")
    for kind in ActivityKind:
        store.newest(kind)
    store.charges(ALWAYS)
    store.tasks(reference="ORDER-7")
    store.page_of_tasks(before=None, limit=7, reference="ORDER-7", account="default")
    store.page_of_deliveries(before=9, limit=7, task_id="task-1")
    store.delivery(delivery.id)
    look_around(store)
    held = store.claim_key("key", b"digest", "task-2", NOW, NOW + 1)
    assert held is not None
    store.key("key", NOW)
    store.settle_key(held, NOW, None)
    store.release_key(held)
    store.heartbeat("w", "worker", NOW)
    store.open_tasks(NOW)
    store.measure([Sample("a", (), 1)], [Sample("b", (), 1)])


def look_around(store: SqliteStore) -> None:
    """All that a page for people reads."""
    store.task_counts()
    store.delivery_counts()
    store.hours(0)
    store.last_callbacks()
    store.overdue_count(NOW)
    store.page_of_standing(tuple(Status), before=None, limit=7, since=0, until=NOW)
    store.page_of_standing((Status.FAILED,), before=9, limit=7, provider="kling", reference="R")
    store.tasks_by_id(["task-1"])
    store.pictures(["task-1"])
    store.results(["task-1"])
    store.attempts(store.deliveries(task_id="task-1"))
    store.page_of_quarantine(before=None, limit=7)
    store.page_of_deliveries(before=9, limit=7, hook="mail")
    store.page_of_deliveries(before=9, limit=7, hook="mail", state=State.DEAD)


def scans(path: Path, statements: list[str]) -> list[str]:
    """The steps of the plans that go through a whole growing table, with their statements."""
    connection = sqlite3.connect(path)
    found = []
    for statement in dict.fromkeys(statements):
        if statement.split(None, 1)[0].lower() not in ("select", "insert", "update", "delete"):
            continue
        for row in connection.execute(f"explain query plan {statement}"):
            step = str(row[3])
            words = step.replace("SCAN TABLE", "SCAN").split()
            # A scan in the order of an index or of the row key stops at its LIMIT.
            stops = "order by" in statement and "limit" in statement and "TEMP" not in step
            if words[0] == "SCAN" and words[1] in (*GROWING, *ALIASES) and not stops:
                found.append(f"{step}\n{statement}")
    connection.close()
    return found


def test_no_hot_statement_scans_a_table_that_grows(statements: list[str], tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    statements.clear()
    run_a_life(store)
    store.close()
    assert len(statements) > 40
    assert scans(tmp_path / "receiver.db", statements) == []


@pytest.mark.parametrize(
    "read",
    [lambda store: store.page_of_quarantine(before=None, limit=7), lambda s: s.quarantined(0)],
)
def test_the_quarantine_is_read_along_its_index(
    statements: list[str], tmp_path: Path, read: Callable[[SqliteStore], object]
) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    statements.clear()
    read(store)
    store.close()
    (statement,) = [one for one in statements if "quarantined" in one]
    connection = sqlite3.connect(tmp_path / "receiver.db")
    plan = str(connection.execute(f"explain query plan {statement}").fetchall())
    connection.close()
    assert "callbacks_in_quarantine" in plan


def test_a_scan_would_be_found(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    slow = "select * from deliveries where state = 'delivered' and due_at <= 1"
    assert scans(tmp_path / "receiver.db", [slow]) != []

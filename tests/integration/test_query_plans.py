"""No operation for each callback, delivery or query scans a table that grows."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from receiver.deliveries import Attempt, State
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import Endpoint, Limits, Rate
from receiver.ingest import Ingest
from receiver.observability.metrics import Sample
from receiver.stores.sql.activity import ActivityKind
from receiver.stores.sql.event_log import Position
from receiver.stores.sql.repair import DeliverySelection
from receiver.stores.sql.rows import ALWAYS, TimeRange
from receiver.stores.sqlite import SqliteStore, readers, writer
from receiver.tasks import Status, Task
from tests.support.attempts import notice_source
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
LIMITS = {"pictures": Limits(Rate(10, "s"), 2)}
ALIASES = ("d", "t", "c", "tr", "a", "f", "i")


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every statement executed by any connection."""
    seen: list[str] = []
    original = writer.connect

    def traced(path: Path, *, read_only: bool) -> sqlite3.Connection:
        connection = original(path, read_only=read_only)
        connection.set_trace_callback(seen.append)
        return connection

    monkeypatch.setattr(writer, "connect", traced)
    monkeypatch.setattr(readers, "connect", traced)
    return seen


def run_a_life(store: SqliteStore, limits: Mapping[str, Limits] = LIMITS) -> None:
    """Run every operation on a task once."""
    slots = WorkerSlots(4, limits=lambda: limits)
    ingest = Ingest(store, [subscription("pictures"), subscription("mail", after="pictures")])
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, deadline_at=NOW))
    store.polling.claim_overdue(NOW, NOW + 1, 4)
    store.polling.postpone(store.queries.task("task-1"), NOW + 2)
    store.polling.next_deadline_at()
    store.polling.usual_duration("kling")
    ingest.accept(callback(body("processing")))
    ingest.accept(callback(body("succeed")))
    ingest.accept(callback(body("succeed")))
    ingest.accept(callback(body("failed")))
    store.polling.query_at("task-1", NOW)
    store.outbox.next_due_at(NOW, slots)
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1, 4, slots)
    store.outbox.renew([delivery], NOW + 2)
    notice_source(store, delivery)
    store.outbox.expired(NOW)
    failing = Endpoint("pictures", 1, NOW)
    attempt = Attempt(1, NOW, NOW, "delivered", "ok")
    store.outbox.settle(delivery, attempt, State.DELIVERED, None, change=lambda _: (failing, None))
    store.endpoints.of("pictures")
    store.metrics.backlog(NOW)
    store.outbox.redeliver(delivery.id, NOW)
    store.repair.redeliver_all(DeliverySelection(), NOW)
    store.repair.catch_up(subscription("later"), NOW, NOW)
    store.endpoints.take_alerts(NOW, NOW)
    store.retention.prune(NOW)
    store.inbox.keep_inputs("task-1", {"human": b"small"})
    store.queries.inputs("task-1")
    store.retention.prune_inputs(NOW)
    store.erasures.close_task("task-1", NOW)
    store.queries.task_by_provider_id("kling", "828338674605220001")
    store.queries.history("task-1")
    for kind in ActivityKind:
        store.activity.newest(kind)
    store.queries.charges(ALWAYS)
    store.lists.tasks(reference="ORDER-7")
    store.lists.page_of_tasks(before=None, limit=7, reference="ORDER-7", account="default")
    store.lists.page_of_deliveries(before=9, limit=7, task_id="task-1")
    store.queries.delivery(delivery.id)
    look_around(store)
    held = store.idempotency.claim("key", b"digest", "task-2", NOW, NOW + 1)
    assert held is not None
    store.idempotency.find("key", NOW)
    store.idempotency.settle(held, NOW, None)
    store.idempotency.release(held)
    store.activity.heartbeat("w", "worker", NOW)
    store.metrics.open_tasks(NOW)
    store.metrics.add([Sample("a", (), 1)], [Sample("b", (), 1)])


def look_around(store: SqliteStore) -> None:
    """Run every query of the pages."""
    store.metrics.task_counts()
    store.metrics.delivery_counts()
    store.metrics.hours(0)
    store.metrics.last_callbacks()
    store.metrics.overdue_count(NOW)
    store.lists.page_of_tasks(
        status=tuple(Status), before=None, limit=7, created=TimeRange(since=0, until=NOW)
    )
    store.lists.page_of_tasks(
        status=(Status.FAILED,), before=9, limit=7, provider="kling", reference="R"
    )
    store.queries.tasks_by_id(["task-1"])
    store.queries.pictures(["task-1"])
    store.queries.results(["task-1"])
    store.queries.attempts(store.lists.deliveries(task_id="task-1"))
    store.lists.page_of_quarantine(before=None, limit=7)
    store.lists.page_of_deliveries(before=9, limit=7, hook="mail")
    store.lists.page_of_deliveries(before=9, limit=7, hook="mail", state=State.DEAD)


def scans(path: Path, statements: list[str]) -> list[str]:
    """Return the plan steps that scan a whole growing table, with their statements."""
    connection = sqlite3.connect(path)
    found = []
    for statement in dict.fromkeys(statements):
        if statement.split(None, 1)[0].lower() not in ("select", "insert", "update", "delete"):
            continue
        for row in connection.execute(f"explain query plan {statement}"):
            step = str(row[3])
            words = step.replace("SCAN TABLE", "SCAN").split()
            # A scan in the order of an index or row key stops at its LIMIT.
            stops = "order by" in statement and "limit" in statement and "TEMP" not in step
            if words[0] == "SCAN" and words[1] in (*GROWING, *ALIASES) and not stops:
                found.append(f"{step}\n{statement}")
    connection.close()
    return found


def test_no_hot_statement_scans_a_growing_table(statements: list[str], tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    statements.clear()
    run_a_life(store)
    store.close()
    assert len(statements) > 40
    assert "insert into pacing" in "\n".join(statements)
    assert scans(tmp_path / "receiver.db", statements) == []


def test_hooks_without_limits_cost_no_statement(statements: list[str], tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    statements.clear()
    run_a_life(store, {})
    store.close()
    assert [statement for statement in statements if "pacing" in statement] == []


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.lists.page_of_quarantine(before=None, limit=7),
        lambda store: store.repair.quarantined(0),
    ],
)
def test_the_quarantine_is_read_by_its_index(
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


def test_replaced_results_are_read_by_their_index(statements: list[str], tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    statements.clear()
    store.event_log.revisions(Position(9_000_000))
    store.close()
    (statement,) = [one for one in statements if "revision > 0" in one]
    connection = sqlite3.connect(tmp_path / "receiver.db")
    (plan,) = connection.execute(f"explain query plan {statement}").fetchall()
    connection.close()
    assert "transitions_revised (recorded_at>?)" in plan[3]


def test_a_scan_would_be_detected(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "receiver.db")
    store.migrate()
    slow = "select * from deliveries where state = 'delivered' and due_at <= 1"
    assert scans(tmp_path / "receiver.db", [slow]) != []

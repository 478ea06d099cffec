"""`receiver copy`: a full record is copied completely to PostgreSQL, and can be used there."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner, Result

from receiver.cli import copy as cli_copy
from receiver.cli import main
from receiver.deliveries import Attempt, File, State
from receiver.delivery.worker_slots import WorkerSlots
from receiver.endpoints import AlertKind, Endpoint, Limits, Rate
from receiver.ingest import Ingest
from receiver.observability.metrics import Sample
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql import transfer
from receiver.stores.sql.activity import ActivityKind, Rejection
from receiver.stores.sql.sessions import Allowance, Usage
from receiver.stores.sql.transfer import TABLES, Page, Transfer
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task
from tests.support.filled_records import filled
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000


@pytest.fixture
def url(postgres_url: str) -> Iterator[str]:
    """The URL of a database that is not migrated."""
    name = f"copy_{uuid4().hex}"
    with psycopg.connect(postgres_url, autocommit=True) as server:
        server.execute(f"create database {name}".encode())
        yield f"{postgres_url.rpartition('/')[0]}/{name}"
        server.execute(f"drop database {name} with (force)".encode())


@pytest.fixture
def target(url: str) -> Iterator[PostgresStore]:
    made = PostgresStore(url)
    yield made
    made.close()


EMPTY = "copy: the source is empty; both databases are the same\n"


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["copy", *arguments])


def grown(store: SqliteStore) -> None:
    """A record with rows in every table."""
    ingest = Ingest(store, [subscription("mail"), subscription("slack", after="mail")])
    for number in range(700):  # more than one read returns
        raw = body("succeed", f"p-{number}", padding="é\U0001f9e5" * (number % 7))
        ingest.accept(callback(raw, f"task-{number}", headers={"X-Name": "é"}))
    store.inbox.create_task(Task("open", "kling", Status.CREATED, NOW, NOW, reference="ORDER-7"))
    store.inbox.create_task(filled(Task, id="full"))
    store.inbox.keep_inputs("open", {"human": b"\x00\xff small", "cloth": b""})
    slots = WorkerSlots(4, limits=lambda: {"mail": Limits(Rate(10, "s"))})
    (delivery,) = store.outbox.claim("w", NOW, NOW + 1, 1, slots)
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png", b"\x00\xff small")
    endpoint = Endpoint("mail", 5, NOW, 1, NOW, said="no")
    store.outbox.settle(
        delivery,
        Attempt(1, NOW, NOW, "delivered", "ok"),
        State.DELIVERED,
        None,
        [file],
        change=lambda _: (endpoint, AlertKind.PAUSED),
    )
    store.inbox.quarantine(callback(b"{}", None), "not the protocol")  # type: ignore[arg-type]
    store.activity.add_rejections([Rejection(NOW, "203.0.113.9", "wrong token", "POST", "/x", 2)])
    store.polling.pause("kling:default", NOW)
    store.idempotency.claim("key", b"\x00digest", "open", NOW, NOW + 1)
    ingest.accept(callback(body("failed"), "task-0"))  # a conflict is counted
    store.erasures.close_task("task-9", NOW)
    store.endpoints.request_test("mail", "succeeded", NOW)
    store.metrics.add([Sample("a", ("é",), 0.1)], [])
    store.sessions.open("ab" * 32, NOW, NOW + 1)
    store.sessions.add_refused_attempts(
        Allowance("password", 10, 0.1), [Usage(7, "cd" * 16, 2.5, NOW)], NOW
    )
    for offset in (0, -3_600_000):  # the clock is set back
        store.clocks.correct_clock("boot", offset, NOW)


COUNTS = {
    "task_counts": "provider, status",
    "delivery_counts": "hook, state",
    "hours": "provider, series, bucket, hour",
}


def counted(store: Store) -> list[set[tuple[object, ...]]]:
    """Return the counts of the triggers, summed over their slots."""
    found = []
    with store.database.reading() as session:
        for table, of in COUNTS.items():
            sql = f"select {of}, sum(value) from {table} group by {of} having sum(value) <> 0"  # noqa: S608
            found.append({tuple(dict(row).values()) for row in session.execute(sql).fetchall()})
    return found


def test_a_full_record_is_copied_completely(
    store: SqliteStore, target: PostgresStore, url: str, tmp_path: Path
) -> None:
    grown(store)
    assert all(Transfer(store.database).count(table) for table in TABLES)
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert done.exit_code == 0, done.output
    assert "tasks: 702," in done.output
    assert done.stdout.endswith("both databases are the same\n")
    assert {table: Transfer(store.database).count(table) for table in TABLES} == {
        table: Transfer(target.database).count(table) for table in TABLES
    }
    assert [one.hook for one in target.endpoints.tests()] == ["mail"]
    for task in ("task-0", "task-9", "task-699", "open", "full"):
        assert target.queries.history(task) == store.queries.history(task)
    assert target.queries.inputs("open") == store.queries.inputs("open") != {}
    assert counted(target) == counted(store)


def test_the_copy_continues_where_the_record_was(
    store: SqliteStore, target: PostgresStore, url: str, tmp_path: Path
) -> None:
    grown(store)
    run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    waiting = [
        f"delivery {found.id}"
        for found in target.lists.deliveries(state=State.PENDING, limit=2000)
        if found.due_at is not None
    ]
    with psycopg.connect(url) as connection:
        jobs = connection.execute("select queueing_lock from procrastinate_jobs").fetchall()
    assert sorted(name for (name,) in jobs) == sorted(waiting)  # waiting deliveries have jobs
    ingest = Ingest(target, [subscription("mail")])
    assert ingest.accept(callback(body("succeed", "p-5"), "task-5")) is Outcome.DUPLICATE
    assert ingest.accept(callback(body(), "new")) is Outcome.RECORDED
    newest = target.lists.deliveries(limit=1)[0]
    assert newest.task_id == "new"
    assert newest.id > store.lists.deliveries(limit=1)[0].id
    (claimed,) = target.outbox.claim("w", NOW, NOW + 1, 1)
    again = Attempt(1, NOW, NOW + 5, "delivered", "ok")
    assert target.outbox.settle(claimed, again, State.DELIVERED, None)
    assert target.activity.newest(ActivityKind.ATTEMPT)[0].at == NOW + 5
    target.activity.add_rejections([Rejection(NOW, "203.0.113.9", "again", "POST", "/x")])
    assert target.activity.rejections(1)[0].reason == "again"


class Interruption(Exception):
    """The copy was interrupted."""


def test_an_interrupted_copy_is_completed_by_the_same_command(
    store: SqliteStore,
    target: PostgresStore,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grown(store)
    arguments = ("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    monkeypatch.setattr(transfer, "PAGE", 100)
    load, calls = Transfer.load, count(1)

    def interrupted(self: Transfer, table: str, page: Page) -> None:
        if next(calls) == 12:
            raise Interruption
        load(self, table, page)

    with monkeypatch.context() as patched:
        patched.setattr(Transfer, "load", interrupted)
        assert isinstance(run(*arguments).exception, Interruption)
    assert 0 < Transfer(target.database).count("callbacks") < 700
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith("both databases are the same\n")
    assert counted(target) == counted(store)
    assert run(*arguments).stdout == done.stdout  # a complete copy is only compared


def test_a_target_that_differs_from_the_source_is_not_completed(
    store: SqliteStore, target: PostgresStore, url: str, tmp_path: Path
) -> None:
    Ingest(store).accept(callback(body(), "ours"))
    arguments = ("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert run(*arguments).exit_code == 0
    Ingest(target).accept(callback(body("succeed"), "ours"))
    Ingest(store).accept(callback(body(task_id="p-2"), "second"))
    done = run(*arguments)
    assert done.exit_code == 1
    assert "the target is not empty" in done.output
    assert [task.id for task in target.lists.tasks()] == ["ours"]


def test_progress_is_printed_without_a_terminal_too(
    store: SqliteStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(store).accept(callback(body(), "ours"))
    monkeypatch.setattr(cli_copy, "REPORT_EVERY", 0)
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert "copy: 1 of 1 tasks copied\n" in done.stderr
    assert "copy: 1 of 1 tasks compared\n" in done.stderr


def test_an_empty_record_can_be_copied_too(store: SqliteStore, url: str, tmp_path: Path) -> None:
    store.check_schema()
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert (done.exit_code, done.output) == (
        0,
        EMPTY,
    )


def test_a_target_that_is_not_empty_is_refused(
    store: SqliteStore, target: PostgresStore, url: str, tmp_path: Path
) -> None:
    target.migrate()
    Ingest(target).accept(callback(body(), "theirs"))
    Ingest(store).accept(callback(body(), "ours"))
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert done.exit_code == 1
    assert "the target is not empty" in done.output
    assert [task.id for task in target.lists.tasks()] == ["theirs"]


def test_a_difference_is_reported(
    store: SqliteStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Ingest(store).accept(callback(body(), "ours"))
    load = Transfer.load

    def changed(self: Store, table: str, found: list[dict[str, object]]) -> None:
        rows = [{**row, "headers": "{ }"} if "headers" in row else row for row in found]
        load(self, table, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(Transfer, "load", changed)
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert done.exit_code == 1
    assert "the table callbacks is not the same in both" in done.output


def test_a_source_that_is_still_in_use_is_reported(
    store: SqliteStore, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows copied later refer to a task that was added after its table had been copied."""
    Ingest(store).accept(callback(body(), "early"))
    count_rows = Transfer.count

    def counted_late(self: Transfer, table: str) -> int:
        if table == "transitions":
            Ingest(store).accept(callback(body(task_id="late"), "late"))
        return count_rows(self, table)

    monkeypatch.setattr(Transfer, "count", counted_late)
    source = f"sqlite:///{tmp_path / 'receiver.db'}"
    for target in (f"sqlite:///{tmp_path / 'target.db'}", url):
        done = run("--from", source, "--to", target)
        assert done.exit_code == 1
        assert "a process still writes to the source" in done.output
        assert "Traceback" not in done.output


def test_data_that_the_target_cannot_store_is_reported(
    store: SqliteStore, url: str, tmp_path: Path
) -> None:
    store.inbox.create_task(Task("a", "kling", Status.CREATED, NOW, NOW, reference="a\0b"))
    done = run("--from", f"sqlite:///{tmp_path / 'receiver.db'}", "--to", url)
    assert done.exit_code == 1
    assert "the target rejects a row of the table tasks" in done.output
    assert "Traceback" not in done.output


def test_a_missing_source_is_reported(url: str, tmp_path: Path) -> None:
    done = run("--from", f"sqlite:///{tmp_path / 'nothing.db'}", "--to", url)
    assert done.exit_code == 1
    assert "does not exist yet" in done.output

"""Every field of a stored record is read as it was written: as a row, as JSON, and as a schema.

The records are created from the fields of their classes. A new field fails these tests until it is
stored, and until it is shown as JSON or is listed below as one that is not shown.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from datetime import datetime
from typing import Any

import pytest
from marshmallow import Schema
from marshmallow.fields import List, Nested

from receiver.deliveries import Attempt, Delivery, File, State, Transition, task_json
from receiver.endpoints import Alert, AlertKind, Endpoint
from receiver.events import Callback, Event, Source
from receiver.observability.metrics import Sample
from receiver.serializers import records, schemas
from receiver.stores.base import Store
from receiver.stores.sql.activity import Activity, ActivityKind, ProcessProblem, Rejection
from receiver.stores.sql.endpoint_status import endpoint_statuses
from receiver.stores.sql.endpoints import HookTest, HookTestOutcome
from receiver.stores.sql.idempotency import IdempotencyRecord, StoredResponse
from receiver.stores.sql.metrics import CONFLICTS, Counter
from receiver.stores.sql.queries import Charge, TaskHistory
from receiver.stores.sql.rows import ALWAYS, StoredCallback, column_value
from receiver.stores.sql.sessions import Allowance, Usage
from receiver.tasks import IdSource, Outcome, Status, Task, Trust
from receiver.text.display import rfc3339
from tests.support.attempts import notice_source
from tests.support.filled_records import NOW, filled
from tests.support.samples import subscription

# The JSON names of fields that have different names there.
RENAMED = {
    Task: {"asked": "queries"},
    Callback: {"task_id": "task"},
    Delivery: {"task_id": "task"},
    Activity: {"kind": "event", "task_id": "task"},
}
NOT_SHOWN = {
    Transition: {"revision"},  # it is part of the id of the event
    Delivery: {"retries_from"},  # it only limits the retries
    StoredCallback: {"callback"},  # its fields are shown as those of the message
    Endpoint: {"openings", "timed_out"},  # they are the memory of the circuit breaker
    Activity: {"key"},  # it is a position in the list
}


_OLD_TASK = f"""
insert into tasks (id, provider, account, status, trust, created_at, updated_at)
values ('old', 'kling', 'default', 'created', 'token', {NOW}, {NOW})
"""  # noqa: S608 - names from this file


def assert_shown(record: Any, document: dict[str, Any]) -> None:
    """Check that each field of the record is a member of the document, with the same value."""
    cls = type(record)
    for field in fields(record):
        if field.name not in NOT_SHOWN.get(cls, ()):
            name = RENAMED.get(cls, {}).get(field.name, field.name)
            value = getattr(record, field.name)
            assert document[name] == _plain(field.name, value), name


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    is_time = name.endswith(("_at", "_since")) or name == "at"
    return rfc3339(value) if is_time and value is not None else value


def assert_described(schema: Schema, document: dict[str, Any]) -> None:
    """Check that the schema declares every member of the document, and reads its value."""
    assert schema.fields.keys() == document.keys()
    loaded = schema.load(document)
    for name, field in schema.fields.items():
        if isinstance(field, List) and isinstance(field.inner, Nested):
            assert document[name], f"there is no {name} to compare"
            for one in document[name]:
                assert_described(field.inner.schema, one)
        elif isinstance(loaded[name], datetime):
            assert rfc3339(round(loaded[name].timestamp() * 1000)) == document[name], name
        else:
            assert loaded[name] == document[name], name


def event(status: Status, **more: Any) -> Event:
    given = {"unknown": {"a": 1}, "dropped": ("b: must be text",), "media": (), "lost_outputs": ()}
    values = {"provider": "kling", "status": status, "external_task_id": None, **given, **more}
    return Event(**{**_event_texts(), **values})


def _event_texts() -> dict[str, Any]:
    return {"provider_task_id": "p-1", "occurred_at": NOW - 7, "reason": "why", "cost": "1.5"}


def message(**more: Any) -> Callback:
    """Return a message whose fields differ from their defaults, except those in `more`."""
    body = '{"a": "é"}'.encode()
    sent = filled(Callback, provider="kling", task_id="t", body=body, headers={"A": "é"})
    return replace(sent, **more)


def a_history(store: Store) -> TaskHistory:
    """Return the history of a task with one row of each kind."""
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    store.inbox.record(message(), event(Status.FAILED), [subscription("mail")])
    claim_and_settle(store, State.DELIVERED)
    return store.queries.history("t")


def claim_and_settle(store: Store, state: State, **more: Any) -> tuple[Attempt, File]:
    (delivery,) = store.outbox.claim("w", NOW * 2, NOW * 2, 1)
    attempt = filled(Attempt, number=delivery.attempts, outcome="failed")
    file = filled(File)
    assert store.outbox.settle(delivery, attempt, state, None, [file], **more)
    return attempt, file


def overwrite(store: Store, table: str, record: Any, leave: set[str]) -> None:
    """Write the fields of the record to all rows of its table, except those from other tables."""
    values = {name: value for name, value in asdict(record).items() if name not in leave}
    plain = [column_value(one) for one in values.values()]
    changes = ", ".join(f"{name} = ?" for name in values)
    store.database.write(
        lambda session: session.execute(f"update {table} set {changes}", plain)  # noqa: S608
    )


def test_a_task_is_read_as_it_was_written(store: Store) -> None:
    task = filled(Task)
    store.inbox.create_task(task)
    assert store.queries.task(task.id) == task
    assert store.lists.tasks() == [task]
    document = records.history_json(store.queries.history(task.id))
    assert_shown(task, document)
    assert task_json(task).items() <= document.items()
    assert_described(schemas.TaskDocument(), task_json(task))
    with store.database.reading() as session:
        row = session.execute("select * from tasks").fetchone()
    for field in fields(task):
        stored, value = row[field.name], getattr(task, field.name)
        assert (json.loads(stored) if field.name == "metadata" else stored) == value, field.name


def test_a_task_of_an_older_database_has_no_metadata(lacking: Callable[..., Store]) -> None:
    store = lacking("0019_metadata")
    store.database.write(lambda session: session.execute(_OLD_TASK))
    assert store.migrate() == ["0019_metadata"]
    store.check_schema()
    assert store.queries.task("old").metadata == {}


@pytest.mark.parametrize("damaged", ["{", "[1]", "null", '"text"'])
def test_damaged_metadata_are_read_as_none(store: Store, damaged: str) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW, metadata={"a": 1}))
    store.database.write(
        lambda session: session.execute("update tasks set metadata = ?", (damaged,))
    )
    assert store.queries.task("t").metadata == {}


def test_a_task_of_an_older_database_has_no_model(lacking: Callable[..., Store]) -> None:
    store = lacking("0018_models")
    store.database.write(lambda session: session.execute(_OLD_TASK))
    assert store.migrate() == ["0018_models"]
    store.check_schema()
    assert store.queries.task("old") == Task("old", "kling", Status.CREATED, NOW, NOW)


@pytest.mark.parametrize("source", IdSource)
def test_a_task_keeps_the_source_of_its_id(store: Store, source: IdSource) -> None:
    task = filled(Task, id_source=source)
    store.inbox.create_task(task)
    assert store.queries.task(task.id) == task


def test_a_task_without_optional_values_is_read_as_it_was_written(store: Store) -> None:
    task = Task("t", "kling", Status.CREATED, NOW, NOW)
    store.inbox.create_task(task)
    assert store.queries.task("t") == task


def test_a_history_has_every_member_of_its_schema_and_no_other(store: Store) -> None:
    document = records.history_json(a_history(store), hooks=["mail"])
    assert_described(schemas.HistoryDocument(), document)


def test_a_callback_is_read_as_it_was_written(store: Store) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    sent = message()
    for _ in range(3):
        store.inbox.quarantine(sent, "not JSON é")
    (found,) = store.lists.callbacks()
    assert found == StoredCallback(found.id, sent, Outcome.QUARANTINED, 2, "not JSON é")
    document = records.callback_json(found)
    assert_shown(found, document)
    assert_shown(sent, document)
    assert_described(schemas.CallbackDocument(), document)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("trust", Trust)
def test_a_recorded_message_is_read_as_it_was_written(
    store: Store, source: Source, trust: Trust
) -> None:
    sent = message(source=source, trust=trust)
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    store.inbox.record(sent, event(Status.FAILED), [])
    (found,) = store.queries.history("t").callbacks
    assert found == StoredCallback(found.id, sent, Outcome.RECORDED, 0, "b: must be text")


def test_an_event_is_recorded_with_its_task_and_transition(store: Store) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW, reference="r"))
    sent = message(received_at=NOW + 9)
    store.inbox.record(sent, event(Status.FAILED, cost_unit="units"), [])
    task = store.queries.task("t")
    assert (task.reason, task.cost, task.cost_unit) == ("why", "1.5", "units")
    assert (task.provider_task_id, task.updated_at, task.trust) == ("p-1", NOW + 9, sent.trust)
    (_, move) = store.queries.history("t").transitions
    assert move == Transition("failed", NOW - 7, NOW + 9, sent.trust)
    (charge,) = store.queries.charges(ALWAYS)
    assert charge == Charge(charge.row, "kling", "default", "r", NOW, "1.5", "units")


def test_a_transition_is_read_as_it_is_stored(store: Store) -> None:
    a_history(store)
    move = filled(Transition, status="succeeded")
    store.database.write(
        lambda session: session.execute("delete from transitions where status = 'created'")
    )
    overwrite(store, "transitions", move, leave=set())
    history = store.queries.history("t")
    assert history.transitions == (move,)
    (document,) = records.history_json(history)["transitions"]
    assert_shown(move, document)


def test_a_delivery_is_read_as_it_is_stored(store: Store) -> None:
    a_history(store)
    (before,) = store.lists.deliveries()
    delivery = filled(Delivery, id=before.id, task_id="t", status="failed")
    overwrite(store, "deliveries", delivery, leave={"id", "task_id", "status"})
    assert store.queries.delivery(before.id) == delivery
    document = records.delivery_json(delivery, hooks=[])
    assert_shown(delivery, document)
    assert_described(schemas.DeliveryDocument(), document)


def test_an_attempt_and_its_file_are_read_as_they_were_written(store: Store) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    store.inbox.record(message(), event(Status.FAILED), [subscription("mail")])
    attempt, file = claim_and_settle(store, State.DEAD)
    history = store.queries.history("t")
    (delivery,) = history.deliveries
    assert history.attempts == {delivery.id: (attempt,)}
    assert history.files == {delivery.id: (file,)}
    assert store.queries.picture(delivery.id, file.media_index) == file
    source = notice_source(store, delivery)
    assert (source.notice.files, source.callback) == ((file,), message())
    assert source.notice.task == history.task
    (document,) = records.history_json(history)["deliveries"]
    assert_shown(attempt, document["answers"][0])
    assert document["files"] == [file.url]


def test_an_endpoint_and_its_alert_are_read_as_they_were_written(store: Store) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    store.inbox.record(message(), event(Status.FAILED), [subscription("mail")])
    endpoint = filled(Endpoint, hook="mail")
    claim_and_settle(store, State.DEAD, change=lambda _: (endpoint, AlertKind.DISABLED))
    assert store.endpoints.of("mail") == endpoint
    assert store.endpoints.all() == [endpoint]
    (status,) = endpoint_statuses(store, ["mail"], NOW)
    assert_shown(endpoint, records.endpoint_json(status))
    (alert,) = store.endpoints.take_alerts(NOW + 1000, NOW + 2000)
    ended_at = store.queries.history("t").deliveries[0].ended_at
    assert ended_at is not None
    assert alert == Alert(alert.id, "mail", AlertKind.DISABLED, ended_at, endpoint.said)


def test_a_test_event_is_read_as_it_was_written(store: Store) -> None:
    store.endpoints.request_test("mail", "failed", NOW)
    (claimed,) = store.endpoints.claim_tests(NOW, NOW + 5)
    assert store.endpoints.end_test(claimed, HookTestOutcome.FAILED, "answer é", NOW + 2)
    test = HookTest("mail", "failed", NOW, 1, NOW + 2, HookTestOutcome.FAILED, "answer é")
    assert store.endpoints.tests() == [test]


def test_a_rejection_is_read_as_it_was_written(store: Store) -> None:
    rejection = filled(Rejection)
    store.activity.add_rejections([rejection])
    assert store.activity.rejections() == [rejection]
    assert_shown(rejection, records.rejection_json(rejection))


def test_the_problem_of_a_process_is_read_as_it_was_written(store: Store) -> None:
    problem = filled(ProcessProblem)
    store.activity.report_problem(problem.name, problem.kind, problem.problem, problem.seen_at)
    assert store.activity.process_problems(0) == [problem]


def test_activity_contains_its_task(store: Store) -> None:
    task = filled(Task, id="t", provider="kling", status=Status.PROCESSING, id_source="query")
    task = replace(task, provider_task_id=None, id_source=None, conflict=False)
    store.inbox.create_task(task)
    store.inbox.record(message(), event(Status.FAILED), [subscription("mail")])
    claim_and_settle(store, State.DEAD)
    for kind in ActivityKind:
        newest = store.activity.newest(kind)[0]
        assert (newest.kind, newest.task_id, newest.provider) == (kind, "t", "kling")
        assert (newest.account, newest.reference) == (task.account, task.reference)
        assert_shown(newest, records.activity_json(newest))


def test_an_idempotency_key_is_read_as_it_was_written(store: Store) -> None:
    written = filled(IdempotencyRecord, answer=filled(StoredResponse))
    claimed = store.idempotency.claim(
        written.key, written.digest, written.task_id, NOW, written.held_until
    )
    assert claimed == replace(written, answer=None)
    store.idempotency.settle(claimed, written.held_until, written.answer)
    assert store.idempotency.find(written.key, NOW) == written


def test_refused_attempts_and_samples_are_read_as_they_were_written(store: Store) -> None:
    usage, allowance = filled(Usage, at=NOW), Allowance("password", 10, 0.1)
    store.sessions.add_refused_attempts(allowance, [usage], NOW)
    assert store.sessions.refused_attempts(allowance, NOW) == [usage]
    sample = filled(Sample, labels=("a", "é"))
    store.metrics.add([sample], [])
    assert store.metrics.samples() == [sample]


def test_counters_and_clock_steps_are_read_as_they_were_written(store: Store) -> None:
    for status in (Status.SUCCEEDED, Status.FAILED):
        sent = message(body=status.encode(), source=Source.CALLBACK, trust=Trust.SIGNED)
        store.inbox.record(sent, event(status), [])
    assert store.metrics.counters() == [Counter(CONFLICTS, "kling", 1)]
    assert store.clocks.correct_clock("boot", 0, NOW) is None
    step = store.clocks.correct_clock("boot", 60_000, NOW + 60_000)
    assert step is not None
    assert store.clocks.clock_steps(0) == [step]


def test_inputs_are_read_as_they_were_written(store: Store) -> None:
    store.inbox.create_task(Task("t", "kling", Status.CREATED, NOW, NOW))
    inputs = {"human": b"\x00\xff", "cloth": b"small"}
    store.inbox.keep_inputs("t", inputs)
    assert store.queries.inputs("t") == inputs

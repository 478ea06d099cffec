"""Reconciliation: lost callbacks are replaced by queries."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from receiver.deliveries import Subscription
from receiver.ingest import Ingest
from receiver.outgoing.retry import LONGEST_WAIT
from receiver.stores.sql.metrics import CALLBACKS_MISSED
from receiver.stores.sqlite import SqliteStore
from receiver.tasks import Outcome, Status, Task, Trust
from submitter.client import Answer
from submitter.errors import (
    ConfigurationError,
    NeverReached,
    NotFoundAtProvider,
    ProviderError,
    TryLater,
    UnexpectedAnswer,
    WrongAccount,
    WrongInput,
)
from submitter.queries import GIVE_UP_AGE
from submitter.reconcile import LEASE_MS, Reconciler
from tests.support.attempts import notice_source
from tests.support.machine import Machine
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
SOON = NOW + 90_000


@dataclass
class FakeAdapter:
    """An adapter whose responses a test sets, and that records the queries."""

    name: str = "kling"
    has_callbacks: bool = True
    finds_by_our_id: bool = True
    usual_seconds: int = 30
    answers: list[bytes | ProviderError] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str | None, str | None]] = field(default_factory=list)

    def fetch(
        self, *, provider_task_id: str | None = None, external_task_id: str | None = None
    ) -> Answer:
        self.asked.append((provider_task_id, external_task_id))
        answer = self.answers.pop(0)
        if isinstance(answer, ProviderError):
            raise answer
        return Answer(200, self.headers, answer)


@dataclass
class Clock:
    now: int = SOON

    def __call__(self) -> int:
        return self.now


@dataclass
class Scene:
    store: SqliteStore
    adapter: FakeAdapter
    clock: Clock
    reconciler: Reconciler

    def put(self, task_id: str = "task-1", **more: Any) -> None:
        task = Task(
            task_id, "kling", Status.CREATED, NOW, NOW, deadline_at=SOON, expects_callback=True
        )
        self.store.inbox.create_task(replace(task, **more))

    def task(self, task_id: str = "task-1") -> Task:
        return self.store.queries.task(task_id)


HOOKS: list[Subscription] = [
    subscription("mail"),
    replace(subscription("alarm"), on=frozenset({"given_up"})),
]


@pytest.fixture
def scene(store: SqliteStore) -> Scene:
    adapter, clock = FakeAdapter(), Clock()
    reconciler = Reconciler(Ingest(store, HOOKS), lambda *_: adapter, clock)  # type: ignore[arg-type]
    return Scene(store, adapter, clock, reconciler)


def told(status: str = "succeed", **more: Any) -> bytes:
    return json.dumps({"code": 0, "data": json.loads(body(status, **more))}).encode()


def test_a_lost_callback_is_fetched_and_its_hooks_fire(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [told()]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert (scene.task().status, scene.task().trust) == (Status.SUCCEEDED, Trust.QUERIED)
    assert [delivery.hook for delivery in scene.store.lists.deliveries()] == ["mail"]
    assert [c.value for c in scene.store.metrics.counters() if c.name == CALLBACKS_MISSED] == [1]
    assert scene.store.polling.next_deadline_at() is None


def test_a_task_is_queried_by_the_providers_id_or_else_by_ours(scene: Scene) -> None:
    scene.put("known", provider_task_id="p-1")
    scene.put("unknown")
    scene.adapter.answers = [told("processing"), told("processing")]
    scene.reconciler.query_overdue()
    assert set(scene.adapter.asked) == {("p-1", None), (None, "unknown")}


CALLED_BACK = callback(body("processing", "from-a-callback"))


def test_an_id_from_a_callback_is_tried_after_our_own(scene: Scene) -> None:
    scene.put()
    Ingest(scene.store).accept(CALLED_BACK)
    scene.adapter.answers = [told(task_id="ours")]
    scene.reconciler.query_overdue()
    assert scene.adapter.asked == [(None, "task-1")]
    assert (scene.task().status, scene.task().provider_task_id) == (Status.SUCCEEDED, "ours")


@pytest.mark.parametrize("unknown", [NotFoundAtProvider, WrongInput, UnexpectedAnswer])
def test_a_task_created_elsewhere_is_queried_by_the_id_from_its_callback(
    scene: Scene, unknown: type[ProviderError]
) -> None:
    scene.put()
    Ingest(scene.store).accept(CALLED_BACK)
    scene.adapter.answers = [unknown("no such task"), told(task_id="from-a-callback")]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.adapter.asked == [(None, "task-1"), ("from-a-callback", None)]


@pytest.mark.parametrize("error", [TryLater("slowly"), WrongAccount("no key"), NeverReached("no")])
def test_an_error_unrelated_to_the_id_costs_one_request(scene: Scene, error: ProviderError) -> None:
    scene.put()
    Ingest(scene.store).accept(CALLED_BACK)
    scene.adapter.answers = [error]
    scene.reconciler.query_overdue()
    assert scene.adapter.asked == [(None, "task-1")]


def test_the_id_of_callbacks_is_tried_if_nothing_else_is_known(scene: Scene) -> None:
    scene.put(provider="appypie")
    scene.adapter = FakeAdapter(
        "appypie", finds_by_our_id=False, answers=[told(task_id="from-a-callback")]
    )
    scene.reconciler.open_adapter = lambda *_: scene.adapter  # type: ignore[assignment]
    Ingest(scene.store).accept(replace(CALLED_BACK, provider="appypie"))
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.adapter.asked == [("from-a-callback", None)]


def test_a_mismatch_is_resolved_by_one_query(scene: Scene) -> None:
    scene.put(provider_task_id="ours")
    ingest = Ingest(scene.store, HOOKS)
    wrong = callback(body("succeed", "another"), received_at=SOON)
    assert ingest.accept(wrong) is Outcome.MISMATCH
    scene.adapter.answers = [told("succeed", task_id="ours")]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.adapter.asked == [("ours", None)]
    assert scene.store.polling.next_deadline_at() is None
    late = callback(body("failed", "another"), received_at=SOON + 1)
    assert ingest.accept(late) is Outcome.MISMATCH
    assert (
        scene.store.polling.next_deadline_at() is None
    )  # the provider reported the end, so there is nothing to query


def test_a_task_that_was_given_up_is_queried_again_on_request(
    scene: Scene,
) -> None:
    scene.put()
    scene.store.inbox.give_up("task-1", SOON, [])
    scene.store.polling.query_at("task-1", SOON)  # as "Reconcile now" does
    scene.clock.now = NOW + round(GIVE_UP_AGE * 1000)
    scene.adapter.answers = [told("processing")]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.store.polling.next_deadline_at() is None


def test_an_open_task_is_queried_again_later(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [told("processing"), told("processing", updated_at=1)]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.task().deadline_at == SOON + 90_000  # at 90 s of age: 90 s
    assert scene.reconciler.query_overdue() == {}
    scene.clock.now = SOON + 90_000
    assert scene.reconciler.query_overdue() == {"unchanged": 1}
    assert scene.task().deadline_at == SOON + 90_000 + 180_000


def test_at_its_final_age_a_task_is_given_up_and_reported(scene: Scene) -> None:
    scene.put()
    scene.clock.now = NOW + round(GIVE_UP_AGE * 1000)
    scene.adapter.answers = [told("processing")]
    scene.reconciler.query_overdue()
    assert (scene.task().status, scene.task().given_up_at) == (Status.PROCESSING, scene.clock.now)
    assert [(d.hook, d.status) for d in scene.store.lists.deliveries()] == [("alarm", "given_up")]


def test_a_clock_step_forward_gives_up_no_task(scene: Scene) -> None:
    scene.put(status=Status.PROCESSING)
    machine = Machine(NOW)
    watch = machine.watch(scene.store)
    watch.look()
    machine.set_clock(round(GIVE_UP_AGE * 1000))
    watch.look()
    scene.clock.now = machine.shown + 90_000
    scene.adapter.answers = [told("processing")]
    scene.reconciler.query_overdue()
    assert scene.task().given_up_at is None
    assert scene.task().deadline_at == scene.clock.now + 90_000  # at 90 s of age: 90 s


def test_a_provider_that_asks_for_years_is_queried_after_a_day(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [TryLater("busy", retry_after=999_999_999.0)]
    assert scene.reconciler.query_overdue() == {"later": 1}
    assert scene.task().deadline_at == scene.clock.now + round(LONGEST_WAIT * 1000)


def test_a_task_that_cannot_be_found_is_given_up_at_once(scene: Scene) -> None:
    """The response to a create was lost, and the provider cannot find tasks by our id."""
    scene.put()
    scene.adapter.finds_by_our_id = False
    assert scene.reconciler.query_overdue() == {"given up": 1}
    assert scene.adapter.asked == []
    assert scene.task().given_up_at == SOON


def test_a_task_that_the_provider_does_not_know_is_queried_again(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [NotFoundAtProvider("no such task")]
    assert scene.reconciler.query_overdue() == {"not found": 1}
    assert scene.task().status is Status.CREATED
    assert scene.task().deadline_at == SOON + 90_000


def test_an_account_that_has_to_wait_is_not_queried(scene: Scene) -> None:
    scene.put("one")
    scene.adapter.answers = [TryLater("too fast", retry_after=30)]
    assert scene.reconciler.query_overdue() == {"later": 1}
    assert scene.task("one").deadline_at == SOON + 30_000
    scene.put("two")
    scene.put("three", account="shop2")
    scene.adapter.answers = [told("processing")]
    assert scene.reconciler.query_overdue() == {"moved": 1}  # that of the other account
    assert scene.task("two").status is Status.CREATED


def test_an_exhausted_quota_pauses_its_account(scene: Scene) -> None:
    scene.put("one")
    reset = SOON // 1000 + 40
    scene.adapter.headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
    scene.adapter.answers = [told("processing")]
    scene.reconciler.query_overdue()
    scene.put("two")
    assert scene.reconciler.query_overdue() == {}
    scene.clock.now = reset * 1000
    scene.adapter.answers = [told("processing", updated_at=2)]
    assert scene.reconciler.query_overdue() == {"moved": 1}


@pytest.mark.parametrize("error", [WrongAccount("no key"), ProviderError("strange")])
def test_a_failed_query_is_repeated(scene: Scene, error: ProviderError) -> None:
    scene.put()
    scene.adapter.answers = [error]
    assert scene.reconciler.query_overdue() == {"failed": 1}
    assert scene.task().deadline_at == SOON + 90_000


def test_missing_keys_do_not_end_a_task(store: SqliteStore) -> None:
    def locked(*_: str) -> Any:
        raise ConfigurationError(["KLING_API_KEY is not set"])

    clock = Clock()
    reconciler = Reconciler(Ingest(store), locked, clock)
    store.inbox.create_task(Task("task-1", "kling", Status.CREATED, NOW, NOW, deadline_at=SOON))
    assert reconciler.query_overdue() == {"failed": 1}
    assert store.queries.task("task-1").deadline_at == SOON + 300_000


def test_an_unparsable_response_is_stored(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [told("strange")]
    assert scene.reconciler.query_overdue() == {"failed": 1}
    (kept,) = scene.store.lists.callbacks()
    assert kept.outcome == "quarantined"


def test_a_success_without_media_is_queried_again(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [told(task_result={"images": []}), told()]
    assert scene.reconciler.query_overdue() == {"unchanged": 1}
    assert scene.task().deadline_at == SOON + 90_000
    scene.clock.now = SOON + 90_000
    assert scene.reconciler.query_overdue() == {"moved": 1}
    assert scene.task().status is Status.SUCCEEDED


def test_a_task_that_ends_during_its_query_stays_ended(scene: Scene) -> None:
    scene.put()

    class Slow(FakeAdapter):
        def fetch(self, **_: str | None) -> Answer:
            Ingest(scene.store).accept(callback())  # the callback arrives late
            return Answer(200, {}, told("processing"))

    scene.reconciler.open_adapter = lambda *_: Slow()  # type: ignore[assignment]
    scene.reconciler.query_overdue()
    assert scene.task().status is Status.SUCCEEDED
    assert scene.store.polling.next_deadline_at() is None


def test_a_conflict_is_resolved_by_the_provider(scene: Scene) -> None:
    scene.put()
    ingest = Ingest(scene.store, HOOKS)
    ingest.accept(callback(body("failed")))
    ingest.accept(callback(body("succeed")))
    scene.adapter.answers = [told("succeed")]
    assert scene.reconciler.query_overdue() == {"moved": 1}
    history = scene.store.queries.history("task-1")
    assert history.task.status is Status.SUCCEEDED
    assert history.transitions[-1].corrected
    assert [delivery.status for delivery in history.deliveries] == ["failed", "succeeded"]


def test_a_result_that_no_longer_exists_gets_a_fresh_url(scene: Scene) -> None:
    scene.put()
    Ingest(scene.store, HOOKS).accept(callback())
    scene.store.polling.query_at("task-1", SOON)  # as the delivery does when the URL returns 404
    fresh = {"images": [{"index": 0, "url": "https://cdn.example/fresh.png"}]}
    scene.adapter.answers = [told(task_result=fresh)]
    assert scene.reconciler.query_overdue() == {"unchanged": 1}
    assert scene.store.polling.next_deadline_at() is None
    (delivery,) = scene.store.outbox.claim("w", SOON, SOON + 1, 5)
    stored = notice_source(scene.store, delivery).callback
    assert stored is not None
    assert b"fresh.png" in stored.body


def test_the_tasks_of_a_poller_that_died_are_queried_by_another(scene: Scene) -> None:
    scene.put()
    assert len(scene.store.polling.claim_overdue(SOON, SOON + LEASE_MS, 4)) == 1  # the process dies
    assert scene.reconciler.query_overdue() == {}
    scene.clock.now = SOON + LEASE_MS
    scene.adapter.answers = [told()]
    assert scene.reconciler.query_overdue() == {"moved": 1}


def test_the_poller_queries_at_a_deadline_and_stops(store: SqliteStore) -> None:
    adapter = FakeAdapter(answers=[told()])
    reconciler = Reconciler(Ingest(store), lambda *_: adapter)  # type: ignore[arg-type]
    stop = threading.Event()
    thread = threading.Thread(target=reconciler.run, args=(stop,))
    thread.start()
    try:
        made = Task("task-1", "kling", Status.CREATED, NOW, NOW, deadline_at=NOW)
        store.inbox.create_task(made)  # long overdue
        wait_until(lambda: store.queries.task("task-1").status is Status.SUCCEEDED)
        assert store.activity.last_seen("poller") is not None
    finally:
        stop.set()
        thread.join(PATIENCE)
    assert not thread.is_alive()


def test_every_response_of_a_provider_is_recorded(scene: Scene) -> None:
    scene.put()
    scene.adapter.answers = [told("processing")]
    scene.reconciler.query_overdue()
    (kept,) = scene.store.lists.callbacks()
    assert (kept.callback.body, kept.callback.source) == (told("processing"), "query")


def test_a_lost_output_is_fetched_by_one_query(scene: Scene) -> None:
    scene.put()
    first = {"index": 0, "url": "https://cdn.example/0.png"}
    second = {"index": 1, "url": "https://cdn.example/1.png"}
    ingest = Ingest(scene.store, HOOKS)
    ingest.accept(callback(body(task_result={"images": [first, None]})))
    scene.adapter.answers = [told(task_result={"images": [first, second]})]
    assert scene.reconciler.query_overdue() == {"unchanged": 1}
    assert scene.reconciler.query_overdue() == {}  # nothing is left to query
    (delivery,) = scene.store.outbox.claim("w", SOON, SOON + 1, 5)
    stored = notice_source(scene.store, delivery).callback
    assert stored is not None
    assert b"1.png" in stored.body


LOST = {"images": [{"index": 0, "url": "https://cdn.example/0.png"}, {"index": 1, "url": ""}]}


@pytest.mark.parametrize(
    "answer",
    [
        told(task_result=LOST),
        told(task_result={"images": []}),
        told("processing"),
        told("strange"),
        told("failed"),
        b"<html>",
        NotFoundAtProvider("no such task"),
    ],
)
def test_a_lost_output_that_the_provider_does_not_have_is_queried_once(
    scene: Scene, answer: bytes | ProviderError
) -> None:
    scene.put(provider_task_id="828338674605220001")  # that of `body`
    Ingest(scene.store, HOOKS).accept(callback(body(task_result=LOST)))
    scene.adapter.answers = [answer]
    assert scene.reconciler.query_overdue().total() == 1
    scene.clock.now += 3_600_000
    assert scene.reconciler.query_overdue() == {}
    assert len(scene.adapter.asked) == 1


@pytest.mark.parametrize("error", [WrongAccount("no key"), TryLater("too fast", retry_after=30)])
def test_a_lost_output_is_queried_again_if_the_query_failed(
    scene: Scene, error: ProviderError
) -> None:
    scene.put()
    Ingest(scene.store, HOOKS).accept(callback(body(task_result=LOST)))
    scene.adapter.answers = [error, told()]
    scene.reconciler.query_overdue()
    scene.clock.now += 3_600_000
    scene.reconciler.query_overdue()
    assert len(scene.adapter.asked) == 2
    assert scene.store.polling.next_deadline_at() is None

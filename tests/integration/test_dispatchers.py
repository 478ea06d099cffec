"""Every dispatcher survives exceptions of hooks, spares failing endpoints, and stops cleanly."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from receiver.clock import now_ms
from receiver.deliveries import Attempt, Notice, State
from receiver.delivery.attempt import LEASE, DeliveryWorker
from receiver.endpoints import AlertKind, Breaker, Circuit, Limits, Rate
from receiver.errors import EndpointGone, PermanentFailure, TemporaryFailure, TimedOut
from receiver.hooks.base import Done
from receiver.ingest import Ingest
from receiver.outgoing.retry import RetryPolicy
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.repair import DeliverySelection
from tests.support.dispatching import Start, delivered, dispatchers, stops_of_workers
from tests.support.patience import PATIENCE, wait_until
from tests.support.samples import body, callback, subscription

HOUR = 3_600  # seconds
OPENS_FOR_GOOD = Breaker(failures=3, seconds=0, pauses=(HOUR,))


@pytest.fixture(params=["sqlite", "postgres"])
def store(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    fresh: Callable[[], str],
    migrated: Callable[[Path], Store],
) -> Iterator[Store]:
    if request.param == "sqlite":
        made = migrated(tmp_path / "receiver.db")
    else:
        made = PostgresStore(fresh())
    yield made
    made.close()


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("receiver.delivery.procrastinate.EVERY", "* * * * * *")
    monkeypatch.setattr("receiver.delivery.procrastinate.FETCH_EVERY", 0.05)


@pytest.fixture
def start(store: Store) -> Iterator[Start]:
    with dispatchers(store) as started:
        yield started


def test_an_exception_of_a_hook_is_a_failed_attempt(store: Store, start: Start) -> None:
    def send(_: Notice) -> Done:
        raise ZeroDivisionError("a mistake of ours")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    wait_until(lambda: store.lists.deliveries()[0].state is State.DEAD)
    made = store.queries.history("task-1").attempts[1]
    assert [attempt.outcome for attempt in made] == ["failed"] * 3
    assert "ZeroDivisionError: a mistake of ours" in made[0].answer
    Ingest(store, [subscription("mail")]).accept(callback(body(), "task-2"))  # it still works
    wait_until(lambda: len(store.lists.deliveries(state=State.DEAD)) == 2)


def test_deliveries_run_concurrently(store: Store, start: Start) -> None:
    together = threading.Barrier(4, timeout=PATIENCE)

    def send(_: Notice) -> Done:
        together.wait()
        return Done("ok")

    for number, hook in enumerate(("mail", "slow", "other", "more")):
        Ingest(store, [subscription(hook)]).accept(callback(body(), f"task-{number}"))
    start(send, concurrency=4)
    wait_until(lambda: delivered(store) == 4)


def test_a_working_hook_uses_all_slots_but_one(store: Store, start: Start) -> None:
    together = threading.Barrier(3, timeout=PATIENCE)

    def send(notice: Notice) -> Done:
        if notice.task.id != "first":
            together.wait()
        return Done("ok")

    Ingest(store, [subscription("mail")]).accept(callback(body(), "first"))
    start(send, concurrency=4)
    wait_until(lambda: delivered(store) == 1)
    for number in range(3):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    wait_until(lambda: delivered(store) == 4)


def test_a_slow_hook_keeps_its_lease(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hook takes three leases; a second worker meanwhile takes only other work."""
    monkeypatch.setattr("receiver.delivery.attempt.UPKEEP_EVERY", 0.02)
    monkeypatch.setattr("receiver.delivery.leases.LONGEST_NAP", 0.02)
    lease, now = LEASE, [now_ms()]
    calls: list[str] = []
    go = threading.Event()

    def hold(notice: Notice) -> Done:
        calls.append(notice.id)
        assert go.wait(PATIENCE)
        return Done("ok")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(hold, concurrency=1, clock=lambda: now[0])
    wait_until(lambda: len(calls) == 1)
    start(lambda _: Done("ok"), clock=lambda: now[0])
    for number in range(4):
        now[0] += lease * 3 // 4
        wait_until(lambda: store.lists.deliveries(hook="mail")[0].due_at == now[0] + lease)
        Ingest(store, [subscription("slow")]).accept(callback(body(), f"other-{number}"))
        wait_until(lambda: delivered(store) == number + 1)  # noqa: B023 - called at once
    go.set()
    wait_until(lambda: delivered(store) == 5)
    assert len(calls) == 1
    outcomes = [attempt.outcome for attempt in store.queries.history("task-1").attempts[1]]
    assert outcomes == ["delivered"]


def test_the_deliveries_of_a_dead_worker_are_made_by_another(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.delivery.attempt.UPKEEP_EVERY", 0.05)
    monkeypatch.setattr("receiver.delivery.leases.LONGEST_NAP", 0.05)
    Ingest(store, [subscription("mail")]).accept(callback())
    now = 1_765_519_860_000
    assert len(store.outbox.claim("dead", now, now + 1, 1)) == 1
    start(lambda _: Done("ok"))
    wait_until(lambda: delivered(store) == 1)
    outcomes = [attempt.outcome for attempt in store.queries.history("task-1").attempts[1]]
    assert outcomes == ["abandoned", "delivered"]


def test_a_notification_is_sent_while_its_download_keeps_failing(
    store: Store, start: Start
) -> None:
    """The wait of two minutes ends one second from now."""
    wait_ms, received_at = 120_000, now_ms() - 119_000
    hooks = [subscription("slow"), subscription("mail", after="slow", wait_ms=wait_ms)]

    def send(_: Notice) -> Done:
        raise TemporaryFailure("the picture is not there yet", retry_after=HOUR)

    Ingest(store, hooks).accept(callback(received_at=received_at))
    running = start(send)
    running.hooks["mail"].send = lambda _: Done("ok")
    wait_until(lambda: delivered(store) == 1)
    history = store.queries.history("task-1")
    slow, mail = sorted(history.deliveries, key=lambda delivery: delivery.hook, reverse=True)
    assert slow.state is State.PENDING
    assert history.attempts[mail.id][0].started_at >= received_at + wait_ms


def started_workers(store: Store) -> int:
    with store.database.reading() as session:
        found = session.execute("select count(*) as workers from procrastinate_workers")
        return int(found.fetchone()["workers"])


def test_stopping_waits_for_running_attempts(store: Store, start: Start) -> None:
    entered, go = threading.Semaphore(0), threading.Event()

    def send(_: Notice) -> Done:
        entered.release()
        assert go.wait(PATIENCE)
        return Done("ok")

    for number in range(6):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    with stops_of_workers() as stops:
        running = start(send, concurrency=3)  # two of them for one hook
        for _ in range(2):
            assert entered.acquire(timeout=PATIENCE)
        if isinstance(store, PostgresStore):  # attempts may begin before Procrastinate's workers
            wait_until(lambda: started_workers(store) == 2)
        running.signal.set()
        if isinstance(store, PostgresStore):
            wait_until(lambda: stops() == 2)
        assert running.signal.was_seen.wait(PATIENCE)
        go.set()
        assert running.stop() is True
    assert delivered(store) == 2  # no new attempt began
    assert len(store.lists.deliveries(state=State.PENDING)) == 4


def test_a_worker_that_stops_while_it_waits_for_a_slot_begins_nothing(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits, entered, go = threading.Event(), threading.Event(), threading.Event()
    original = DeliveryWorker.wait_for_slot

    def wait_for_slot(worker: DeliveryWorker, _: float) -> bool:
        if not worker.open_slots:
            waits.set()
        return original(worker, 10 * PATIENCE)

    def send(_: Notice) -> Done:
        entered.set()
        assert go.wait(PATIENCE)
        return Done("ok")

    monkeypatch.setattr(DeliveryWorker, "wait_for_slot", wait_for_slot)
    for number in range(2):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    running = start(send, concurrency=1)
    assert entered.wait(PATIENCE)
    assert waits.wait(PATIENCE)
    running.signal.set()
    go.set()
    assert running.stop() is True
    assert delivered(store) == 1


def test_an_attempt_that_does_not_end_is_left_to_its_lease(store: Store, start: Start) -> None:
    entered, go = threading.Event(), threading.Event()

    def send(_: Notice) -> Done:
        entered.set()
        go.wait(PATIENCE)
        return Done("ok")

    Ingest(store, [subscription("mail")]).accept(callback())
    running = start(send, drain=0.3)
    assert entered.wait(PATIENCE)
    try:
        assert running.stop() is False
        assert store.lists.deliveries()[0].state is State.CLAIMED
    finally:
        go.set()


def test_a_retry_is_made_when_it_is_due_without_looking_at_the_queue(
    store: Store, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("receiver.delivery.procrastinate.EVERY", "0 0 1 1 * 0")  # no sweep
    monkeypatch.setattr("receiver.delivery.procrastinate.FETCH_EVERY", 10 * PATIENCE)
    monkeypatch.setattr("receiver.delivery.leases.LONGEST_NAP", 10 * PATIENCE)
    answers: list[Done | Exception] = [TemporaryFailure("no"), TemporaryFailure("no"), Done("ok")]

    def send(_: Notice) -> Done:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send, policy=RetryPolicy(delays=(0.3, 0.3)))
    wait_until(lambda: delivered(store) == 1)


def test_an_endpoint_that_hangs_does_not_block_the_others(store: Store, start: Start) -> None:
    """Forty deliveries wait for an endpoint that fails or hangs; another hook's is sent."""
    begun: list[str] = []
    failures, is_over = threading.Semaphore(3), threading.Event()

    def send(notice: Notice) -> Done:
        begun.append(notice.id)
        if not failures.acquire(blocking=False):
            assert is_over.wait(PATIENCE)
        raise TemporaryFailure("no answer")

    for number in range(40):
        Ingest(store, [subscription("slow")]).accept(callback(body(), f"slow-{number}"))
    running = start(send, concurrency=2, breaker=OPENS_FOR_GOOD)
    try:
        wait_until(lambda: store.endpoints.of("slow").circuit(now_ms()) is Circuit.OPEN)
        running.hooks["mail"].send = lambda _: Done("ok")
        Ingest(store, [subscription("mail")]).accept(callback(body(), "quick"))
        wait_until(lambda: delivered(store) == 1)
        # Three attempts failed, and at most one more had begun when the third did.
        assert len(begun) in (3, 4)
        made = [found.attempts for found in store.lists.deliveries(hook="slow", limit=99)]
        assert sum(made) == len(begun)
    finally:
        is_over.set()


def accept(store: Store, hook: str, deliveries: int) -> None:
    for number in range(deliveries):
        Ingest(store, [subscription(hook)]).accept(callback(body(), f"{hook}-{number}"))


def test_two_hooks_that_hang_do_not_delay_a_third(store: Store, start: Start) -> None:
    """They hang at their first attempts, before any timeout has shown that they hang."""
    begun, is_over = threading.Semaphore(0), threading.Event()

    def hang(_: Notice) -> Done:
        begun.release()
        assert is_over.wait(PATIENCE)
        raise TimedOut("no answer")

    for hook in ("mail", "slow"):
        accept(store, hook, 10)
    running = start(hang, concurrency=4)
    running.hooks["other"].send = lambda _: Done("ok")
    try:
        for _ in range(3):
            assert begun.acquire(timeout=PATIENCE)
        accept(store, "other", 6)
        wait_until(lambda: delivered(store) == 6)
        assert len(store.lists.deliveries(state=State.CLAIMED)) == 3  # they still hang
    finally:
        running.signal.set()
        is_over.set()


def test_a_hook_that_timed_out_has_one_attempt_at_a_time(store: Store, start: Start) -> None:
    """All its deliveries are made eventually, and concurrently once the endpoint works."""
    begun, may_end = threading.Semaphore(0), threading.Semaphore(0)
    works = threading.Event()

    def send(_: Notice) -> Done:
        begun.release()
        assert may_end.acquire(timeout=PATIENCE)
        if works.is_set():
            return Done("ok")
        raise TimedOut("no answer")

    policy = RetryPolicy(delays=(0.05,) * 20)
    accept(store, "mail", 1)
    running = start(send, concurrency=4, breaker=Breaker(failures=99), policy=policy)
    running.hooks["other"].send = lambda _: Done("ok")
    try:
        may_end.release()
        wait_until(lambda: store.endpoints.of("mail").timed_out)
        accept(store, "slow", 1)  # another hook that hangs
        for _ in range(3):  # the attempt that timed out, the next one, and that of the other hook
            assert begun.acquire(timeout=PATIENCE)
        for number in range(6):
            Ingest(store, [subscription("mail")]).accept(callback(body(), f"more-{number}"))
        accept(store, "other", 3)
        wait_until(lambda: delivered(store) == 3)  # it looked for work, and began no attempt
        assert not begun.acquire(blocking=False)
        works.set()
        may_end.release(99)
        wait_until(lambda: delivered(store) == 11)
        assert store.endpoints.all() == []
    finally:
        running.signal.set()
        may_end.release(99)


def test_a_healthy_delivery_is_not_delayed_by_abandoned_ones(store: Store, start: Start) -> None:
    """A delivery that kills its worker would be abandoned; such deliveries begin one by one."""
    begun, may_end = threading.Semaphore(0), threading.Event()

    def hang(notice: Notice) -> Done:
        if notice.task.id.startswith("mail"):
            begun.release()
            assert may_end.wait(PATIENCE)
        return Done("ok")

    now = now_ms()
    accept(store, "mail", 3)
    for delivery in store.outbox.claim("dead", now, now - 1, 3):
        ended = Attempt(1, now, now, "abandoned", "")
        assert store.outbox.settle(delivery, ended, State.PENDING, now)
    running = start(hang, concurrency=4)
    try:
        assert begun.acquire(timeout=PATIENCE)
        for number in range(4):
            Ingest(store, [subscription("mail")]).accept(callback(body(), f"healthy-{number}"))
        wait_until(lambda: delivered(store) == 4)
        assert not begun.acquire(blocking=False)
        may_end.set()
        wait_until(lambda: delivered(store) == 7)
    finally:
        running.signal.set()
        may_end.set()


def test_a_circuit_opens_and_closes_with_one_alert_each(store: Store, start: Start) -> None:
    """The endpoint fails until its circuit opens, and works from then on."""
    works = threading.Event()

    def send(_: Notice) -> Done:
        if works.is_set() or store.endpoints.of("mail").openings:
            works.set()
            return Done("ok")
        raise TemporaryFailure("refused")

    for number in range(8):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    # Four attempts run at a time, so that three that fail late do not open it a second time.
    start(send, breaker=Breaker(failures=4, seconds=0, pauses=(0.3,)))
    wait_until(lambda: delivered(store) == 8)  # the pause cost no attempt
    assert store.endpoints.all() == []
    alerts = store.endpoints.take_alerts(now_ms(), now_ms() + 60_000)
    assert [alert.kind for alert in alerts] == [AlertKind.PAUSED, AlertKind.RECOVERED]


def test_a_removed_hook_is_not_called_any_more(store: Store, start: Start) -> None:
    calls: list[str] = []

    def send(notice: Notice) -> Done:
        calls.append(notice.id)
        raise EndpointGone("it answered 410")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    wait_until(lambda: len(store.lists.deliveries(state=State.DEAD)) == 1)
    Ingest(store, [subscription("mail")]).accept(callback(body(), "task-2"))
    wait_until(lambda: len(store.lists.deliveries(state=State.DEAD)) == 2)
    assert len(calls) == 1
    (attempt,) = store.queries.history("task-2").attempts[2]
    assert "receiver endpoints resume mail" in attempt.answer
    assert "it answered 410" in attempt.answer


def test_deliveries_of_a_missing_hook_wait_until_it_is_back(store: Store, start: Start) -> None:
    Ingest(store, [subscription("removed"), subscription("mail")]).accept(callback())
    run = start(lambda _: Done("ok"))
    wait_until(lambda: len(store.lists.deliveries(state=State.DELIVERED)) == 1)  # others continue
    (waiting,) = store.lists.deliveries(state=State.PENDING)
    assert (waiting.hook, waiting.attempts) == ("removed", 0)
    run.hooks["removed"] = run.hooks["mail"]
    wait_until(lambda: len(store.lists.deliveries(state=State.DELIVERED)) == 2)


def test_any_response_text_of_a_hook_can_be_stored(store: Store, start: Start) -> None:
    """PostgreSQL stores neither NUL nor an unpaired surrogate."""

    def send(_: Notice) -> Done:
        raise ValueError("a\0b\ud800c")

    Ingest(store, [subscription("mail")]).accept(callback())
    start(send)
    wait_until(lambda: store.lists.deliveries()[0].state is State.DEAD)
    assert (
        store.queries.history("task-1").attempts[1][0].answer.rstrip().endswith("a\ufffdb\ufffdc")
    )


def test_two_workers_share_the_concurrency_limit_of_a_hook(store: Store, start: Start) -> None:
    limits = {"mail": Limits(concurrency=1)}
    may_end, lock = threading.Event(), threading.Lock()
    running, most = 0, 0

    def send(notice: Notice) -> Done:
        nonlocal running, most
        if "other" in notice.task.id:
            return Done("ok")
        with lock:
            running += 1
            most = max(most, running)
        assert may_end.wait(PATIENCE)
        with lock:
            running -= 1
        return Done("ok")

    for number in range(5):
        Ingest(store, [subscription("mail")]).accept(callback(body(), f"task-{number}"))
    for number in range(5):
        Ingest(store, [subscription("other")]).accept(callback(body(), f"other-{number}"))
    for _ in range(2):
        start(send, concurrency=4, limits=lambda: limits)
    try:
        wait_until(lambda: delivered(store) == 5)  # those of the other hook
        wait_until(lambda: running == 1)
        assert store.outbox.held(limits, now_ms())["mail"].text == "concurrency limit 1"
    finally:
        may_end.set()
    wait_until(lambda: delivered(store) == 10)
    assert most == 1
    made = store.queries.attempts(store.lists.deliveries()).values()
    assert [len(attempts) for attempts in made] == [1] * 10


def test_two_workers_deliver_everything_at_a_limited_rate(store: Store, start: Start) -> None:
    for number in range(12):
        message = callback(body(), f"task-{number}", received_at=now_ms())
        Ingest(store, [subscription("mail")]).accept(message)
    for _ in range(2):
        start(lambda _: Done("ok"), limits=lambda: {"mail": Limits(Rate(20, "s"))})
    wait_until(lambda: delivered(store) == 12)
    made = store.queries.attempts(store.lists.deliveries()).values()
    assert [len(attempts) for attempts in made] == [1] * 12


CHAIN = (
    subscription("more", after="other"),
    subscription("other", after="mail"),
    subscription("mail"),
)


@pytest.mark.parametrize("together", [True, False])
def test_a_redelivered_chain_runs_in_its_order_with_the_new_outputs(
    store: Store, start: Start, together: bool
) -> None:
    """If each hook is redelivered by itself, the first ones already have a job for PostgreSQL."""
    version, seen = 1, list[dict[str, int]]()

    def send(notice: Notice) -> Done:
        seen.append({name: output["version"] for name, output in notice.outputs.items()})
        return Done("ok", output={"version": version})

    Ingest(store, CHAIN).accept(callback(received_at=now_ms()))
    first = start(send)
    wait_until(lambda: delivered(store) == 3)
    assert seen == [{}, {"mail": 1}, {"mail": 1, "other": 1}]
    version = 2
    if together:
        selection = DeliverySelection(state=State.DELIVERED)
        assert store.repair.redeliver_all(selection, now_ms(), CHAIN).changed == 3
    else:
        assert first.stop()
        ids = {one.hook: one.id for one in store.lists.deliveries()}
        for hook in ("more", "other", "mail"):
            store.outbox.redeliver(ids[hook], now_ms(), CHAIN)
        start(send)
    wait_until(lambda: delivered(store) == 3 and len(seen) == 6)
    assert seen[3:] == [{}, {"mail": 2, "more": 1}, {"mail": 2, "other": 2}]
    made = store.queries.attempts(store.lists.deliveries()).values()
    assert [len(attempts) for attempts in made] == [2] * 3


def test_a_chain_is_redelivered_from_a_dead_step(store: Store, start: Start) -> None:
    """The hooks behind it have run without its output; they wait for it when redelivered."""
    is_broken, seen = True, list[list[str]]()

    def send(notice: Notice) -> Done:
        seen.append(sorted(notice.outputs))
        if len(notice.outputs) == 1 and is_broken:  # of `mail`: this is `other`
            raise PermanentFailure("the program for the background is missing")
        return Done("ok", output={"step": len(notice.outputs)})

    Ingest(store, CHAIN).accept(callback(received_at=now_ms()))
    start(send)
    wait_until(lambda: len(store.lists.deliveries(state=State.DEAD)) == 2)
    assert seen == [[], ["mail"], ["mail"]]
    is_broken = False
    assert store.repair.redeliver_all(DeliverySelection(), now_ms(), CHAIN).changed == 2
    wait_until(lambda: delivered(store) == 3)
    assert seen[3:] == [["mail"], ["mail", "other"]]

"""Many simultaneous callbacks, mostly copies in any order, leave one record in every store."""

from __future__ import annotations

import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from receiver.deliveries import State
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.tasks import Outcome, Status
from tests.support.samples import body, callback, subscription

THREADS = 8
TASKS = 50
COPIES = 1600
STATUSES = ("submitted", "processing", "succeed")
NOW = 1_765_519_851_000


def test_1600_simultaneous_callbacks_are_recorded_once(store: Store) -> None:
    """There are 150 different callbacks of 50 tasks, each sent at least once, in random order."""
    chance = random.Random(11)  # noqa: S311 - reproducible, and not a secret
    distinct = [(task, status) for task in range(TASKS) for status in STATUSES]
    sent = distinct + [chance.choice(distinct) for _ in range(COPIES - len(distinct))]
    chance.shuffle(sent)
    ingest = Ingest(store, [subscription("mail"), subscription("slack")])

    def send(one: tuple[int, str]) -> Outcome:
        task, status = one
        return ingest.accept(callback(body(status, f"p-{task}"), f"task-{task}"))

    with ThreadPoolExecutor(THREADS) as pool:
        outcomes = Counter(pool.map(send, sent))

    assert set(outcomes) <= {Outcome.RECORDED, Outcome.DUPLICATE, Outcome.STALE}
    moves = 0
    for task in range(TASKS):
        history = store.queries.history(f"task-{task}")
        assert history.task.status is Status.SUCCEEDED
        assert history.task.provider_task_id == f"p-{task}"
        statuses = [move.status for move in history.transitions]
        assert len(set(statuses)) == len(statuses)
        assert statuses[-1] == "succeeded"
        moves += len(statuses)
        assert sorted((one.hook, one.status) for one in history.deliveries) == [
            ("mail", "succeeded"),
            ("slack", "succeeded"),
        ]
        recorded = Counter(
            {stored.callback.body: stored.repeats + 1 for stored in history.callbacks}
        )
        of_task = Counter(body(status, f"p-{task}") for one, status in sent if one == task)
        assert recorded == of_task
    assert outcomes[Outcome.RECORDED] == moves


def test_a_signed_callback_without_our_id_is_adopted_once(store: Store) -> None:
    """Eight callbacks about one unknown task arrive at the same moment."""
    event_ingest = Ingest(store, [subscription("mail")])
    same = [callback(body("succeed", "unknown", n=number), None) for number in range(8)]  # type: ignore[arg-type]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(event_ingest.accept, same))
    (task,) = store.lists.tasks()
    assert task.provider_task_id == "unknown"
    assert len(store.lists.deliveries()) == 1


def test_due_deliveries_are_claimed_once(store: Store) -> None:
    ingest = Ingest(store, [subscription("mail"), subscription("slack")])
    for task in range(40):
        ingest.accept(callback(body(), f"task-{task}"))

    def claim_all(worker: int) -> list[int]:
        claimed = []
        while found := store.outbox.claim(f"w{worker}", NOW, NOW + 60_000, 3):
            claimed += [delivery.id for delivery in found]
        return claimed

    with ThreadPoolExecutor(THREADS) as pool:
        claimed = [one for many in pool.map(claim_all, range(THREADS)) for one in many]
    assert len(claimed) == len(set(claimed))
    assert {one.attempts for one in store.lists.deliveries(state=State.CLAIMED, limit=99)} == {1}


def test_an_overdue_task_is_claimed_by_one_poller(store: Store) -> None:
    ingest = Ingest(store)
    for task in range(40):
        ingest.accept(callback(body("processing"), f"task-{task}"))
        store.polling.query_at(f"task-{task}", NOW)

    def claim_all(_: int) -> list[str]:
        claimed = []
        while found := store.polling.claim_overdue(NOW, NOW + 60_000, 3):
            claimed += [task.id for task in found]
        return claimed

    with ThreadPoolExecutor(THREADS) as pool:
        claimed = [one for many in pool.map(claim_all, range(THREADS)) for one in many]
    assert len(claimed) == len(set(claimed))

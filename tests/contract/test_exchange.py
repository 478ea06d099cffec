"""Settling several attempts and claiming deliveries in their place, in one transaction."""

from __future__ import annotations

from functools import partial

import pytest

from receiver.deliveries import Attempt, Delivery, File, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.endpoints import AlertKind, Breaker, Circuit, EndpointHealth
from receiver.errors import PermanentFailure
from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sql.endpoints import EndpointChange
from receiver.stores.sql.outbox import Settlement
from tests.support.attempts import current_notice, notice_source
from tests.support.samples import body, callback, subscription

NOW = 1_765_519_851_000
LATER = NOW + 60_000
SOON = LATER + 10_000
OPENS = Breaker(failures=2, seconds=0, pauses=(60.0,))


def record(store: Store, count: int, *hooks: str) -> None:
    for number in range(count):
        subscriptions = [subscription(hook) for hook in hooks]
        Ingest(store, subscriptions).accept(callback(body(), f"task-{number}"))


def claim(store: Store, count: int) -> list[ClaimedDelivery]:
    claimed = store.outbox.claim("w", LATER, SOON, count)
    assert len(claimed) == count
    return claimed


def settlement(delivery: Delivery, state: State = State.DELIVERED, **more: object) -> Settlement:
    outcome = "delivered" if state is State.DELIVERED else "failed"
    attempt = Attempt(delivery.attempts, LATER, LATER, outcome, "ok")
    due_at = SOON if state is State.PENDING else None
    return Settlement(delivery, attempt, state, due_at, **more)  # type: ignore[arg-type]


def change(health: EndpointHealth) -> EndpointChange:
    return partial(OPENS.after, health=health, now=LATER, said=f"it {health.value}")


def exchange(
    store: Store, settlements: list[Settlement], limit: int = 9
) -> tuple[list[bool], list[ClaimedDelivery]]:
    return store.outbox.exchange(settlements, "w", LATER, SOON, limit)


def test_all_attempts_are_settled_and_the_next_deliveries_claimed(store: Store) -> None:
    record(store, 4, "mail")
    first, second = claim(store, 2)
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    settlements = [settlement(first, files=(file,)), settlement(second, State.PENDING)]
    are_settled, claimed = exchange(store, settlements)
    assert are_settled == [True, True]
    assert [found.id for found in claimed] == [3, 4]
    states = {found.id: found.state for found in store.lists.deliveries()}
    pending, claimed_state = State.PENDING, State.CLAIMED
    assert states == {1: State.DELIVERED, 2: pending, 3: claimed_state, 4: claimed_state}
    assert store.queries.delivery(2).due_at == SOON
    outcomes = store.queries.attempts([first, second])
    assert {key: [one.outcome for one in made] for key, made in outcomes.items()} == {
        1: ["delivered"],
        2: ["failed"],
    }
    assert notice_source(store, first).notice.files == (file,)


def test_no_more_is_claimed_than_the_limit(store: Store) -> None:
    record(store, 3, "mail")
    (first,) = claim(store, 1)
    assert exchange(store, [settlement(first)], limit=0) == ([True], [])
    assert len(exchange(store, [], limit=1)[1]) == 1


def test_a_lost_claim_changes_nothing_and_prevents_no_other_settlement(store: Store) -> None:
    record(store, 2, "mail")
    lost, held = claim(store, 2)
    assert store.outbox.settle(lost, settlement(lost).attempt, State.PENDING, LATER)
    (again,) = store.outbox.claim("other", LATER, SOON, 1)
    fails = change(EndpointHealth.FAILS)
    settlements = [settlement(lost, State.DEAD, change=fails), settlement(held)]
    assert exchange(store, settlements, limit=0)[0] == [False, True]
    assert store.queries.delivery(lost.id).state is State.CLAIMED
    assert store.endpoints.all() == []
    assert store.outbox.settle(again, settlement(again).attempt, State.DELIVERED, None)


def test_every_attempt_counts_for_the_endpoint_in_order(store: Store) -> None:
    record(store, 3, "mail")
    claimed = claim(store, 3)
    health = [EndpointHealth.FAILS, EndpointHealth.FAILS, EndpointHealth.WORKS]
    settlements = [
        settlement(delivery, change=change(one))
        for delivery, one in zip(claimed, health, strict=True)
    ]
    exchange(store, settlements[:2])
    endpoint = store.endpoints.of("mail")
    assert (endpoint.failures, endpoint.said) == (2, "it fails")
    assert endpoint.circuit(LATER) is Circuit.OPEN
    exchange(store, settlements[2:])
    assert store.endpoints.all() == []
    alerts = store.endpoints.take_alerts(SOON, SOON + 1)
    assert [(one.kind, one.said) for one in alerts] == [
        (AlertKind.PAUSED, "it fails"),
        (AlertKind.RECOVERED, "it fails"),
    ]


def test_alerts_of_one_exchange_are_all_stored(store: Store) -> None:
    record(store, 3, "mail")
    claimed = claim(store, 3)
    health = [EndpointHealth.FAILS, EndpointHealth.FAILS, EndpointHealth.WORKS]
    exchange(
        store,
        [settlement(one, change=change(is_)) for one, is_ in zip(claimed, health, strict=True)],
    )
    assert store.endpoints.all() == []
    kinds = [one.kind for one in store.endpoints.take_alerts(SOON, SOON + 1)]
    assert kinds == [AlertKind.PAUSED, AlertKind.RECOVERED]


def test_claims_see_what_the_attempts_changed(store: Store) -> None:
    """A circuit that opens holds its deliveries; one that waited for an attempt is claimed."""
    hooks = [subscription("slow"), subscription("mail", after="slow"), subscription("other")]
    for number in range(4):
        Ingest(store, hooks).accept(callback(body(), f"task-{number}"))
    claimed = claim(store, 8)
    fails = change(EndpointHealth.FAILS)
    slow = [delivery for delivery in claimed if delivery.hook == "slow"]
    Ingest(store, [subscription("slow")]).accept(callback(body(), "task-9"))
    found = exchange(store, [settlement(delivery, change=fails) for delivery in slow])[1]
    assert [delivery.hook for delivery in found] == ["mail"] * 4


def test_deliveries_come_with_everything_that_their_attempts_need(store: Store) -> None:
    hooks = [subscription("mail"), subscription("chat")]
    for number in range(2):
        Ingest(store, hooks).accept(callback(body(), f"task-{number}"))
    store.outbox.settle(
        claim(store, 1)[0],
        Attempt(1, LATER, LATER, "failed", "no"),
        State.DEAD,
        None,
        change=change(EndpointHealth.FAILS),
    )
    claimed = store.outbox.claim("w", LATER, SOON, 9)
    assert len(claimed) == 3
    for delivery in claimed:
        source = delivery.source
        assert source.notice.task == store.queries.task(delivery.task_id)
        assert source.notice.transition.status == delivery.status
        assert source.callback is not None
        assert source.callback.task_id == delivery.task_id
        assert delivery.endpoint == store.endpoints.of(delivery.hook)
    one, other = (found for found in claimed if found.task_id == "task-1")
    assert one.source.message_id == other.source.message_id


def test_a_failed_attempt_of_a_forgotten_task_is_not_made_again(store: Store) -> None:
    """The attempt ran when the task was forgotten, and `forget` was interrupted while it waited."""
    record(store, 1, "mail")
    (running,) = claim(store, 1)
    assert store.erasures.close_task("task-0", LATER).under_way == 1
    exchange(store, [settlement(running, State.PENDING)], limit=0)
    (again,) = store.outbox.claim("w", SOON, SOON + 10_000, 1)
    assert again.source.is_forgotten
    with pytest.raises(PermanentFailure, match="forgotten"):
        current_notice(DeliveryWorker(store, {}), again)

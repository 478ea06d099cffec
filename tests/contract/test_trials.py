"""What every store promises of test events: sent once, by one worker, lost by none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from receiver.stores.base import Store
from receiver.stores.sql.endpoints import GIVEN_UP_ON, MOST_TRIES, HookTest, HookTestOutcome
from tests.support.patience import PATIENCE

NOW = 1_765_519_851_000
LEASE = 10_000
ASKED = HookTest("mail", "succeeded", NOW)
WORKERS = 8


def ask(store: Store, hook: str = "mail", now: int = NOW) -> None:
    assert store.endpoints.request_test(hook, "succeeded", now)


def take(store: Store, now: int = NOW) -> HookTest:
    (trial,) = store.endpoints.claim_tests(now, now + LEASE)
    return trial


def end(store: Store, trial: HookTest, answer: str = "250 OK", now: int = NOW + 1) -> bool:
    return store.endpoints.end_test(trial, HookTestOutcome.DELIVERED, answer, now)


def test_what_is_asked_for_waits_for_a_worker(store: Store) -> None:
    assert store.endpoints.tests() == []
    ask(store)
    assert store.endpoints.tests() == [ASKED]
    assert take(store) == HookTest("mail", "succeeded", NOW, tries=1)
    assert store.endpoints.claim_tests(NOW, NOW + LEASE) == []


def test_it_is_asked_for_once_until_it_ended(store: Store) -> None:
    ask(store)
    assert not store.endpoints.request_test("mail", "failed", NOW + 1)
    trial = take(store)
    assert not store.endpoints.request_test("mail", "failed", NOW + 1)
    assert store.endpoints.tests() == [trial]
    assert end(store, trial)
    assert store.endpoints.request_test("mail", "failed", NOW + 2)
    assert store.endpoints.tests() == [HookTest("mail", "failed", NOW + 2)]


def test_its_end_is_kept_with_the_answer(store: Store) -> None:
    ask(store)
    assert end(store, take(store), "250 OK: é")
    ended = HookTest("mail", "succeeded", NOW, 1, NOW + 1, HookTestOutcome.DELIVERED, "250 OK: é")
    assert store.endpoints.tests() == [ended]
    assert store.endpoints.claim_tests(NOW + 99 * LEASE, NOW) == []


def test_each_hook_has_its_own_and_the_oldest_is_taken_first(store: Store) -> None:
    ask(store, "mail", NOW + 1)
    ask(store, "chat", NOW + 2)
    ask(store, "pictures", NOW)
    assert [one.hook for one in store.endpoints.claim_tests(NOW + 1, NOW + LEASE)] == [
        "pictures",
        "mail",
    ]
    assert end(store, HookTest("mail", "succeeded", NOW + 1, tries=1))
    assert [one.hook for one in store.endpoints.tests() if one.ended_at is None] == [
        "chat",
        "pictures",
    ]


def test_two_workers_at_once_take_it_once(store: Store) -> None:
    """Many rounds: in each all workers look at the same moment."""
    rounds = 12
    together = Barrier(WORKERS)

    def work(_: int) -> list[tuple[int, str]]:
        taken = []
        for number in range(rounds):
            if together.wait(PATIENCE) == 0:
                ask(store, f"hook-{number}")
            together.wait(PATIENCE)
            taken += [(number, one.hook) for one in store.endpoints.claim_tests(NOW, NOW + LEASE)]
            together.wait(PATIENCE)
        return taken

    with ThreadPoolExecutor(WORKERS) as pool:
        taken = [one for many in pool.map(work, range(WORKERS)) for one in many]
    assert sorted(taken) == sorted((number, f"hook-{number}") for number in range(rounds))


def test_many_who_ask_at_once_ask_once(store: Store) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        asked = list(
            pool.map(
                lambda at: store.endpoints.request_test("mail", "succeeded", NOW + at),
                range(WORKERS),
            )
        )
    assert asked.count(True) == 1


def test_a_worker_that_dies_with_it_does_not_lose_it(store: Store) -> None:
    ask(store)
    lost = take(store)
    assert store.endpoints.claim_tests(NOW + LEASE - 1, NOW + 2 * LEASE) == []
    again = take(store, NOW + LEASE)
    assert again.tries == 2
    assert not end(store, lost, "too late")  # one that had only stalled
    store.endpoints.renew_test(lost, NOW + 99 * LEASE)
    assert take(store, NOW + 2 * LEASE).tries == 3


def test_one_that_is_still_being_sent_is_nobody_elses(store: Store) -> None:
    ask(store)
    trial = take(store)
    store.endpoints.renew_test(trial, NOW + 5 * LEASE)
    assert store.endpoints.claim_tests(NOW + 4 * LEASE, NOW + 5 * LEASE) == []
    assert end(store, trial)
    store.endpoints.renew_test(trial, NOW)  # a moment too late: it stays ended
    assert store.endpoints.claim_tests(NOW + LEASE, NOW + LEASE) == []


def test_it_is_tried_three_times_at_most(store: Store) -> None:
    ask(store)
    *_, last = (take(store, NOW + number * LEASE) for number in range(MOST_TRIES))
    over_at = NOW + MOST_TRIES * LEASE
    assert last.tries == MOST_TRIES == 3
    assert store.endpoints.claim_tests(over_at, over_at + LEASE) == []
    failed = HookTest("mail", "succeeded", NOW, 3, over_at, HookTestOutcome.FAILED, GIVEN_UP_ON)
    assert store.endpoints.tests() == [failed]
    assert not end(store, last)
    assert store.endpoints.request_test("mail", "succeeded", over_at)


def test_where_nothing_is_asked_for_looking_writes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(store)
    take(store)
    ask(store, "chat")
    end(store, take(store))

    def refuse(_: object) -> None:
        raise AssertionError("it wrote")

    monkeypatch.setattr(store.database, "write", refuse)
    assert store.endpoints.claim_tests(NOW + LEASE - 1, NOW + 2 * LEASE) == []
    with pytest.raises(AssertionError):
        store.endpoints.claim_tests(NOW + LEASE, NOW + 2 * LEASE)


def test_a_trial_changes_no_endpoint(store: Store) -> None:
    store.endpoints.pause("mail", NOW)
    before = store.endpoints.all()
    ask(store)
    store.endpoints.end_test(take(store), HookTestOutcome.FAILED, "no", NOW + 1)
    assert store.endpoints.all() == before

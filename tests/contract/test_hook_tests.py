"""Every store passes each test event to one worker, which sends it once; none is lost."""

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


def request(store: Store, hook: str = "mail", now: int = NOW) -> None:
    assert store.endpoints.request_test(hook, "succeeded", now)


def take(store: Store, now: int = NOW) -> HookTest:
    (hook_test,) = store.endpoints.claim_tests(now, now + LEASE)
    return hook_test


def end(store: Store, hook_test: HookTest, answer: str = "250 OK", now: int = NOW + 1) -> bool:
    return store.endpoints.end_test(hook_test, HookTestOutcome.DELIVERED, answer, now)


def test_a_requested_test_waits_for_a_worker(store: Store) -> None:
    assert store.endpoints.tests() == []
    request(store)
    assert store.endpoints.tests() == [ASKED]
    assert take(store) == HookTest("mail", "succeeded", NOW, tries=1)
    assert store.endpoints.claim_tests(NOW, NOW + LEASE) == []


def test_a_second_request_is_refused_until_the_test_has_ended(store: Store) -> None:
    request(store)
    assert not store.endpoints.request_test("mail", "failed", NOW + 1)
    hook_test = take(store)
    assert not store.endpoints.request_test("mail", "failed", NOW + 1)
    assert store.endpoints.tests() == [hook_test]
    assert end(store, hook_test)
    assert store.endpoints.request_test("mail", "failed", NOW + 2)
    assert store.endpoints.tests() == [HookTest("mail", "failed", NOW + 2)]


def test_the_result_of_a_test_is_stored(store: Store) -> None:
    request(store)
    assert end(store, take(store), "250 OK: é")
    ended = HookTest("mail", "succeeded", NOW, 1, NOW + 1, HookTestOutcome.DELIVERED, "250 OK: é")
    assert store.endpoints.tests() == [ended]
    assert store.endpoints.claim_tests(NOW + 99 * LEASE, NOW) == []


def test_each_hook_has_its_own_test_and_the_oldest_is_claimed_first(store: Store) -> None:
    request(store, "mail", NOW + 1)
    request(store, "chat", NOW + 2)
    request(store, "pictures", NOW)
    assert [one.hook for one in store.endpoints.claim_tests(NOW + 1, NOW + LEASE)] == [
        "pictures",
        "mail",
    ]
    assert end(store, HookTest("mail", "succeeded", NOW + 1, tries=1))
    assert [one.hook for one in store.endpoints.tests() if one.ended_at is None] == [
        "chat",
        "pictures",
    ]


def test_two_workers_claim_a_test_once(store: Store) -> None:
    """There are many rounds, in each of which all workers claim at the same moment."""
    rounds = 12
    together = Barrier(WORKERS)

    def work(_: int) -> list[tuple[int, str]]:
        claimed = []
        for number in range(rounds):
            if together.wait(PATIENCE) == 0:
                request(store, f"hook-{number}")
            together.wait(PATIENCE)
            claimed += [(number, one.hook) for one in store.endpoints.claim_tests(NOW, NOW + LEASE)]
            together.wait(PATIENCE)
        return claimed

    with ThreadPoolExecutor(WORKERS) as pool:
        claimed = [one for many in pool.map(work, range(WORKERS)) for one in many]
    assert sorted(claimed) == sorted((number, f"hook-{number}") for number in range(rounds))


def test_simultaneous_requests_create_one_test(store: Store) -> None:
    with ThreadPoolExecutor(WORKERS) as pool:
        created = list(
            pool.map(
                lambda at: store.endpoints.request_test("mail", "succeeded", NOW + at),
                range(WORKERS),
            )
        )
    assert created.count(True) == 1


def test_the_test_of_a_dead_worker_is_claimed_again(store: Store) -> None:
    request(store)
    lost = take(store)
    assert store.endpoints.claim_tests(NOW + LEASE - 1, NOW + 2 * LEASE) == []
    again = take(store, NOW + LEASE)
    assert again.tries == 2
    assert not end(store, lost, "too late")  # the first worker had only stalled
    store.endpoints.renew_test(lost, NOW + 99 * LEASE)
    assert take(store, NOW + 2 * LEASE).tries == 3


def test_a_running_test_is_not_claimed_again(store: Store) -> None:
    request(store)
    hook_test = take(store)
    store.endpoints.renew_test(hook_test, NOW + 5 * LEASE)
    assert store.endpoints.claim_tests(NOW + 4 * LEASE, NOW + 5 * LEASE) == []
    assert end(store, hook_test)
    store.endpoints.renew_test(hook_test, NOW)  # a moment too late, so the test stays ended
    assert store.endpoints.claim_tests(NOW + LEASE, NOW + LEASE) == []


def test_a_test_is_tried_at_most_three_times(store: Store) -> None:
    request(store)
    *_, last = (take(store, NOW + number * LEASE) for number in range(MOST_TRIES))
    over_at = NOW + MOST_TRIES * LEASE
    assert last.tries == MOST_TRIES == 3
    assert store.endpoints.claim_tests(over_at, over_at + LEASE) == []
    failed = HookTest("mail", "succeeded", NOW, 3, over_at, HookTestOutcome.FAILED, GIVEN_UP_ON)
    assert store.endpoints.tests() == [failed]
    assert not end(store, last)
    assert store.endpoints.request_test("mail", "succeeded", over_at)


def test_without_a_request_claiming_writes_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    request(store)
    take(store)
    request(store, "chat")
    end(store, take(store))

    def refuse(_: object) -> None:
        raise AssertionError("the store was written")

    monkeypatch.setattr(store.database, "write", refuse)
    assert store.endpoints.claim_tests(NOW + LEASE - 1, NOW + 2 * LEASE) == []
    with pytest.raises(AssertionError):
        store.endpoints.claim_tests(NOW + LEASE, NOW + 2 * LEASE)


def test_a_test_changes_no_endpoint(store: Store) -> None:
    store.endpoints.pause("mail", NOW)
    before = store.endpoints.all()
    request(store)
    store.endpoints.end_test(take(store), HookTestOutcome.FAILED, "no", NOW + 1)
    assert store.endpoints.all() == before

"""Sessions end for all processes, and the attempts of all processes are counted in few rows."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.sql import sessions
from receiver.stores.sql.sessions import MOST_SESSIONS, SLOTS, Allowance, Usage
from receiver.stores.sql.transfer import Transfer

NOW = 1_765_519_851_000
HOUR = 3_600_000
PASSWORD = Allowance("password", burst=10, per_second=0.1)
TOKEN = Allowance("token", burst=60, per_second=1.0)


def usage(sender: str, used: float, slot: int = 1) -> Usage:
    return Usage(slot, sender, used, NOW)


# -- sessions


def test_a_session_is_open_until_it_is_closed(store: Store) -> None:
    assert not store.sessions.is_open("mine", NOW)
    store.sessions.open("mine", NOW, NOW + HOUR)
    store.sessions.open("theirs", NOW, NOW + HOUR)
    assert store.sessions.is_open("mine", NOW)
    store.sessions.close("mine")
    store.sessions.close("mine")
    assert not store.sessions.is_open("mine", NOW)
    assert store.sessions.is_open("theirs", NOW)


def test_a_session_expires(store: Store) -> None:
    store.sessions.open("mine", NOW, NOW + HOUR)
    assert store.sessions.is_open("mine", NOW + HOUR - 1)
    assert not store.sessions.is_open("mine", NOW + HOUR)


def test_expired_sessions_are_deleted(store: Store) -> None:
    store.sessions.open("first", NOW, NOW + HOUR)
    store.sessions.open("second", NOW + HOUR, NOW + 2 * HOUR)
    assert Transfer(store.database).count("sessions") == 1
    store.sessions.prune(NOW + 2 * HOUR)
    assert Transfer(store.database).count("sessions") == 0


def test_prune_deletes_expired_sessions(store: Store) -> None:
    store.sessions.open("mine", NOW, NOW + HOUR)  # expired long ago
    list(prune(store, NOW))
    assert Transfer(store.database).count("sessions") == 0


def test_a_further_session_ends_the_oldest(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_SESSIONS >= 100
    monkeypatch.setattr("receiver.stores.sql.sessions.MOST_SESSIONS", 3)
    for number in range(5):
        store.sessions.open(f"session {number}", NOW + number, NOW + HOUR)
    open_ = [number for number in range(5) if store.sessions.is_open(f"session {number}", NOW + 5)]
    assert open_ == [2, 3, 4]


# -- attempts


def test_the_attempts_of_all_processes_are_added_up(store: Store) -> None:
    assert store.sessions.refused_attempts(TOKEN, NOW) == []
    assert store.sessions.add_refused_attempts(TOKEN, [usage("a", 20)], NOW) == [usage("a", 20)]
    assert store.sessions.add_refused_attempts(TOKEN, [usage("a", 30)], NOW) == [usage("a", 50)]
    assert store.sessions.refused_attempts(TOKEN, NOW) == [usage("a", 50)]


def test_attempts_of_one_kind_do_not_count_for_another(store: Store) -> None:
    store.sessions.add_refused_attempts(TOKEN, [usage("a", 20)], NOW)
    assert store.sessions.add_refused_attempts(PASSWORD, [usage("a", 5)], NOW) == [usage("a", 5)]


def test_attempts_expire_over_time(store: Store) -> None:
    store.sessions.add_refused_attempts(PASSWORD, [usage("a", 10)], NOW)
    (found,) = store.sessions.refused_attempts(PASSWORD, NOW + 40_000)
    assert (found.used, found.at) == (6, NOW + 40_000)
    assert store.sessions.refused_attempts(PASSWORD, NOW + 100_000) == []
    store.sessions.add_refused_attempts(PASSWORD, [Usage(2, "b", 1, NOW + 100_000)], NOW + 100_000)
    assert Transfer(store.database).count("refused_attempts") == 1  # the other row was deleted


def test_a_clock_that_was_set_back_does_not_lengthen_a_wait(store: Store) -> None:
    store.sessions.add_refused_attempts(PASSWORD, [usage("a", 10)], NOW)
    earlier = NOW - HOUR
    (found,) = store.sessions.refused_attempts(PASSWORD, earlier)
    assert found.used == 10
    store.sessions.add_refused_attempts(PASSWORD, [Usage(1, "a", 1, earlier)], earlier)
    (found,) = store.sessions.refused_attempts(PASSWORD, earlier + 40_000)
    assert found.used == 7


def test_a_sender_above_the_burst_waits_at_most_twice_its_time(store: Store) -> None:
    store.sessions.add_refused_attempts(PASSWORD, [usage("a", 10)], NOW)
    for _ in range(50):
        store.sessions.add_refused_attempts(PASSWORD, [usage("a", 10)], NOW)
    (found,) = store.sessions.refused_attempts(PASSWORD, NOW)
    assert found.used == 2 * PASSWORD.burst


def test_two_senders_in_one_slot_are_never_charged_for_each_other(store: Store) -> None:
    assert store.sessions.add_refused_attempts(TOKEN, [usage("a", 20)], NOW) == [usage("a", 20)]
    assert store.sessions.add_refused_attempts(TOKEN, [usage("b", 20)], NOW) == [usage("a", 20)]
    assert store.sessions.add_refused_attempts(TOKEN, [usage("b", 21)], NOW) == [usage("b", 21)]
    later = NOW + 5_000
    assert store.sessions.add_refused_attempts(TOKEN, [Usage(1, "a", 17, later)], later) == [
        Usage(1, "a", 17, later)
    ]


def test_attackers_cannot_fill_the_table(store: Store) -> None:
    for start in range(0, 3_000, 200):
        found = [
            Usage(number % SLOTS, f"sender {number}", 1, NOW)
            for number in range(start, start + 200)
        ]
        store.sessions.add_refused_attempts(TOKEN, found, NOW)
    assert Transfer(store.database).count("refused_attempts") == SLOTS


def test_no_attempt_is_lost_when_processes_merge_at_the_same_time(store: Store) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(
            pool.map(
                lambda _: store.sessions.add_refused_attempts(
                    TOKEN, [usage("b", 1, 2), usage("a", 2)], NOW
                ),
                range(20),
            )
        )
    assert store.sessions.refused_attempts(TOKEN, NOW) == [usage("a", 40), usage("b", 20, 2)]


def test_the_store_contains_no_address() -> None:
    assert "address" not in sessions.Usage.__annotations__

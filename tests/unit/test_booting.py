"""The cases in which a web worker that cannot start stops the others."""

from __future__ import annotations

import os

from receiver.web.server.booting import DELAYS, BootRecord, must_stop_everything


def never(_: float) -> None:
    raise AssertionError("the result is already known")


def test_all_workers_are_stopped_if_none_can_start() -> None:
    boots = BootRecord()
    boots.failed(1)
    boots.failed(2)
    assert must_stop_everything(boots, 2, never)


def test_one_of_the_workers_that_cannot_start_stops_gunicorn() -> None:
    boots = BootRecord()
    for age in (2, 1, 3):
        boots.failed(age)
    assert [age for age in (1, 2, 3) if boots.is_first_failure(age)] == [1]


def test_a_worker_that_fails_first_waits_for_the_others() -> None:
    boots = BootRecord()
    boots.failed(1)
    assert not must_stop_everything(boots, 2, lambda _: boots.booted())


def test_a_worker_that_fails_later_stops_nothing() -> None:
    boots = BootRecord()
    boots.booted()
    for age in range(2, 300):
        boots.failed(age)
        assert not must_stop_everything(boots, 2, never)


def test_a_worker_that_never_decides_does_not_keep_the_others_waiting() -> None:
    boots = BootRecord()
    boots.failed(1)
    pauses: list[float] = []
    assert must_stop_everything(boots, 2, pauses.append)
    assert len(pauses) < 1_000


def test_delays_increase_until_a_worker_starts() -> None:
    boots = BootRecord()
    found = []
    for age in range(1, 9):
        boots.failed(age)
        found.append(boots.delay())
    assert found == [*DELAYS, DELAYS[-1], DELAYS[-1]]
    boots.booted()
    boots.failed(9)
    assert boots.delay() == DELAYS[0]


def test_other_processes_see_how_a_boot_ended() -> None:
    boots = BootRecord()
    child = os.fork()
    if not child:
        boots.booted()
        os._exit(0)
    os.waitpid(child, 0)
    assert boots.any_booted

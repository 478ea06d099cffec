"""The circuit breaker: when it opens, for how long, and what people are told; time passed in."""

from __future__ import annotations

import pytest

from receiver.endpoints import SAID_KEPT, AlertKind, Breaker, Circuit, Endpoint, EndpointHealth

NOW = 1_765_519_851_000
BREAKER = Breaker(failures=3, seconds=10, pauses=(30, 60))


def after(
    endpoint: Endpoint, *steps: tuple[EndpointHealth, float]
) -> tuple[Endpoint, list[AlertKind]]:
    """The endpoint after attempts that ended so many seconds after NOW, and the alerts."""
    alerts = []
    for verdict, seconds in steps:
        endpoint, alert = BREAKER.after(endpoint, verdict, NOW + round(seconds * 1000), "refused")
        alerts += [alert] if alert else []
    return endpoint, alerts


NEW = Endpoint("mail")
FAILS, WORKS, GONE = EndpointHealth.FAILS, EndpointHealth.WORKS, EndpointHealth.GONE
OPEN, _ = after(NEW, (FAILS, 0), (FAILS, 5), (FAILS, 10))


@pytest.mark.parametrize(
    ("steps", "circuit"),
    [
        ([], Circuit.CLOSED),
        ([(FAILS, 0), (FAILS, 60)], Circuit.CLOSED),  # two in a row: too few
        ([(FAILS, 0)] * 50, Circuit.CLOSED),  # many, but all within a moment: a restart
        ([(FAILS, 0), (FAILS, 5), (FAILS, 9.9)], Circuit.CLOSED),  # 9.9 s: not sustained yet
        ([(FAILS, 0), (FAILS, 5), (FAILS, 10)], Circuit.OPEN),
        ([(FAILS, 0), (FAILS, 5), (WORKS, 6), (FAILS, 10)], Circuit.CLOSED),  # not in a row
        ([(GONE, 0)], Circuit.DISABLED),
    ],
)
def test_only_sustained_failure_opens_a_circuit(
    steps: list[tuple[EndpointHealth, float]], circuit: Circuit
) -> None:
    endpoint, alerts = after(NEW, *steps)
    assert endpoint.circuit(NOW + 10_000) is circuit
    assert bool(alerts) is (circuit is not Circuit.CLOSED)


def test_it_is_probed_once_the_pause_is_over() -> None:
    assert OPEN.circuit(NOW + 39_999) is Circuit.OPEN  # opened at 10 s, for 30 s
    assert OPEN.circuit(NOW + 40_000) is Circuit.HALF_OPEN


def test_a_probe_that_fails_opens_it_for_longer_and_tells_nobody_again() -> None:
    endpoint, alerts = after(OPEN, (FAILS, 40))
    assert alerts == []
    assert endpoint.retry_at == NOW + 100_000  # 60 s more
    endpoint, _ = after(endpoint, (FAILS, 100))
    assert endpoint.retry_at == NOW + 160_000  # the last pause repeats


def test_a_probe_that_works_closes_it_and_tells_people_once() -> None:
    endpoint, alerts = after(OPEN, (WORKS, 40), (WORKS, 41))
    assert endpoint == NEW
    assert alerts == [AlertKind.RECOVERED]


def test_an_attempt_that_had_begun_before_lengthens_no_pause() -> None:
    endpoint, alerts = after(OPEN, (FAILS, 11), (FAILS, 12))
    assert (endpoint.retry_at, alerts) == (OPEN.retry_at, [])


def test_gone_is_told_once_and_success_of_another_attempt_does_not_undo_it() -> None:
    endpoint, alerts = after(NEW, (GONE, 0), (GONE, 1), (WORKS, 2))
    assert alerts == [AlertKind.DISABLED]
    assert endpoint.disabled_at == NOW


def test_what_was_paused_by_hand_stays_paused() -> None:
    held = Endpoint("mail", paused_at=NOW)
    endpoint, _ = after(held, (WORKS, 1))
    assert endpoint.circuit(NOW + 1) is Circuit.PAUSED


def test_only_so_much_of_a_failure_is_kept() -> None:
    endpoint, _ = BREAKER.after(NEW, FAILS, NOW, "x" * 10_000)
    assert len(endpoint.said) == SAID_KEPT

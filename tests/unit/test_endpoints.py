"""The circuit breaker: when it opens, for how long, and its alerts; the time is passed in."""

from __future__ import annotations

import pytest

from receiver.endpoints import SAID_KEPT, AlertKind, Breaker, Circuit, Endpoint, EndpointHealth

NOW = 1_765_519_851_000
BREAKER = Breaker(failures=3, seconds=10, pauses=(30, 60))


def after(
    endpoint: Endpoint, *steps: tuple[EndpointHealth, float]
) -> tuple[Endpoint, list[AlertKind]]:
    """Return the endpoint and the alerts after attempts that ended these seconds after NOW."""
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
        ([(FAILS, 0), (FAILS, 60)], Circuit.CLOSED),  # two consecutive failures are too few
        ([(FAILS, 0)] * 50, Circuit.CLOSED),  # many failures, but all at the same time: a restart
        ([(FAILS, 0), (FAILS, 5), (FAILS, 9.9)], Circuit.CLOSED),  # 9.9 s: not long enough yet
        ([(FAILS, 0), (FAILS, 5), (FAILS, 10)], Circuit.OPEN),
        ([(FAILS, 0), (FAILS, 5), (WORKS, 6), (FAILS, 10)], Circuit.CLOSED),  # not consecutive
        ([(GONE, 0)], Circuit.DISABLED),
    ],
)
def test_only_sustained_failure_opens_a_circuit(
    steps: list[tuple[EndpointHealth, float]], circuit: Circuit
) -> None:
    endpoint, alerts = after(NEW, *steps)
    assert endpoint.circuit(NOW + 10_000) is circuit
    assert bool(alerts) is (circuit is not Circuit.CLOSED)


def test_an_open_circuit_is_probed_once_the_pause_is_over() -> None:
    assert OPEN.circuit(NOW + 39_999) is Circuit.OPEN  # opened at 10 s, for 30 s
    assert OPEN.circuit(NOW + 40_000) is Circuit.HALF_OPEN


def test_a_failed_probe_lengthens_the_pause_without_a_second_alert() -> None:
    endpoint, alerts = after(OPEN, (FAILS, 40))
    assert alerts == []
    assert endpoint.retry_at == NOW + 100_000  # 60 s more
    endpoint, _ = after(endpoint, (FAILS, 100))
    assert endpoint.retry_at == NOW + 160_000  # the longest pause repeats


def test_a_successful_probe_closes_the_circuit_with_one_alert() -> None:
    endpoint, alerts = after(OPEN, (WORKS, 40), (WORKS, 41))
    assert endpoint == NEW
    assert alerts == [AlertKind.RECOVERED]


def test_an_attempt_that_began_earlier_does_not_lengthen_the_pause() -> None:
    endpoint, alerts = after(OPEN, (FAILS, 11), (FAILS, 12))
    assert (endpoint.retry_at, alerts) == (OPEN.retry_at, [])


def test_a_410_is_alerted_once_and_the_success_of_another_attempt_does_not_undo_it() -> None:
    endpoint, alerts = after(NEW, (GONE, 0), (GONE, 1), (WORKS, 2))
    assert alerts == [AlertKind.DISABLED]
    assert endpoint.disabled_at == NOW


def test_an_endpoint_that_was_paused_by_hand_stays_paused() -> None:
    paused = Endpoint("mail", paused_at=NOW)
    endpoint, _ = after(paused, (WORKS, 1))
    assert endpoint.circuit(NOW + 1) is Circuit.PAUSED


def test_the_stored_text_of_a_failure_is_limited() -> None:
    endpoint, _ = BREAKER.after(NEW, FAILS, NOW, "x" * 10_000)
    assert len(endpoint.said) == SAID_KEPT

"""Each count reaches the record once, under known names only."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import pytest

from receiver.errors import StoreUnavailable
from receiver.observability.metrics import (
    CALLBACK_SECONDS,
    CALLBACKS,
    LAST_CALLBACK,
    MetricBuffer,
    Sample,
)


class Rows:
    """The store of the counts; it is unavailable while `is_away`."""

    def __init__(self) -> None:
        self.is_away = False
        self.added: dict[tuple[str, tuple[str, ...]], float] = {}
        self.newest: list[Sample] = []
        self.writes = 0
        self._lock = Lock()

    def keep(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        with self._lock:
            self._keep(added, newest)

    def _keep(self, added: Sequence[Sample], newest: Sequence[Sample]) -> None:
        self.writes += 1
        if self.is_away:
            raise StoreUnavailable("not now")
        self.newest += newest
        for reading in added:
            key = (reading.name, reading.labels)
            self.added[key] = self.added.get(key, 0) + reading.value


def test_the_counts_of_many_threads_are_stored_once() -> None:
    meter, rows = MetricBuffer(), Rows()

    def work(_: int) -> None:
        for _ in range(500):
            meter.count(CALLBACKS, "kling", "failed", "recorded")
            meter.flush(rows.keep)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert rows.added == {("callbacks", ("kling", "failed", "recorded")): 4_000}


def test_without_counts_there_is_no_write() -> None:
    meter, rows = MetricBuffer(), Rows()
    meter.flush(rows.keep)
    meter.count(CALLBACKS, "kling", "failed", "recorded")
    meter.flush(rows.keep)
    meter.flush(rows.keep)
    assert rows.writes == 1


def test_rows_are_written_in_one_order_so_that_no_two_processes_deadlock() -> None:
    meter, orders = MetricBuffer(), []
    for providers in (("kling", "appypie", "modellix"), ("modellix", "kling", "appypie")):
        for provider in providers:
            meter.count(CALLBACKS, provider, "failed", "recorded")
        meter.flush(lambda added, _: orders.append([reading.labels[0] for reading in added]))
    assert orders == [["appypie", "kling", "modellix"]] * 2


def test_counts_are_stored_later_if_the_store_is_unavailable() -> None:
    meter, rows = MetricBuffer(), Rows()
    rows.is_away = True
    meter.count(CALLBACKS, "kling", "failed", "recorded")
    meter.note(LAST_CALLBACK, 7, "kling")
    with pytest.raises(StoreUnavailable):
        meter.flush(rows.keep)
    meter.count(CALLBACKS, "kling", "failed", "recorded")
    meter.note(LAST_CALLBACK, 5, "kling")
    rows.is_away = False
    meter.flush(rows.keep)
    assert rows.added == {("callbacks", ("kling", "failed", "recorded")): 2}
    assert rows.newest == [Sample("last_callback_timestamp_seconds", ("kling",), 7)]


@pytest.mark.parametrize(
    ("seconds", "bound"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (11.0, "+Inf")]
)
def test_an_observation_is_counted_in_one_bucket(seconds: float, bound: str) -> None:
    meter, rows = MetricBuffer(), Rows()
    meter.observe(CALLBACK_SECONDS, seconds, "200")
    meter.flush(rows.keep)
    assert rows.added == {
        ("callback_seconds", ("200", bound)): 1,
        ("callback_seconds", ("200", "sum")): seconds,
    }

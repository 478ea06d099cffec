"""Reports whether the process is alive, can store callbacks, and has a worker that delivers."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from threading import Lock

from flask import Blueprint, Response, g, jsonify

from receiver.clock import now_ms
from receiver.errors import StoreUnavailable
from receiver.ingest import Ingest
from receiver.observability.metrics import MetricBuffer
from receiver.processes import current_hooks
from receiver.processes.clock_watch import ClockWatch
from receiver.serializers.route_spec import RouteSpec, described
from receiver.serializers.schemas import AliveDocument, ReadyDocument
from receiver.stores.base import Store
from receiver.stores.sql.activity import GONE_AFTER
from receiver.stores.sql.metrics import Counter

HOOKS_REJECTED = "it was rejected, and the previous one is used; receiver doctor shows why"
CHECK_INTERVAL = 1.0  # minimum seconds between two commits that probes cause
CLOCK_WAS_SET = "the clock was set, and schedules are not corrected yet"


class NotReady(StoreUnavailable):
    """A check of readiness failed; `members` of the problem document name it."""

    members = {"check": "record"}  # noqa: RUF012 - read by `problems`


class Readiness:
    """Checks that a write can be committed: at most once per second, for all probes together.

    Probes that arrive during a check wait for its result. After a success, the next probe checks
    again if a write of this process has failed since. `commit` raises StoreUnavailable.
    """

    def __init__(
        self,
        commit: Callable[[], None],
        meter: MetricBuffer,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commit, self._meter, self._clock = commit, meter, clock
        self._lock = Lock()
        self._checked_at = float("-inf")
        self._failures = 0  # failed writes of this process, before the last check
        self._error: StoreUnavailable | None = None

    def check(self) -> None:
        """Raise NotReady if the last check failed."""
        with self._lock:
            # After a failure of this process, an earlier success is no longer current.
            is_outdated = self._error is None and self._failures != self._meter.store_failures
            if is_outdated or self._clock() - self._checked_at >= CHECK_INTERVAL:
                self._failures, self._error = self._meter.store_failures, None
                try:
                    self._commit()
                except StoreUnavailable as error:
                    self._error = error
                finally:
                    self._checked_at = self._clock()
            failure = self._error
        if failure is not None:
            raise NotReady(str(failure), failure.retry_after)


def blueprint(ingest: Ingest, meter: MetricBuffer, watch: ClockWatch) -> Blueprint:
    """Return the routes `/healthz` and `/readyz`."""
    store = ingest.store
    routes = Blueprint("health", __name__)
    name = name_of_this_process()
    rejected: list[str] = []  # the kinds of processes that rejected the hooks file

    def commit() -> None:
        watch.look()
        store.activity.heartbeat(name, "web", now_ms())
        rejected[:] = current_hooks.rejections(store, now_ms())

    readiness = Readiness(commit, meter)

    @routes.get("/healthz")
    @described(RouteSpec(answers={200: AliveDocument}, needs_record=False))
    def healthz() -> Response:
        """Report that the process is alive."""
        return jsonify(status="ok")

    @routes.get("/readyz")
    @described(RouteSpec(answers={200: ReadyDocument}, refuses=(401, 429)))
    def readyz() -> Response:
        """Report that a write was committed within the last second; if not, the response is a 503.

        The other members require the API token. Without a worker, the service is still ready,
        because callbacks can be stored. If the clock was set, the service is also ready, and the
        response has a member `clock` until the schedules are corrected. The same applies to a
        member `hooks_file`, while processes reject that file and use the previous one.
        """
        readiness.check()
        notes = {"hooks_file": HOOKS_REJECTED} if rejected else {}
        if (clock := watch.uncorrected()) is not None:
            notes["clock"] = clock if g.has_api_token else CLOCK_WAS_SET
        if not g.has_api_token:
            return jsonify(status="ok", **notes)
        now = now_ms()
        backlog = store.metrics.backlog(now, ingest.hooks, ingest.limits)
        oldest = backlog.oldest_due_at
        return jsonify(
            status="ok",
            worker_seen=is_worker_seen(store, now),
            deliveries_due=backlog.due,
            deliveries_dead=backlog.dead,
            backlog_age_seconds=0 if oldest is None else (now - oldest) / 1000,
            counters=_by_name(store.metrics.counters()),
            **notes,
        )

    return routes


def is_worker_seen(store: Store, now: int) -> bool:
    """Return whether a worker has reported recently that it runs."""
    seen_at = store.activity.last_seen("worker")
    # A time in the future was recorded before the clock was set back.
    return seen_at is not None and abs(now - seen_at) < GONE_AFTER


def name_of_this_process() -> str:
    """Return the name under which this process reports that it runs."""
    return f"{socket.gethostname()}:{os.getpid()}:web"


def _by_name(counters: Sequence[Counter]) -> dict[str, dict[str, int]]:
    """Return the counts by name and provider, such as `{"callbacks_missed": {"acme": 3}}`."""
    values: dict[str, dict[str, int]] = {}
    for counter in counters:
        values.setdefault(counter.name, {})[counter.provider] = counter.value
    return values

"""Is the process alive, can it store, and does somebody deliver?"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from flask import Blueprint, Response, jsonify

from receiver.clock import now_ms
from receiver.clock_watch import ClockWatch
from receiver.described import Description, described
from receiver.documents import AliveDocument, ReadyDocument
from receiver.stores.base import Counter, Store

WORKER_IS_GONE_AFTER = 30_000  # ms; workers are seen every 10 s


def blueprint(store: Store, watch: ClockWatch) -> Blueprint:
    routes = Blueprint("health", __name__)
    name = name_of_this_process()

    @routes.get("/healthz")
    @described(Description(answers={200: AliveDocument}, needs_record=False))
    def healthz() -> Response:
        """Alive."""
        return jsonify(status="ok")

    @routes.get("/readyz")
    @described(Description(answers={200: ReadyDocument}))
    def readyz() -> Response:
        """Ready: a write was just committed. Raises StoreUnavailable, which is a 503.

        A missing worker leaves it ready: callbacks can still be taken. So does a clock that was
        set, but then there is a member `clock`, until what is scheduled was corrected.
        """
        watch.look()
        clock = watch.uncorrected()
        now = now_ms()
        store.heartbeat(name, "web", now)
        backlog = store.backlog(now)
        oldest = backlog.oldest_due_at
        return jsonify(
            status="ok",
            worker_seen=is_worker_seen(store, now),
            deliveries_due=backlog.due,
            deliveries_dead=backlog.dead,
            backlog_age_seconds=0 if oldest is None else (now - oldest) / 1000,
            counters=_by_name(store.counters()),
            **({} if clock is None else {"clock": clock}),
        )

    return routes


def is_worker_seen(store: Store, now: int) -> bool:
    """Is somebody there who delivers?"""
    seen_at = store.seen("worker")
    # One seen in the future was seen before the clock was set back.
    return seen_at is not None and abs(now - seen_at) < WORKER_IS_GONE_AFTER


def name_of_this_process() -> str:
    """By which it is seen."""
    return f"{socket.gethostname()}:{os.getpid()}:web"


def _by_name(counters: Sequence[Counter]) -> dict[str, dict[str, int]]:
    """Such as `{"callbacks_missed": {"kling": 3}}`."""
    found: dict[str, dict[str, int]] = {}
    for counter in counters:
        found.setdefault(counter.name, {})[counter.provider] = counter.value
    return found

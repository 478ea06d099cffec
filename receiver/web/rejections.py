"""Records rejected requests in the background, and limits how many of them a sender may cause."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from threading import Lock

import structlog
from flask import Flask, Response, g, request

from receiver.clock import now_ms
from receiver.errors import StoreError
from receiver.stores.base import Store
from receiver.stores.sql.activity import Rejection
from receiver.text.display import one_line, redacted, redacted_path
from receiver.web.attempt_limiter import AttemptLimiter
from receiver.web.debounce import Debouncer
from receiver.web.problems import problem

MAX_KINDS = 200  # kinds of rejections between two writes; any others are counted together
WRITE_INTERVAL = 1.0  # minimum seconds between two writes
MAX_ATTEMPTS = 3
MAX_REASON = 300  # characters
OTHERS = "more rejected requests than are recorded one by one"
TOO_MANY = "Too many requests from your address were rejected; retry later."
log = structlog.get_logger()


class Rejections:
    """Collects rejected requests, counts equal ones, and regularly passes them to `write`.

    Between two writes, at least `interval` seconds pass.
    """

    def __init__(
        self, write: Callable[[Sequence[Rejection]], None], interval: float = WRITE_INTERVAL
    ) -> None:
        self._write, self._interval = write, interval
        self._counted: dict[tuple[str, ...], Rejection] = {}
        self._lock = Lock()
        self._debouncer = Debouncer(self.flush, interval)
        self._limiters: list[AttemptLimiter] = []

    def note(self, address: str, reason: str, method: str, path: str) -> None:
        """Count a rejected request. `path` is as received, and is redacted here."""
        method = method if method.isalpha() and len(method) <= 20 else "…"
        shown_reason = one_line(redacted(reason))[:MAX_REASON]
        key = (address[:64], shown_reason, method, redacted_path(path))
        with self._lock:
            if key not in self._counted and len(self._counted) >= MAX_KINDS:
                key = ("…", OTHERS, "…", "…")
            count = self._counted[key].count if key in self._counted else 0
            self._counted[key] = Rejection(now_ms(), *key, count=count + 1)
        self._debouncer.schedule()

    def close_with(self, limiter: AttemptLimiter) -> None:
        """Close and merge this limiter together with this object."""
        self._limiters.append(limiter)

    def merge(self) -> None:
        """Merge the limiters with those of other processes now."""
        for limiter in self._limiters:
            limiter.merge()

    def close(self) -> None:
        """Stop writing. Rejections that are not written yet are lost."""
        self._debouncer.close()
        for limiter in self._limiters:
            limiter.close()

    def flush(self) -> None:
        """Write the collected rejections. After MAX_ATTEMPTS failures, they are discarded."""
        with self._lock:
            rejections, self._counted = list(self._counted.values()), {}
        for attempt in range(1, MAX_ATTEMPTS + 1) if rejections else ():
            try:
                self._write(rejections)
            except StoreError as error:
                log.warning(
                    "rejected requests were not recorded", kinds=len(rejections), error=str(error)
                )
            else:
                return
            if attempt < MAX_ATTEMPTS:
                time.sleep(self._interval)


def install(app: Flask, store: Store, key: str) -> Callable[[Response], Response]:
    """Return a function for responses with status 4xx, see `reject`.

    All processes together limit a sender. A sender with a valid token or signature is never
    limited, because only rejected requests count. `key` makes the stored digests of networks
    unpredictable. The worker uses `app.extensions["rejections"]` for requests that never reach the
    application.
    """
    rejections = Rejections(store.activity.add_rejections)
    limiter = AttemptLimiter(store=store.sessions, key=key)
    rejections.close_with(limiter)
    app.extensions["rejections"] = rejections

    def reject(response: Response) -> Response:
        """Record the rejected request; return the response, or a 429 if there were too many."""
        address = request.remote_addr or ""
        status, is_for_callbacks = response.status_code, _is_for_callbacks()
        # The sender may have guessed a secret or a path.
        is_counted = status == HTTPStatus.UNAUTHORIZED or (
            status == HTTPStatus.NOT_FOUND and is_for_callbacks
        )
        wait = limiter.wait(address, time.monotonic()) if is_counted else None
        if is_for_callbacks:
            suffix = " (answered 429)" if wait else ""
            rejections.note(address, g.get("refusal", "") + suffix, request.method, request.path)
        if wait is None:
            return response
        return problem(429, TOO_MANY, headers={"Retry-After": str(math.ceil(wait))})

    return reject


def _is_for_callbacks() -> bool:
    """Return whether the request was for a callback route, or for no route.

    A sender of any other request below /api has proved that it has the API token.
    """
    if request.path == "/api" or request.path.startswith("/api/"):
        return False
    return request.url_rule is None or request.blueprint == "callbacks"

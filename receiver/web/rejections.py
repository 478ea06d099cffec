"""A trace of refused requests: bounded, and written beside the requests, never by them."""

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
from receiver.stores.upkeep import Rejection
from receiver.text.redaction import redacted, redacted_path
from receiver.web.attempt_limiter import AttemptLimiter
from receiver.web.debounce import Debouncer
from receiver.web.problems import problem

MOST_AT_ONCE = 200  # kinds of refusal between two writes; what is more is only counted
EVERY = 1.0  # seconds between two writes at the least
TRIES = 3
LONGEST_REASON = 300  # characters
MORE = "more refused requests than are kept one by one"
TOO_MANY = "Too many requests from your address were refused; try again later."
log = structlog.get_logger()


class Rejections:
    """Collects what was refused, counts what is equal, and hands it to `write` now and then."""

    def __init__(self, write: Callable[[Sequence[Rejection]], None], every: float = EVERY) -> None:
        self._write, self._every = write, every
        self._found: dict[tuple[str, ...], Rejection] = {}
        self._lock = Lock()
        self._later = Debouncer(self.flush, every)
        self._limits: list[AttemptLimiter] = []

    def note(self, address: str, reason: str, method: str, path: str) -> None:
        """Remember a refusal; `path` as it came."""
        method = method if method.isalpha() and len(method) <= 20 else "…"
        key = (address[:64], _plain(reason), method, redacted_path(path))
        with self._lock:
            if key not in self._found and len(self._found) >= MOST_AT_ONCE:
                key = ("…", MORE, "…", "…")
            count = self._found[key].count if key in self._found else 0
            self._found[key] = Rejection(now_ms(), *key, count=count + 1)
        self._later.ask()

    def close_with(self, limits: AttemptLimiter) -> None:
        """Close these limits together with this trace."""
        self._limits.append(limits)

    def merge(self) -> None:
        """Merge these limits with those of the other processes, without waiting for their turn."""
        for limits in self._limits:
            limits.merge()

    def close(self) -> None:
        """Stop writing now and then; what was noted and not yet written is dropped."""
        self._later.close()
        for limits in self._limits:
            limits.close()

    def flush(self) -> None:
        """Write what was collected; what cannot be written after some tries is let go."""
        with self._lock:
            found, self._found = list(self._found.values()), {}
        for attempt in range(1, TRIES + 1) if found else ():
            try:
                self._write(found)
            except StoreError as error:
                log.warning("refusals are not kept", kinds=len(found), error=str(error))
            else:
                return
            if attempt < TRIES:
                time.sleep(self._every)


def install(app: Flask, store: Store, key: str) -> None:
    """Note refused requests, and limit how many of them a sender may cause, in all processes.

    This looks at responses, so a sender with a valid token or signature is never limited. `key`
    makes the stored digests of networks unpredictable.
    """
    rejections, limits = Rejections(store.note_rejections), AttemptLimiter(store=store, key=key)
    rejections.close_with(limits)
    app.extensions["rejections"] = rejections  # the worker notes what never reaches the application

    @app.after_request
    def look(response: Response) -> Response:
        status = response.status_code
        if not 400 <= status < 500:
            return response
        address = request.remote_addr or ""
        wait = limits.wait(address, time.monotonic()) if _is_limited(status) else None
        if _is_for_callbacks():
            more = " (answered 429)" if wait else ""
            rejections.note(address, g.get("refusal", "") + more, request.method, request.path)
        if wait is None:
            return response
        return problem(429, TOO_MANY, headers={"Retry-After": str(math.ceil(wait))})


def _is_limited(status: int) -> bool:
    """Was a secret guessed, or a path?"""
    return status == HTTPStatus.UNAUTHORIZED or (
        status == HTTPStatus.NOT_FOUND and _is_for_callbacks()
    )


def _is_for_callbacks() -> bool:
    """Was it sent to a callback route, or to none? Whoever is below /api has shown its token."""
    if request.path == "/api" or request.path.startswith("/api/"):
        return False
    return request.url_rule is None or request.blueprint == "callbacks"


def _plain(reason: str) -> str:
    """One short line, safe for a terminal."""
    shown = "".join(letter if letter.isprintable() else "…" for letter in redacted(reason))
    return shown[:LONGEST_REASON]

"""One log line a request, by its route: paths hold tokens, and never reach a log.

Every line that a request causes has its id, which the answer names in `X-Request-Id`.
"""

from __future__ import annotations

import os
import re
import time

import structlog
from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

from receiver.text.redaction import redacted

log = structlog.get_logger()
QUIET = ("/healthz", "/readyz", "/metrics")
REQUEST_ID = "X-Request-Id"
_SANE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,63}")
_NAMED = {"task_id": "task", "delivery_id": "delivery", "callback_id": "callback"}
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def install(app: Flask, *, is_behind_proxy: bool) -> None:
    """Log what was asked and answered. A proxy of ours may say what a request is called."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()
        clear_contextvars()  # the thread served another request before
        given = request.headers.get(REQUEST_ID, "") if is_behind_proxy else ""
        g.request_id = request_id(given)
        bind_contextvars(request_id=g.request_id)

    @app.teardown_request
    def end(_: BaseException | None) -> None:
        clear_contextvars()  # the thread may log what concerns no request

    @app.after_request
    def report(response: Response) -> Response:
        request_id, started, rule = g.get("request_id"), g.get("started"), request.url_rule
        if request_id:
            response.headers[REQUEST_ID] = request_id
        route, status = rule.rule if rule else "unknown path", response.status_code
        if route in QUIET and status < 400:
            return response
        ms = round((time.perf_counter() - started) * 1000, 1) if started else None
        say = log.info if status < 400 else log.warning
        say("request", method=request.method, route=route, status=status, ms=ms)
        return response


def install_names(app: Flask) -> None:
    """Name the task, delivery or callback that an /api request is about in its lines.

    To be installed after those who refuse: what a stranger names is not logged.
    """

    @app.before_request
    def name() -> None:
        if request.path.startswith("/api/"):
            given = request.view_args or {}
            found = {_NAMED[key]: value for key, value in given.items() if key in _NAMED}
            bind_contextvars(**{key: one for key, one in found.items() if _ID.fullmatch(str(one))})


def request_id(given: str = "") -> str:
    """What a request is called: as it says itself, if that is sane."""
    return given if given and _is_sane(given) else os.urandom(16).hex()


def _is_sane(given: str) -> bool:
    """Is it short and plain, and nothing that would be hidden in a log?"""
    return _SANE.fullmatch(given) is not None and redacted(given) == given

"""One log line a request, by its route: paths hold tokens, and never reach a log."""

from __future__ import annotations

import time

import structlog
from flask import Flask, Response, g, request

log = structlog.get_logger()
QUIET = ("/healthz", "/readyz", "/metrics")


def install(app: Flask) -> None:
    """Log what was asked and answered."""

    @app.before_request
    def start() -> None:
        g.started = time.perf_counter()

    @app.after_request
    def report(response: Response) -> Response:
        route = request.url_rule.rule if request.url_rule else "unknown path"
        if route in QUIET and response.status_code < 400:
            return response
        say = log.info if response.status_code < 400 else log.warning
        say(
            "request",
            method=request.method,
            route=route,
            status=response.status_code,
            task=g.get("task_id"),
            ms=round((time.perf_counter() - g.started) * 1000, 1) if "started" in g else None,
        )
        return response

"""Requires the API token for the API and the metrics. If no token is set, both are disabled."""

from __future__ import annotations

import hmac
from collections.abc import Callable

import structlog
from flask import Response, g, request

from receiver.web.problems import problem

log = structlog.get_logger()
CHECKED_PATHS = ("/api", "/metrics", "/readyz")  # prefixes; for other paths no check is needed
REFUSED = "Send the API token: `Authorization: Bearer …`."


def token_check(token: str | None) -> Callable[[], Response | None]:
    """Return a function that rejects a request for /metrics or below /api without the token.

    It returns the 401, or None if the request may proceed, and sets `g.has_api_token`. On `/readyz`
    the token is optional, but a wrong one is rejected as well, so that it counts as an attempt.
    """
    expected = (token or "").encode()
    if not token:
        log.info("the API is disabled", enabled_by="API_TOKEN")

    def check() -> Response | None:
        path = request.path
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compare even if no token is set, so that the time does not reveal whether one is.
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogatepass"), expected)
        is_bearer = scheme.lower() == "bearer"
        g.has_api_token = bool(expected) and is_right and is_bearer
        is_required = path in ("/api", "/metrics") or path.startswith("/api/")
        is_wrong = path == "/readyz" and bool(expected) and is_bearer
        if g.has_api_token or not (is_required or is_wrong):
            return None
        g.unproven = "api_token"
        return problem(401, REFUSED, headers={"WWW-Authenticate": 'Bearer realm="api"'})

    return check

"""Requires the API token for the API and the metrics. Without a token set, both are disabled."""

from __future__ import annotations

import hmac

import structlog
from flask import Flask, Response, g, request

from receiver.web.problems import problem

log = structlog.get_logger()
REFUSED = "Send the API token: `Authorization: Bearer …`."


def install(app: Flask, token: str | None) -> None:
    """Refuse every request for /metrics or below /api without the token.

    `g.has_api_token` says whether a request has it. On `/readyz` the token is optional, but a wrong
    one is refused as well, so that it counts as an attempt.
    """
    expected = (token or "").encode()
    if not token:
        log.info("the API is closed", opened_by="API_TOKEN")

    @app.before_request
    def check() -> Response | None:
        path = request.path
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compared also where none is set, so that the time does not tell which it was.
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogatepass"), expected)
        is_bearer = scheme.lower() == "bearer"
        g.has_api_token = bool(expected) and is_right and is_bearer
        is_required = path in ("/api", "/metrics") or path.startswith("/api/")
        is_wrong = path == "/readyz" and bool(expected) and is_bearer
        if g.has_api_token or not (is_required or is_wrong):
            return None
        g.unproven = "api_token"
        return problem(401, REFUSED, headers={"WWW-Authenticate": 'Bearer realm="api"'})

"""Who may use the API: whoever knows its token; without one it is closed."""

from __future__ import annotations

import hmac

import structlog
from flask import Flask, Response, g, request

from receiver.web.problems import problem

log = structlog.get_logger()
REFUSED = "Send the API token: `Authorization: Bearer …`."


def install(app: Flask, token: str | None) -> None:
    """Refuse every request for /metrics or below /api that does not name the token."""
    expected = (token or "").encode()
    if not token:
        log.info("the API is closed", opened_by="API_TOKEN")

    @app.before_request
    def check() -> Response | None:
        path = request.path
        if path not in ("/api", "/metrics") and not path.startswith("/api/"):
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Compared also where none is set, so that the time does not tell which it was.
        is_right = hmac.compare_digest(given.strip().encode("utf-8", "surrogatepass"), expected)
        if expected and is_right and scheme.lower() == "bearer":
            return None
        g.unproven = "api_token"
        return problem(401, REFUSED, headers={"WWW-Authenticate": 'Bearer realm="api"'})

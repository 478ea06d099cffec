"""Allows pages of other origins to use the API (CORS). Cookies are never allowed."""

from __future__ import annotations

from collections.abc import Collection

from flask import Flask, Response, request

PATH = "/api/"
METHODS = "GET, POST"
HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Prefer"
EXPOSED = "Idempotent-Replayed, Location, Preference-Applied, Retry-After, X-Request-Id"
MAX_AGE = 600  # seconds for which a browser may cache the response to a preflight request


def install(app: Flask, origins: Collection[str]) -> None:
    """Allow exactly these origins. Call this before installing the check of the API token.

    A browser sends no token with a preflight request, so the response does not require one.
    """
    if not origins:
        return

    @app.before_request
    def preflight() -> Response | None:
        is_preflight = "Access-Control-Request-Method" in request.headers
        if request.method != "OPTIONS" or not is_preflight or not is_allowed():
            return None
        response = Response(status=204)
        response.headers["Access-Control-Allow-Methods"] = METHODS
        response.headers["Access-Control-Allow-Headers"] = HEADERS
        response.headers["Access-Control-Max-Age"] = str(MAX_AGE)
        return response

    @app.after_request
    def add_headers(response: Response) -> Response:
        if not request.path.startswith(PATH):
            return response
        response.vary.add("Origin")
        if is_allowed():
            response.headers["Access-Control-Allow-Origin"] = request.headers["Origin"]
            response.headers["Access-Control-Expose-Headers"] = EXPOSED
        return response

    def is_allowed() -> bool:
        return request.path.startswith(PATH) and request.headers.get("Origin") in origins

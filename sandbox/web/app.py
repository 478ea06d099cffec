"""Combines the providers and the pages into one web application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, render_template, request

from sandbox.providers import appypie, create_faults, kling, kling_envelope, modellix
from sandbox.web import inbox_pages, pages

if TYPE_CHECKING:
    from collections.abc import Callable

    from flask.typing import ResponseReturnValue
    from werkzeug.exceptions import HTTPException

    from sandbox.components import Components

LARGEST_REQUEST = 32 * 1024 * 1024  # two pictures of 10 MB as Base64, with a margin
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' {url}; "
    "frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)

# The responses to requests that match no route of a provider's API.
BEFORE_THE_APIS: dict[str, Callable[[HTTPException], ResponseReturnValue]] = {
    "/v1/": kling_envelope.before_the_api,
    "/api/": modellix.before_the_api,
    "/kling-ai-": appypie.before_the_api,
}


def create_app(parts: Components) -> Flask:
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = LARGEST_REQUEST
    # Kling's own client sends double slashes and does not follow redirects
    app.url_map.merge_slashes = False
    app.json.sort_keys = False  # type: ignore[attr-defined]  # of Flask's default provider
    app.jinja_options = {"trim_blocks": True, "lstrip_blocks": True}
    app.extensions["sandbox"] = parts
    app.register_blueprint(pages.routes)
    app.register_blueprint(inbox_pages.routes)
    for provider in (kling, modellix, appypie):
        app.register_blueprint(provider.routes)
    for status in (404, 405, 413):
        app.register_error_handler(status, _not_here)
    app.after_request(_guarded)
    app.after_request(create_faults.spoilt)
    return app


def _not_here(error: HTTPException) -> ResponseReturnValue:
    for prefix, answer in BEFORE_THE_APIS.items():
        if request.path.startswith(prefix):
            return answer(error)
    return render_template("error.html", error=error), error.code or 404


def _guarded(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cache-Control", "no-store")
    if "Content-Security-Policy" not in headers:
        headers["Content-Security-Policy"] = POLICY.format(url=request.host_url.rstrip("/"))
    return response

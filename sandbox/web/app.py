"""Combines the providers and the pages into one web application."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flask import Flask, Response, render_template, request
from werkzeug.exceptions import HTTPException

from sandbox.providers import appypie, create_faults, kling, kling_envelope, modellix
from sandbox.web import inbox_pages, pages

if TYPE_CHECKING:
    from flask.typing import ResponseReturnValue

    from sandbox.components import Components

LARGEST_REQUEST = 32 * 1024 * 1024  # two pictures of 10 MB as Base64, with a margin
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' {url}; "
    "frame-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'self'"
)

OWN_PAGES = "/_sandbox/"


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
    app.register_error_handler(HTTPException, _unsupported)
    app.after_request(_guarded)
    app.after_request(create_faults.spoilt)
    return app


def _unsupported(error: HTTPException) -> ResponseReturnValue:
    """Return the error that the provider would send for a call that matches no route.

    A browser gets a page. Kling's API has no prefix of its own, so all other calls are Kling's.
    """
    if request.path.startswith("/api/"):
        return modellix.before_the_api(error)
    if request.path.startswith(appypie.PREFIXES) or appypie.KEY_HEADER in request.headers:
        return appypie.before_the_api(error)
    is_browser = "text/html" in request.headers.get("Accept", "")
    if request.path.startswith(OWN_PAGES) or (is_browser and not request.path.startswith("/v1/")):
        return render_template("error.html", error=error), error.code or 500
    return kling_envelope.before_the_api(error)


def _guarded(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("X-Content-Type-Options", "nosniff")
    headers.setdefault("Referrer-Policy", "no-referrer")
    headers.setdefault("Cache-Control", "no-store")
    if "Content-Security-Policy" not in headers:
        headers["Content-Security-Policy"] = POLICY.format(url=request.host_url.rstrip("/"))
    return response

"""Renders pages and errors, and sets the headers of every response of the dashboard."""

from __future__ import annotations

import hashlib
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import structlog
from flask import Blueprint, g, make_response, redirect, render_template, request, url_for
from flask import Response as FlaskResponse
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.errors import NotFound, StoreUnavailable
from receiver.text import display
from receiver.web.dashboard import formats
from receiver.web.dashboard.attention import Attention, attention
from receiver.web.dashboard.page_context import PageContext

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: over TLS, the check against forged requests needs the header.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
OWN_PATH = re.compile(r"/dashboard/[!-\[\]-~]*")  # no backslash
UNKNOWN_PAGE = "This page does not exist."
STALE_FORM = "Nothing was done, because the form belongs to another session. Retry on this page."
UNAVAILABLE = "The record cannot be read at the moment. Retry soon."
log = structlog.get_logger()


def is_update() -> bool:
    """Return whether our script requests the page, to detect changes."""
    return "X-Live" in request.headers


def page(name: str, **values: Any) -> str:
    """Render the page. Our script gets it without the layout around it."""
    layout = "dashboard/live.html" if is_update() else "dashboard/layout.html"
    return render_template(f"dashboard/{name}.html", layout=layout, **values)


def to_dashboard() -> Response:
    """Redirect from `/` to the overview."""
    return redirect(url_for("dashboard.overview"))


def back(default: str, anchor: str | None = None) -> Response:
    """Redirect to the page and filter from which the form was sent, or else to `default`.

    `anchor` is the id of an element on that page.
    """
    path = request.form.get("back", "")
    page_path = path if OWN_PATH.fullmatch(path) and "#" not in path else default
    return redirect(f"{page_path}#{quote(anchor)}" if anchor else page_path, 303)


def this_page() -> str:
    """Return the path and query of the page, for the `back` field of its forms."""
    path = quote(request.path, safe="/:@")
    query = request.query_string.decode("ascii", "ignore")
    return f"{path}?{query}" if query else path


def problem(title: str, text: str | None, status: int) -> Response:
    """Return a page that explains an error."""
    return make_response(page("problem", title=title, text=text), status)


def install(routes: Blueprint, context: PageContext) -> None:
    """Add the template variables, the headers and the error pages."""
    _install_variables(routes, context)
    _install_error_pages(routes)

    @routes.after_request
    def add_headers(response: FlaskResponse) -> FlaskResponse:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint == "dashboard.static":
            return response
        response.headers.setdefault("Cache-Control", "private, no-store")
        response.vary.add("X-Live")
        if response.status_code == HTTPStatus.OK and response.mimetype == "text/html":
            response.set_etag(_digest(response))
            response.make_conditional(request)
            response.headers.pop("Date", None)  # `make_conditional` adds one, as does the server
        return response


def _install_variables(routes: Blueprint, context: PageContext) -> None:
    @routes.before_request
    def read_clock() -> None:
        g.now = now_ms()

    def problems() -> list[Attention]:
        if "problems" not in g:
            found = attention(context.store, context.hooks, g.now, context.hide)
            g.problems = list(found)
        problems: list[Attention] = g.problems
        return problems

    @routes.context_processor
    def variables() -> dict[str, Any]:
        return {
            "now": g.now,
            "is_logged_in": g.get("is_logged_in", False),
            "when": context.formats.when,
            "precise": context.formats.precise,
            "zone": context.formats.name,
            "ago": lambda instant: formats.ago(instant, g.now),
            "span": formats.span,
            "until": lambda instant: formats.until(instant, g.now),
            "cost_text": display.cost_text,
            "elapsed": lambda ms: formats.unbroken(display.elapsed(ms)),
            "size": formats.size,
            "number": formats.number,
            "written": formats.written,
            "hide": context.hide,
            "hooks_in_file": context.hooks,
            "dead_letters": lambda: context.delivery_counts()[State.DEAD],
            "problems": problems,
            "this_page": this_page,
        }


def _install_error_pages(routes: Blueprint) -> None:
    @routes.errorhandler(CSRFError)
    def stale_form(error: CSRFError) -> Response:
        log.warning("a form without a valid token", reason=error.description)
        return problem("Not done", STALE_FORM, 400)

    @routes.errorhandler(NotFound)
    def not_found(error: NotFound) -> Response:
        text = f"{error}"
        return problem("Not found", f"{text[:1].upper()}{text[1:]}.", 404)

    @routes.errorhandler(HTTPException)
    def http_error(error: HTTPException) -> Response:
        status = error.code or 500
        text = UNKNOWN_PAGE if status == HTTPStatus.NOT_FOUND else error.description
        return problem(HTTPStatus(status).phrase.capitalize(), text, status)

    @routes.errorhandler(StoreUnavailable)
    def unavailable(error: StoreUnavailable) -> Response:
        log.error("the record is unavailable", error=str(error))
        response = make_response(
            render_template("dashboard/unavailable.html", text=UNAVAILABLE), 503
        )
        response.headers["Retry-After"] = str(error.retry_after)
        return response

    @routes.get("/<path:_>")
    def unknown_page(_: str) -> Response:
        return problem("Not found", UNKNOWN_PAGE, 404)


def _digest(response: FlaskResponse) -> str:
    """Return a digest of the page without the token of its forms, which differs every time."""
    token = g.get("csrf_token", "")
    text = response.get_data().replace(token.encode(), b"") if token else response.get_data()
    return hashlib.blake2b(text, digest_size=16).hexdigest()

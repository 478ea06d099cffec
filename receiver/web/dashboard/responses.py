"""How every page is answered: what changed nothing is a 304, and a browser is told what is ours."""

from __future__ import annotations

import hashlib
from http import HTTPStatus
from typing import Any

from flask import (
    Blueprint,
    Response,
    g,
    redirect,
    render_template,
    request,
    url_for,
)
from werkzeug.wrappers import Response as AnyResponse

from receiver.clock import now_ms
from receiver.deliveries import State
from receiver.stores.base import Store
from receiver.web.dashboard import formats
from receiver.web.dashboard.page_context import PageContext

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not none at all: over TLS the check against forged requests looks at it.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def is_live() -> bool:
    """Does our script ask whether the page has changed?"""
    return "X-Live" in request.headers


def page(name: str, **values: Any) -> str:
    """The page; for our script without the frame around it."""
    layout = "dashboard/live.html" if is_live() else "dashboard/layout.html"
    return render_template(f"dashboard/{name}.html", layout=layout, **values)


def to_dashboard() -> AnyResponse:
    """Whoever comes to the address alone is looking for the pages."""
    return redirect(url_for("dashboard.overview"))


def back_to(task_id: str | None = None) -> AnyResponse:
    """To the page that an action was taken on."""
    if request.form.get("back") == "deliveries" or task_id is None:
        return redirect(url_for("dashboard.deliveries"), 303)
    return redirect(url_for("dashboard.task", task_id=task_id), 303)


def install(routes: Blueprint, desk: PageContext) -> None:
    @routes.before_request
    def read_the_clock() -> None:
        g.now = now_ms()

    @routes.context_processor
    def words() -> dict[str, Any]:
        return {
            "now": g.now,
            "may_look": g.get("may_look", False),
            "when": desk.formats.when,
            "precise": desk.formats.precise,
            "zone": desk.formats.name,
            "ago": lambda instant: formats.ago(instant, g.now),
            "span": formats.span,
            "took": formats.took,
            "size": formats.size,
            "number": formats.number,
            "written": formats.written,
            "hide": desk.hide,
            "known_hooks": desk.hooks,
            "dead_letters": lambda: _dead_letters(desk.store),
        }

    @routes.after_request
    def guard(response: Response) -> Response:
        for name, value in HEADERS.items():
            response.headers.setdefault(name, value)
        if request.endpoint == "dashboard.static":
            return response
        response.headers.setdefault("Cache-Control", "private, no-store")
        response.vary.add("X-Live")
        if response.status_code == HTTPStatus.OK and response.mimetype == "text/html":
            response.set_etag(_digest(response))
            response.make_conditional(request)
            response.headers.pop("Date", None)  # it adds one, and the server sends its own
        return response


def _digest(response: Response) -> str:
    """The same for the same page, whatever token its forms carry: that differs every time."""
    token = g.get("csrf_token", "")
    shown = response.get_data().replace(token.encode(), b"") if token else response.get_data()
    return hashlib.blake2b(shown, digest_size=16).hexdigest()


def _dead_letters(store: Store) -> int:
    return sum(one.value for one in store.metrics.delivery_counts() if one.state == State.DEAD)

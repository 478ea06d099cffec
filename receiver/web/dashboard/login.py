"""The login: the password, a limit on attempts, and the sessions.

A session is a signed cookie and a row in the store. Logging out deletes the row, and a new password
invalidates all sessions.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import secrets
import time
from typing import Any

import structlog
from flask import Blueprint, g, make_response, redirect, request, session, url_for
from flask_wtf import CSRFProtect
from werkzeug.wrappers import Response

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.stores.base import Store
from receiver.web.attempt_limiter import AttemptLimiter
from receiver.web.dashboard.responses import OWN_PATH, is_update, page
from receiver.web.request_lifecycle import SESSION_LIFETIME

BURST, PER_SECOND = 10, 0.1  # attempts of one network: first at any rate, then one in ten seconds
PUBLIC_ENDPOINTS = ("dashboard.login", "dashboard.try_password", "dashboard.static")
log = structlog.get_logger()


def install(
    routes: Blueprint, store: Store, settings: Settings, csrf: CSRFProtect
) -> AttemptLimiter:
    """Require the password for every page, and the session's form token for every action.

    Returns the limiter of password attempts, which all processes share. The caller closes it.
    """
    limiter = AttemptLimiter(
        BURST, PER_SECOND, kind="password", store=store.sessions, key=settings.session_key
    )
    password = (settings.dashboard_password or "").encode()
    if settings.dashboard_password is None:
        log.info("the dashboard is disabled", enabled_by="DASHBOARD_PASSWORD")

    @routes.before_request
    def require_login() -> Response | None:
        if request.endpoint == "dashboard.static":
            return None
        if settings.dashboard_password is None:
            return make_response(page("disabled"), 403)
        g.is_logged_in = is_open(store, settings)
        csrf.protect()
        is_allowed = g.is_logged_in or request.endpoint in PUBLIC_ENDPOINTS
        return None if is_allowed else _to_login()

    @routes.get("/login")
    def login() -> str | Response:
        return redirect(_next_page()) if g.is_logged_in else page("login", next=_next_page())

    @routes.post("/login")
    def try_password() -> Response:
        address = request.remote_addr or ""
        # Every attempt counts, even a correct one; otherwise, an attacker over the limit could
        # recognise the password.
        wait = limiter.wait(address, time.monotonic())
        if wait is not None:
            log.warning("too many dashboard passwords from one network", address=address)
            seconds = math.ceil(wait)
            response = _login_again(f"Too many attempts. Wait {seconds} s, then try again.", 429)
            response.headers["Retry-After"] = str(seconds)
            return response
        given = request.form.get("password", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, password):
            log.warning("a wrong dashboard password", address=address)
            g.unproven = "dashboard_password"
            return _login_again("The password is wrong.", 401)
        next_page = _next_page()
        begin(store, settings)
        return redirect(next_page)

    @routes.post("/logout")
    def logout() -> Response:
        end(store)
        return redirect(url_for("dashboard.login"))

    return limiter


def begin(store: Store, settings: Settings) -> None:
    """Open a session for the client, and end its previous one. Raises StoreUnavailable."""
    end(store)
    session.clear()  # nothing from before the login may be used after it
    session_id, now = secrets.token_urlsafe(32), now_ms()
    store.sessions.open(_digest(session_id), now, now + SESSION_LIFETIME * 1000)
    session.permanent = True
    session["id"], session["proof"] = session_id, _proof(settings)


def is_open(store: Store, settings: Settings) -> bool:
    """Return whether the client has an open session that began with the current password.

    Raises StoreUnavailable.
    """
    session_id, proof = _session_text("id"), _session_text("proof")
    if not session_id or not hmac.compare_digest(proof, _proof(settings)):
        return False
    return store.sessions.is_open(_digest(session_id), now_ms())


def end(store: Store) -> None:
    """End the client's session in all processes, so that a copy of its cookie is invalid.

    Raises StoreUnavailable. The browser then keeps the cookie, and can log out again.
    """
    session_id = _session_text("id")
    if session_id:
        store.sessions.close(_digest(session_id))
    session.clear()


def _session_text(name: str) -> str:
    value: Any = session.get(name, "")
    return value if isinstance(value, str) else ""


def _digest(session_id: str) -> str:
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()


def _proof(settings: Settings) -> str:
    key, password = settings.session_key, settings.dashboard_password or ""
    return hmac.digest(key.encode(), f"password:{password}".encode(), "sha256").hex()


def _to_login() -> Response:
    """Redirect to the login, and from there back to the page. Our script gets a 401."""
    if is_update():
        return Response("The session has ended.", 401, mimetype="text/plain")
    path = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("dashboard.login", next=path))


def _login_again(problem: str, status: int) -> Response:
    return make_response(page("login", next=_next_page(), problem=problem), status)


def _next_page() -> str:
    """Return the path to open after the login: the requested one if it is a page of ours."""
    path = request.values.get("next", "")
    is_own_page = OWN_PATH.fullmatch(path) and not path.startswith("/dashboard/log")
    return path if is_own_page else url_for("dashboard.overview")

"""The login to the pages: the password, compared in constant time, and a limit on attempts."""

from __future__ import annotations

import hmac
import math
import re
import time

import structlog
from flask import Blueprint, Response, g, make_response, redirect, request, url_for
from flask_wtf import CSRFProtect
from werkzeug.wrappers import Response as AnyResponse

from receiver.config.settings import Settings
from receiver.stores.base import Store
from receiver.web.attempt_limiter import AttemptLimiter
from receiver.web.dashboard import sessions
from receiver.web.dashboard.responses import is_live, page

BURST, PER_SECOND = 10, 0.1  # tries at once from one address; and then one in ten seconds
OPEN = ("dashboard.login", "dashboard.try_password", "dashboard.static")
_INSIDE = re.compile(r"/dashboard/[!-\[\]-~]*")  # a path of ours; no backslash
log = structlog.get_logger()


def limits(store: Store, settings: Settings) -> AttemptLimiter:
    """The limits on passwords from one network, in all processes together."""
    return AttemptLimiter(
        BURST, PER_SECOND, kind="password", store=store.sessions, key=settings.session_key
    )


def install(
    routes: Blueprint, store: Store, settings: Settings, csrf: CSRFProtect, limits: AttemptLimiter
) -> None:
    """Require the password for every page, and the page's own token for every action."""
    if settings.dashboard_password is None:
        log.info("the dashboard is closed", opened_by="DASHBOARD_PASSWORD")

    @routes.before_request
    def gate() -> AnyResponse | None:
        if request.endpoint == "dashboard.static":
            return None
        if settings.dashboard_password is None:
            return make_response(page("closed"), 403)
        g.may_look = sessions.is_open(store, settings)
        csrf.protect()
        return None if g.may_look or request.endpoint in OPEN else _shown_the_door()

    _serve(routes, store, settings, limits)


def _serve(routes: Blueprint, store: Store, settings: Settings, limits: AttemptLimiter) -> None:
    password = (settings.dashboard_password or "").encode()

    @routes.get("/login")
    def login() -> str | AnyResponse:
        if g.may_look:
            return redirect(_wanted())
        return page("login", wanted=_wanted())

    @routes.post("/login")
    def try_password() -> AnyResponse:
        address = request.remote_addr or ""
        # Every try costs: an answer only to the right one would tell it even to who has to wait.
        wait = limits.wait(address, time.monotonic())
        if wait is not None:
            log.warning("too many dashboard passwords from one network", address=address)
            return _told_to_wait(math.ceil(wait))
        given = request.form.get("password", "").encode("utf-8", "surrogatepass")
        if not hmac.compare_digest(given, password):
            log.warning("a wrong dashboard password", address=address)
            g.unproven = "dashboard_password"
            problem = "That is not the password."
            return make_response(page("login", wanted=_wanted(), problem=problem), 401)
        wanted = _wanted()
        sessions.begin(store, settings)
        return redirect(wanted)

    @routes.post("/logout")
    def logout() -> AnyResponse:
        sessions.end(store)
        return redirect(url_for("dashboard.login"))


def _shown_the_door() -> AnyResponse:
    """To the login, and from there back to the page; our script is only told."""
    if is_live():
        return Response("The session has ended.", 401, mimetype="text/plain")
    wanted = request.full_path.rstrip("?") if request.method == "GET" else None
    return redirect(url_for("dashboard.login", next=wanted))


def _told_to_wait(seconds: int) -> AnyResponse:
    problem = f"Too many tries from your address; wait {seconds} s."
    response = make_response(page("login", wanted=_wanted(), problem=problem), 429)
    response.headers["Retry-After"] = str(seconds)
    return response


def _wanted() -> str:
    """The page that was asked for: one of ours, whatever the address says."""
    wanted = request.values.get("next", "")
    is_ours = _INSIDE.fullmatch(wanted) and not wanted.startswith("/dashboard/log")
    return wanted if is_ours else url_for("dashboard.overview")

"""Surrounds every request: assigns an id, checks the API token, counts, and logs one line.

Paths contain tokens, so a log line names the route instead. Every log line of a request has its id,
which is also in the `X-Request-Id` header of the response.
"""

from __future__ import annotations

import hmac
import os
import re
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from flask import Flask, Request, Response, g, request
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface
from structlog.contextvars import bind_contextvars, clear_contextvars

from receiver.config.settings import Settings
from receiver.observability import metrics
from receiver.observability.metrics import MetricBuffer
from receiver.text.display import redacted
from receiver.web.debounce import Debouncer
from receiver.web.live.listener import HAND_OVER, TaskWait
from receiver.web.problems import problem

log = structlog.get_logger()
QUIET_ROUTES = ("/healthz", "/readyz", "/metrics")  # logged only if they fail
REQUEST_ID = "X-Request-Id"
BEGUN = "receiver.begun"  # in the environ: when the request began, and its id
# The prefixes of the paths for which the API token is checked.
CHECKED_PATHS = ("/api", "/metrics", "/readyz")
REFUSED = "Send the API token: `Authorization: Bearer …`."
DISABLED = (
    "The API is disabled, because API_TOKEN is not set. Set it for the web process and restart it, "
    "then send `Authorization: Bearer …` with its value."
)
DASHBOARD = "/dashboard"
SESSION_LIFETIME = 43_200  # seconds
_VALID_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{7,63}")
_LOGGED_ARGUMENTS = {"task_id": "task", "delivery_id": "delivery", "callback_id": "callback"}
_LOGGED_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def request_id(assigned: str | None, *, is_behind_proxy: bool) -> str:
    """Return the id of a request: the one that our proxy assigned, if it is valid, or a random one.

    `assigned` is the value of the X-Request-Id header.
    """
    given = assigned or "" if is_behind_proxy else ""
    is_valid = _VALID_REQUEST_ID.fullmatch(given) and redacted(given) == given
    return given if is_valid else os.urandom(16).hex()


class RequestReport:
    """Counts finished requests and logs a line for each. Flask and the callback app use it."""

    def __init__(self, meter: MetricBuffer, flush: Debouncer) -> None:
        self._meter, self._flush = meter, flush

    def finished(
        self, method: str, route: str, status: int, seconds: float | None, *, is_callback: bool
    ) -> None:
        """Report a request. `seconds` is how long it took; None if that is unknown."""
        if is_callback and seconds is not None:
            self._meter.observe(metrics.CALLBACK_SECONDS, seconds, str(status))
        if not self._flush.is_scheduled and self._meter.is_pending:
            self._flush.schedule()
        if route in QUIET_ROUTES and status < 400:
            return
        write_line = log.info if status < 400 else log.warning
        ms = None if seconds is None else round(seconds * 1000, 1)
        write_line("request", method=method, route=route, status=status, ms=ms)

    def close(self) -> None:
        """Stop flushing the counts."""
        self._flush.close()


def install(
    app: Flask,
    report: RequestReport,
    meter: MetricBuffer,
    reject: Callable[[Response], Response],
    hide: Callable[[str], str],
    api_token: str | None,
    *,
    is_behind_proxy: bool,
) -> None:
    """Surround every request of this application.

    `reject` notes a request that gets a 4xx, and may replace its response. `hide` removes known
    secrets from responses of `/api`, because another service may have repeated them.
    """
    check_token = token_check(api_token)

    @app.before_request
    def begin() -> Response | None:
        clear_contextvars()  # the thread may have served another request before
        given = request.headers.get(REQUEST_ID)
        # After a wait, the application is called again for the same request.
        g.started, g.request_id = request.environ.setdefault(
            BEGUN, (time.perf_counter(), request_id(given, is_behind_proxy=is_behind_proxy))
        )
        bind_contextvars(request_id=g.request_id)
        if not request.path.startswith(CHECKED_PATHS):
            return None
        refusal = check_token()
        if refusal is None:  # the ids in the path of an unauthenticated request are not logged
            _bind_ids()
        return refusal

    @app.after_request
    def finish(response: Response) -> Response:
        if isinstance(request.environ.get(HAND_OVER), TaskWait):
            return response  # discarded, because the application is called again after the wait
        if request.path.startswith("/api/") and response.is_json:
            response.set_data(hide(response.get_data(as_text=True)))
        if 400 <= response.status_code < 500:
            response = reject(response)
        status, started, rule = response.status_code, g.get("started"), request.url_rule
        if status >= 400:
            _count_failure(meter)
        if "request_id" in g:
            response.headers[REQUEST_ID] = g.request_id
        report.finished(
            request.method,
            rule.rule if rule else "unknown path",
            status,
            time.perf_counter() - started if started else None,
            is_callback=request.blueprint == "callbacks",
        )
        clear_contextvars()  # later lines of this thread may concern no request
        return response


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
        detail = REFUSED if expected else DISABLED
        return problem(401, detail, headers={"WWW-Authenticate": 'Bearer realm="api"'})

    return check


class DashboardSessionInterface(SecureCookieSessionInterface):
    """Flask's sessions, but only for the dashboard: a callback opens none."""

    def __init__(self, public_url: str | None) -> None:
        parts = urlsplit(public_url or "")
        self._https_host = parts.netloc if parts.scheme == "https" else None

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if not request.path.startswith(DASHBOARD):
            return self.make_null_session(app)
        return super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's signature
        """Return whether the browser uses TLS, even if the proxy does not report it."""
        return request.is_secure or request.host == self._https_host


def configure_sessions(app: Flask, settings: Settings) -> None:
    """Let the dashboard have sessions: set their cookie, their key and their lifetime."""
    app.session_interface = DashboardSessionInterface(settings.public_url)
    app.config.update(
        SECRET_KEY=settings.session_key,
        SESSION_COOKIE_NAME="dashboard",
        SESSION_COOKIE_PATH=DASHBOARD,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,  # an open page does not extend its session
        PERMANENT_SESSION_LIFETIME=SESSION_LIFETIME,
        WTF_CSRF_CHECK_DEFAULT=False,  # `require_login` checks; callbacks and the API have no forms
        WTF_CSRF_TIME_LIMIT=None,  # the session limits it
    )


def _bind_ids() -> None:
    """Add the task, delivery or callback in the path of an API request to its log lines."""
    if not request.path.startswith("/api/"):
        return
    for argument, value in (request.view_args or {}).items():
        if argument in _LOGGED_ARGUMENTS and _LOGGED_ID.fullmatch(str(value)):
            bind_contextvars(**{_LOGGED_ARGUMENTS[argument]: value})


def _count_failure(meter: MetricBuffer) -> None:
    """Count a failed authentication, or that the record was unavailable; see `problems`."""
    if g.get("unproven"):
        meter.count(metrics.VERIFICATION_FAILURES, g.unproven)
    if g.get("store_failed"):
        meter.store_failed()

"""Sessions: a signed cookie that only /dashboard sees; whoever changes the password ends them."""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from receiver.settings import Settings

PATH = "/dashboard"
LASTS = 43_200  # seconds


class Sessions(SecureCookieSessionInterface):
    """Flask's own, for the pages alone: a callback opens none."""

    def __init__(self, public_url: str | None) -> None:
        parts = urlsplit(public_url or "")
        self._https_host = parts.netloc if parts.scheme == "https" else None

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if not request.path.startswith(PATH):
            return self.make_null_session(app)
        return super().open_session(app, request)

    def get_cookie_secure(self, app: Flask) -> bool:  # noqa: ARG002 - Flask's signature
        """Did the browser come by TLS? A proxy in front may not say so."""
        return request.is_secure or request.host == self._https_host


def install(app: Flask, settings: Settings) -> None:
    app.session_interface = Sessions(settings.public_url)
    app.config.update(
        SECRET_KEY=settings.session_key,
        SESSION_COOKIE_NAME="dashboard",
        SESSION_COOKIE_PATH=PATH,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_REFRESH_EACH_REQUEST=False,  # a page left open does not stay open for ever
        PERMANENT_SESSION_LIFETIME=LASTS,
        WTF_CSRF_CHECK_DEFAULT=False,  # the pages ask for it; callbacks and /api have no forms
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session that it belongs to
    )


def begin(settings: Settings) -> None:
    """Whoever sent this request has shown the password."""
    session.clear()  # what was there before must not count after
    session.permanent = True
    session["proof"] = _proof(settings)


def is_open(settings: Settings) -> bool:
    """Has whoever sent this request shown the password that is set today?"""
    shown: Any = session.get("proof", "")
    return isinstance(shown, str) and hmac.compare_digest(shown, _proof(settings))


def _proof(settings: Settings) -> str:
    key, password = settings.session_key, settings.dashboard_password or ""
    return hmac.digest(key.encode(), f"password:{password}".encode(), "sha256").hex()

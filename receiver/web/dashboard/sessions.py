"""Sessions of the dashboard: a signed cookie, and a row in the store that logging out deletes.

A new password ends all sessions as well.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any
from urllib.parse import urlsplit

from flask import Flask, Request, request, session
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface

from receiver.clock import now_ms
from receiver.config.settings import Settings
from receiver.stores.base import Store

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


def begin(store: Store, settings: Settings) -> None:
    """Open a session for the sender of this request, and end the one that it had.

    Raises StoreUnavailable.
    """
    end(store)
    session.clear()  # nothing from before the login may count after it
    identity, now = secrets.token_urlsafe(32), now_ms()
    store.sessions.open(_digest(identity), now, now + LASTS * 1000)
    session.permanent = True
    session["id"], session["proof"] = identity, _proof(settings)


def is_open(store: Store, settings: Settings) -> bool:
    """Whether the sender of this request has an open session, begun with the current password.

    Raises StoreUnavailable.
    """
    identity, shown = _text("id"), _text("proof")
    if not identity or not hmac.compare_digest(shown, _proof(settings)):
        return False
    return store.sessions.is_open(_digest(identity), now_ms())


def end(store: Store) -> None:
    """End the session in all processes, so that a copy of its cookie is invalid.

    Raises StoreUnavailable; then the browser still has the cookie, and can log out again.
    """
    identity = _text("id")
    if identity:
        store.sessions.close(_digest(identity))
    session.clear()


def _text(name: str) -> str:
    found: Any = session.get(name, "")
    return found if isinstance(found, str) else ""


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()


def _proof(settings: Settings) -> str:
    key, password = settings.session_key, settings.dashboard_password or ""
    return hmac.digest(key.encode(), f"password:{password}".encode(), "sha256").hex()

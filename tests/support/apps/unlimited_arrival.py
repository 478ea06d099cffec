"""The web process of `wsgi.py`, without time limits for receiving a request.

Served by `gunicorn tests.support.apps.unlimited_arrival:app`. A slow request is never ended, so a
test can show that other requests do not wait for it.
"""

from __future__ import annotations

from receiver.text import limits

UNLIMITED = 1e6  # seconds
limits.REQUEST_TIMEOUT = limits.LONG_REQUEST_TIMEOUT = UNLIMITED

from wsgi import app  # noqa: E402 - the limits have to be long first

__all__ = ["app"]

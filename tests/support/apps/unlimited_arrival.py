"""The web process of `wsgi.py`, which waits for the bytes of a request for as long as it takes.

Served by `gunicorn tests.support.apps.unlimited_arrival:app`. No time limit ends a request that
arrives slowly, so whatever is answered meanwhile was not kept waiting by it.
"""

from __future__ import annotations

from receiver.text import limits

UNLIMITED = 1e6  # seconds
limits.REQUEST_TIMEOUT = limits.LONG_REQUEST_TIMEOUT = UNLIMITED

from wsgi import app  # noqa: E402 - the limits have to be long first

__all__ = ["app"]

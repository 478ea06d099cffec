"""The web process of `wsgi.py` without time limits, for tests that do not concern them.

Served by `gunicorn tests.support.apps.unhurried:app`. On a very busy machine, a commit or a client
may take longer than the product's limits allow; here, no request is refused because of that.
"""

from __future__ import annotations

from receiver.stores import group_commit
from receiver.text import limits
from tests.support.apps.unlimited_arrival import UNLIMITED, app

group_commit.PATIENCE = group_commit.PATIENCE_WHEN_STUCK = UNLIMITED
limits.WRITE_TIMEOUT = limits.CLOSE_TIMEOUT = UNLIMITED

__all__ = ["app"]

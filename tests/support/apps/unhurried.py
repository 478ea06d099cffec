"""The web process of `wsgi.py` without time limits: for tests that are not about them.

Served by `gunicorn tests.support.apps.unhurried:app`. On a machine that is very busy, a commit or
a client may take longer than the limits of the product allow. Here nothing is refused for that.
"""

from __future__ import annotations

from receiver.stores import group_commit
from receiver.text import limits
from tests.support.apps.unlimited_arrival import UNLIMITED, app

group_commit.PATIENCE = group_commit.PATIENCE_WHEN_STUCK = UNLIMITED
limits.WRITE_TIMEOUT = limits.CLOSE_TIMEOUT = UNLIMITED

__all__ = ["app"]

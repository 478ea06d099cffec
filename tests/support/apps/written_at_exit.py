"""The web process of `wsgi.py`, which writes metrics and rejections only when it ends.

Served by `gunicorn tests.support.apps.written_at_exit:app`.
"""

from __future__ import annotations

from collections.abc import Callable

from receiver.web.debounce import Debouncer

NEVER = 1e6  # seconds
start = Debouncer.__init__


def start_seldom(later: Debouncer, run: Callable[[], None], _: float) -> None:
    start(later, run, NEVER)


Debouncer.__init__ = start_seldom  # type: ignore[method-assign,assignment]

from tests.support.apps.unhurried import app  # noqa: E402 - the application has to be made late

__all__ = ["app"]

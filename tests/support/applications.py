"""Applications made in the process of the tests, and what they leave let go of."""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flask import Flask

from receiver.settings import Settings
from receiver.web import Routes, create_app

MakeApp = Callable[..., Flask]  # as `create_app` does


@contextmanager
def applications() -> Iterator[MakeApp]:
    """Makes applications that last as long as the block."""
    with ExitStack() as made:

        def make(settings: Settings | None = None, more: tuple[Routes, ...] = ()) -> Flask:
            app = create_app(settings, more)
            made.callback(_let_go, app)
            return app

        yield make


def _let_go(app: Flask) -> None:
    """Close what a web process keeps to its end: each holds connections, and a thread."""
    direct, rejections = app.extensions["direct"], app.extensions["rejections"]
    for later in (direct._hand_over, rejections._later):
        atexit.unregister(later._run)
        timer = later._timer
        if timer is not None:
            timer.cancel()
    direct._ingest.store.close()

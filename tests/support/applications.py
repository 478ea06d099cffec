"""Flask applications that run in the test process and are closed after use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from flask import Flask

from receiver.config.settings import Settings
from receiver.web import Routes, create_app

MakeApp = Callable[..., Flask]  # as in `create_app`


@contextmanager
def applications() -> Iterator[MakeApp]:
    """Return a function that makes applications; they are closed at the end of the block."""
    with ExitStack() as made:

        def make(settings: Settings | None = None, more: tuple[Routes, ...] = ()) -> Flask:
            app = create_app(settings, more)
            made.callback(_close, app)
            return app

        yield make


def _close(app: Flask) -> None:
    """Close the connections and threads of an application, as its process does when it ends."""
    app.extensions["rejections"].close()
    app.extensions["callbacks"].close()


def merge(app: Flask) -> None:
    """Add the attempts counted by this application to those of the other processes."""
    app.extensions["rejections"].merge()

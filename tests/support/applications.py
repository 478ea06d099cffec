"""Flask applications that run in the test process and are closed after use."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import CodeType

from flask import Flask
from jinja2 import BytecodeCache
from jinja2.bccache import Bucket

from receiver.config.settings import Settings
from receiver.web import Routes, create_app
from tests.support import lazy_routes


class CompiledTemplates(BytecodeCache):
    """Keeps the compiled templates of this process: compiling them takes longer than most tests."""

    def __init__(self) -> None:
        # By the name of the template and a hash of its source.
        self._code: dict[tuple[str, str], CodeType | None] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._code.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._code[bucket.key, bucket.checksum] = bucket.code


lazy_routes.install()
TEMPLATES = CompiledTemplates()
MakeApp = Callable[..., Flask]  # as `create_app` does


@contextmanager
def applications() -> Iterator[MakeApp]:
    """Return a function that makes applications; they are closed at the end of the block."""
    with ExitStack() as made:

        def make(settings: Settings | None = None, more: tuple[Routes, ...] = ()) -> Flask:
            app = create_app(settings, more)
            app.jinja_env.bytecode_cache = TEMPLATES
            made.callback(_close, app)
            return app

        yield make


def _close(app: Flask) -> None:
    """Close the connections and threads of an application, as its process does when it ends."""
    app.extensions["rejections"].close()
    app.extensions["live"].close()
    app.extensions["callbacks"].close()


def merge(app: Flask) -> None:
    """Add the attempts counted by this application to those of the other processes."""
    app.extensions["rejections"].merge()

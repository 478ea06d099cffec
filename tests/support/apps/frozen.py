"""A web process that returns the state of Python's garbage collector.

Served by `gunicorn tests.support.apps.frozen:app`.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable
from typing import Any

import wsgi  # noqa: F401 - what a web process imports


def app(_: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{gc.get_freeze_count()} {gc.get_threshold()[0]}".encode()]

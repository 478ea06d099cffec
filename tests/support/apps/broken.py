"""The web process with a bug that logs all of its data; a test starts it."""

from __future__ import annotations

from typing import Any, NoReturn

import structlog
from flask import request

from receiver.stores.sql.inbox import Inbox
from receiver.stores.sqlite import SqliteStore
from tests.support.apps.unhurried import app

__all__ = ["app"]


def breaks(_: SqliteStore, *__: Any, **___: Any) -> NoReturn:
    said = f"{request.url} {dict(request.headers)} {request.get_data(as_text=True)}"
    structlog.get_logger().error("a careless line", said=said, headers=list(request.headers))
    raise ZeroDivisionError(said)


def is_left_to_flask(_: SqliteStore, *__: Any, **___: Any) -> NoReturn:
    raise ZeroDivisionError


Inbox.record = breaks  # type: ignore[method-assign,assignment]
Inbox.submit = is_left_to_flask  # type: ignore[method-assign,assignment]

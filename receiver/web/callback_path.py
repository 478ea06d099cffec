"""Normalizes the path of a callback that its sender or a proxy has altered."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# A query or fragment whose first character was percent-encoded or is missing.
_APPENDED = re.compile(r"[?&#;]")
_INVISIBLE = "\u200b\u2060\ufeff"  # not spaces according to Unicode
LENGTHS = (2, 4)  # number of parts: the provider, or the provider, task and token


def normalized(path: str) -> str:
    """Return the path of a callback without additions; return any other path unchanged.

    Removes repeated and trailing slashes, spaces around each part, and a query after the token.
    Decodes remaining percent-encodings. The provider, the task and the token do not change, because
    they never contain such characters.
    """
    if "callbacks" not in path:
        return path
    plain = _APPENDED.split(unquote(path), maxsplit=1)[0]
    parts = [part.strip().strip(_INVISIBLE).strip() for part in plain.split("/")]
    parts = [part for part in parts if part]
    found = "/" + "/".join(parts)
    is_callback = len(parts) in LENGTHS and parts[0] == "callbacks" and found.isascii()
    return found if is_callback else path


class CallbackPaths:
    """WSGI middleware that normalizes the paths of callbacks."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").encode("latin-1").decode("utf-8", "replace")
        found = normalized(path)
        if found != path:
            environ["PATH_INFO"] = found
        return self._app(environ, start_response)

"""Every request to a URL from outside goes through this package, which refuses unsafe ones.

`receiver.outgoing.http` has the functions; they are also available here, and imported on first use,
because importing `requests` is slow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from receiver.outgoing.http import (
        Response,
        StreamedResponse,
        TooManyRedirects,
        UrlRefused,
        failure,
        is_unavailable,
        origin,
        post,
        prepare,
        retry_after,
        stream,
        without_path,
    )

__all__ = [
    "Response",
    "StreamedResponse",
    "TooManyRedirects",
    "UrlRefused",
    "failure",
    "is_unavailable",
    "origin",
    "post",
    "prepare",
    "retry_after",
    "stream",
    "without_path",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from receiver.outgoing import http  # noqa: PLC0415 - see above

    found = globals()[name] = getattr(http, name)  # for the next use
    return found

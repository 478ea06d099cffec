"""Every request to a URL from outside goes through this package, which refuses unsafe ones.

- `http`: send one request within a total deadline, to a public address only, and read a limited
  response. Its functions and classes are also names of this package, imported when they are used,
  because `requests` takes long to import.
- `ssrf_guard`: the `requests` session that resolves a name once, checks the address, and connects
  to that address. Its `is_public` decides which addresses are public.
- `socket_guard`: the same check for libraries that open their own connections.
- `deadline`: a total time limit for all operations of a block.
- `urls`: URLs in the form in which browsers send them.
- `retry`: when a failed attempt is repeated.

No request uses a proxy or `.netrc` from the environment, and no error message contains more of a
URL than its scheme, host and port, because paths and queries may contain secrets.
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
        retry_after,
        stream,
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
    "retry_after",
    "stream",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from receiver.outgoing import http  # noqa: PLC0415 - see above

    return getattr(http, name)

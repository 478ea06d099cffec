"""Serves something other than the picture at a result's URL, if the scenario requires it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from flask import Response

from sandbox.scenarios import odd_results
from sandbox.scenarios.faults import ResultFault

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from werkzeug.datastructures import Headers

DRIP = 0.5  # seconds between two bytes
LONGEST_DRIP = 600  # bytes
HUGE = 2 * 1024**3  # bytes, generated while they are sent
CHUNK = 64 * 1024
ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{}</Code><Message>Request has expired</Message></Error>"""
REFUSALS = {
    ResultFault.EXPIRED: (403, "AccessDenied"),
    ResultFault.SECOND_MISSING: (403, "AccessDenied"),
    ResultFault.EXPIRED_400: (400, "ExpiredToken"),
    ResultFault.EXPIRED_401: (401, "Unauthorized"),
    ResultFault.GONE: (410, "Gone"),
    ResultFault.MISSING: (404, "NoSuchKey"),
    ResultFault.OVERLOADED: (503, "SlowDown"),
}
RETRY_AFTER = 2  # seconds
MOVED = "試着の結果"
PAGE = (
    '<!doctype html><html lang="en"><title>Sign in</title>'
    "<main><h1>Sign in</h1><p>Please sign in to continue.</main>"
)

# Bodies that are served as image/png instead of the picture.
BODIES: dict[ResultFault, Callable[[bytes], bytes]] = {
    ResultFault.AVIF: lambda picture: odd_results.in_format(picture, "AVIF"),
    ResultFault.BMP: lambda picture: odd_results.in_format(picture, "BMP"),
    ResultFault.TIFF: lambda picture: odd_results.in_format(picture, "TIFF"),
    ResultFault.HEIC: lambda _: odd_results.heic(),
    ResultFault.UNKNOWN_FORMAT: lambda _: odd_results.of_unknown_format(),
    ResultFault.TWO_PICTURES: odd_results.with_two_pictures,
    ResultFault.METADATA: odd_results.with_metadata,
    ResultFault.ERROR_CODE: lambda _: b"error code: 1015",
    ResultFault.JSON: lambda _: b'{"error": {"code": 1015, "message": "You are rate limited"}}',
    ResultFault.SVG: lambda _: b'<svg xmlns="http://www.w3.org/2000/svg"><rect/></svg>',
    ResultFault.NOT_A_PICTURE: lambda _: PAGE.encode(),
    ResultFault.UTF_16: lambda _: PAGE.encode("utf-16"),
    ResultFault.BROKEN: lambda picture: picture[: len(picture) // 2],
    ResultFault.SHORT: lambda _: b"\0\1\2",
}


class RawRedirect(Response):
    """A redirect whose Location is raw UTF-8, with spaces around it."""

    def __init__(self, location: str) -> None:
        super().__init__(status=302)
        self._location = location

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        headers = super().get_wsgi_headers(environ)
        headers["Location"] = f"  {self._location}  ".encode().decode("latin-1")
        return headers


def served(fault: ResultFault, picture: bytes, moved: str) -> Response:
    """Return the response of a result URL with this fault; `moved` is the redirect target."""
    if fault in REFUSALS:
        status, code = REFUSALS[fault]
        headers = {"Retry-After": str(RETRY_AFTER)} if status == 503 else {}
        return Response(ERROR.format(code), status, headers, mimetype="application/xml")
    if fault in BODIES:
        return Response(BODIES[fault](picture), mimetype="image/png")
    if fault is ResultFault.SIGN_IN:
        return Response(status=302, headers={"Location": "/_sandbox/sign-in"})
    if fault is ResultFault.RAW_REDIRECT:
        return RawRedirect(moved)
    if fault is ResultFault.PROXIED:
        return Response(picture, 203, mimetype="image/png")
    if fault in (ResultFault.RANGE, ResultFault.HALF):
        size = len(picture) if fault is ResultFault.RANGE else len(picture) // 2
        headers = {"Content-Range": f"bytes 0-{size - 1}/{len(picture)}"}
        return Response(picture[:size], 206, headers, mimetype="image/png")
    if fault is ResultFault.CUT_SHORT:
        headers = {"Content-Length": str(len(picture)), "Connection": "close"}
        return Response(iter([picture[:-1000]]), headers=headers, mimetype="image/png")
    body = _drip(picture) if fault is ResultFault.SLOW else _endless(picture)
    return Response(body, mimetype="image/png")


def _drip(picture: bytes) -> Iterator[bytes]:
    for at in range(min(len(picture), LONGEST_DRIP)):
        yield picture[at : at + 1]
        time.sleep(DRIP)


def _endless(picture: bytes) -> Iterator[bytes]:
    yield picture
    for _ in range(HUGE // CHUNK):
        yield bytes(CHUNK)

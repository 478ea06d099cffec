"""What the URL of a result gives instead of the picture, where a scenario wants that."""

from __future__ import annotations

import time
from collections.abc import Iterator

from flask import Response

from sandbox.faults import ResultFault

DRIP = 0.5  # seconds between two bytes
LONGEST_DRIP = 600  # bytes
HUGE = 2 * 1024**3  # bytes; made while they are sent
CHUNK = 64 * 1024
EXPIRED = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"""
PAGE = "<!doctype html><title>Sign in</title><p>Please sign in to continue."


def served(fault: ResultFault, picture: bytes) -> Response:
    """The answer at the URL of a result with this fault."""
    if fault is ResultFault.EXPIRED:
        return Response(EXPIRED, 403, mimetype="application/xml")
    if fault is ResultFault.MISSING:
        return Response(EXPIRED.replace("AccessDenied", "NoSuchKey"), 404, mimetype="text/xml")
    if fault is ResultFault.NOT_A_PICTURE:
        return Response(PAGE, mimetype="image/png")
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

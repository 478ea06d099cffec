"""Checks a picture, given as a path or a URL, and prepares it for the request."""

from __future__ import annotations

import base64
import io
import re
import stat
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image

from receiver.errors import DeliveryFailure
from receiver.outgoing import http
from receiver.pictures import thumbnails
from receiver.pictures.file_types import HEAD, JPEG, PNG, UNKNOWN, detect, text_in
from receiver.text.display import redacted
from submitter.errors import InputError
from submitter.providers.base import is_url

# Kling: "no larger than 10 MB", which we take to mean 10 x 1024 x 1024 bytes of the file itself,
# before it is encoded as Base64.
MAX_BYTES = 10 * 1024 * 1024
MIN_SIDE = 300  # px
LONGEST_AUTHORITY = 1_000  # characters; a DNS name has at most 253
FETCH_WITHIN = 30.0  # seconds
# Our own limit: the check for completeness decodes the picture, which takes about 200 MB of memory.
MAX_PIXELS = 64_000_000
# A picture of which only a part was sent fails the check of its content.
FETCHED = (HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION, HTTPStatus.PARTIAL_CONTENT)
FORMATS = ("JPEG", "PNG")
BASE64_STARTS = ("/9j/", "iVBORw0KGgo")  # JPEG and PNG
LONGEST_SHOWN = 200  # characters of a path
RAW_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{256,}={0,2}")


def prepare(field: str, given: str) -> str:
    """Return the value for the request: a URL unchanged, or the file's content as raw Base64.

    Raises InputError, which names `field`.
    """
    if is_url(given) and given[:5].lower() != "data:":
        return _url(field, given)
    # Raw: without a `data:` prefix and without line breaks, as Kling requires.
    return base64.b64encode(load(field, given)).decode("ascii")


def resolve_path(given: str, folder: Path | None) -> str:
    """Return a relative path as one in `folder`, and any other text unchanged."""
    if folder is None or is_url(given) or given[:5].lower() == "data:":
        return given
    return str(folder / given)


def fetch(field: str, url: str, allow_private: bool = False, within: float = FETCH_WITHIN) -> bytes:
    """Fetch at most 10 MB from the URL, within this number of seconds. Raises InputError."""
    try:
        with http.stream(
            url, deadline=within, max_bytes=MAX_BYTES, allow_private=allow_private
        ) as incoming:
            if incoming.status in FETCHED:
                return b"".join(incoming.chunks)
            problem = f"{http.origin(url)}: HTTP {incoming.status}"
    except DeliveryFailure as failure:
        problem = str(failure).split(";", maxsplit=1)[0]  # the rest is for hooks
    raise InputError(
        field, f"the picture cannot be fetched ({problem}); save it and give the path of the file"
    )


def load(field: str, given: str, fetch_url: Callable[[str, str], bytes] = fetch) -> bytes:
    """Return the content of the picture at this path or URL. Raises InputError."""
    if given[:5].lower() == "data:":
        raise InputError(field, "is a data: URL; give the path of the picture or an http(s) URL")
    content = fetch_url(field, _url(field, given)) if is_url(given) else read(field, given)
    shown = given if len(given) <= LONGEST_SHOWN else f"{given[:LONGEST_SHOWN]}…"
    check(field, content, f"{redacted(shown)} ")
    return content


def read(field: str, path: str) -> bytes:
    """Return the content of a regular file of at most 10 MB. Raises InputError."""
    try:
        # Checked before it is opened, because opening a pipe would wait for a writer.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(field, f"{path} is not a file; give the path of a picture")
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(field, _why_unreadable(path, error)) from None
    if not content:
        raise InputError(field, f"{path} is empty")
    return content


def check(field: str, content: bytes, subject: str = "") -> None:
    """Raise InputError unless this is the content of a picture that providers accept.

    The message begins with `subject`, such as the path of the picture and a space.
    """
    if problem := _problem_of(content):
        raise InputError(field, f"{subject}{problem}")


def _problem_of(content: bytes) -> str | None:
    if len(content) > MAX_BYTES:
        return "is larger than 10 MB; make it smaller"
    if problem := _problem_of_format(content[:HEAD]):
        return problem
    try:
        with thumbnails.opened(io.BytesIO(content), FORMATS) as image:
            width, height = image.size
            if min(width, height) < MIN_SIDE:
                return f"is {width} x {height} px; both sides must be at least {MIN_SIDE} px"
            if width * height > MAX_PIXELS:
                return f"is {width} x {height} px; use at most {MAX_PIXELS:,} pixels in total"
            image.load()  # the only way to detect a missing end
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"has more than {MAX_PIXELS:,} pixels; make it smaller"
    except thumbnails.BROKEN as error:
        return f"is a damaged or truncated picture ({thumbnails.reason(error)}); save it again"
    return None


def _problem_of_format(head: bytes) -> str | None:
    file_type = detect(head)
    name = file_type.extension.upper()
    if file_type in (JPEG, PNG):
        return None
    if file_type.is_image:
        return f"is a {name} picture; save it as JPEG or PNG (providers accept nothing else)"
    if file_type is not UNKNOWN:
        return f"is a file of type {name}, not a JPEG or PNG picture"
    problem = "it is text" if text_in(head) else "its format is unknown"
    return f"is not a JPEG or PNG picture: {problem}"


def _url(field: str, given: str) -> str:
    authority = re.split("[/?#]", given.partition("://")[2], maxsplit=1)[0]
    try:
        # `urlsplit` takes quadratic time for a host that consists of combining characters.
        parts = urlsplit(given if len(authority) <= LONGEST_AUTHORITY else "")
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_usable = False
    # `urlsplit` removes line breaks, so they are searched for in the original text.
    if not is_usable or re.search(r"[\s\x00-\x1f\x7f]", given):
        raise InputError(field, f"{given[:80]!r} is not an http or https URL")
    return given


def _why_unreadable(path: str, error: OSError | ValueError) -> str:
    if path.startswith(BASE64_STARTS) or RAW_BASE64.fullmatch(path.rstrip()):
        return "is Base64; give the path of the picture or an http(s) URL"
    shown = path if len(path) <= LONGEST_SHOWN else f"{path[:LONGEST_SHOWN]}…"
    if isinstance(error, FileNotFoundError):
        return f"{shown} does not exist"
    reason = (isinstance(error, OSError) and error.strerror) or "not a path"
    return f"{shown!r} cannot be read: {reason}"

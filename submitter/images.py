"""Turns a path or a URL into what a provider is sent, after checking all that can be checked."""

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
from submitter.errors import InputError

# Kling: "no larger than 10 MB". Taken to mean the file's own bytes, and a megabyte as 1024 x 1024;
# as Base64 in the request it grows by a third.
MOST_BYTES = 10 * 1024 * 1024
LEAST_SIDE = 300  # px
LONGEST_AUTHORITY = 1_000  # characters; a DNS name has at most 253
FETCH_WITHIN = 30.0  # seconds
# Ours: what has to be decoded to see that it is whole must fit into memory (about 200 MB).
MOST_PIXELS = 64_000_000
# What is left of a picture of which a part is missing does not pass the check of what was fetched.
COMPLETE = (HTTPStatus.OK, HTTPStatus.NON_AUTHORITATIVE_INFORMATION, HTTPStatus.PARTIAL_CONTENT)
FORMATS = ("JPEG", "PNG")
BASE64_STARTS = ("/9j/", "iVBORw0KGgo")  # JPEG and PNG
RAW_BASE64 = re.compile(r"[A-Za-z0-9+/\s]{256,}={0,2}")


def prepare(field: str, given: str) -> str:
    """What goes into the request: a URL as it is, or the file's bytes as raw Base64.

    `field` names the option in the InputError that is raised for anything that cannot be used.
    """
    if is_url(given) and given[:5].lower() != "data:":
        return _url(field, given)
    # Raw: no `data:` prefix and no line breaks, as the provider wants it.
    return base64.b64encode(load(field, given)).decode("ascii")


def is_url(given: str) -> bool:
    """Is it meant as one? No Base64 and hardly a path has this near its beginning."""
    return "://" in given[:32]


def located(given: str, folder: Path | None) -> str:
    """The same picture for someone who is elsewhere: relative paths start at `folder`."""
    if folder is None or is_url(given) or given[:5].lower() == "data:":
        return given
    return str(folder / given)


def fetch(field: str, url: str, allow_private: bool = False, within: float = FETCH_WITHIN) -> bytes:
    """The picture at this URL, of at most 10 MB, in so many seconds. Raises InputError."""
    try:
        with http.stream(
            url, deadline=within, max_bytes=MOST_BYTES, allow_private=allow_private
        ) as incoming:
            if incoming.status in COMPLETE:
                return b"".join(incoming.chunks)
            trouble = f"{http.origin(url)}: HTTP {incoming.status}"
    except DeliveryFailure as failure:
        trouble = str(failure).split(";", maxsplit=1)[0]  # what follows is advice for hooks
    raise InputError(
        field, f"a picture cannot be fetched ({trouble}); save it and give the path of the file"
    )


def load(field: str, given: str, fetched: Callable[[str, str], bytes] = fetch) -> bytes:
    """The bytes of a picture that the provider would take, wherever it is. Raises InputError."""
    if given[:5].lower() == "data:":
        raise InputError(field, "is a data: URL; give the path of the picture or an http(s) URL")
    content = fetched(field, _url(field, given)) if is_url(given) else read(field, given)
    check(field, content)
    return content


def read(field: str, path: str) -> bytes:
    """The bytes of a regular file of at most 10 MB. Raises InputError."""
    try:
        # Looked at before it is opened: opening a pipe would wait for a writer.
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise InputError(field, f"{path} is not a file; give the path of a picture")
        with Path(path).open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(field, _why_unreadable(path, error)) from None
    if not content:
        raise InputError(field, f"{path} is empty")
    return content


def check(field: str, content: bytes) -> None:
    """Is this a picture that the provider takes? Judged by content. Raises InputError."""
    if len(content) > MOST_BYTES:
        raise InputError(field, "is larger than 10 MB; make it smaller")
    _check_format(field, content[:HEAD])
    try:
        with thumbnails.opened(io.BytesIO(content), FORMATS) as image:
            _check_shape(field, image)
            image.load()  # the only way to detect a missing end
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError(field, f"has more than {MOST_PIXELS:,} pixels; make it smaller") from None
    except thumbnails.BROKEN as error:
        why = thumbnails.reason(error)
        raise InputError(
            field, f"is a damaged or truncated picture ({why}); save it again"
        ) from None


def _check_format(field: str, head: bytes) -> None:
    found = detect(head)
    if found in (JPEG, PNG):
        return
    name = found.extension.upper()
    if found.is_image:
        raise InputError(
            field, f"is a {name} picture; save it as JPEG or PNG (providers accept nothing else)"
        )
    if found is not UNKNOWN:
        raise InputError(field, f"is a file of type {name}, not a JPEG or PNG picture")
    problem = "it is text" if text_in(head) else "its format is unknown"
    raise InputError(field, f"is not a JPEG or PNG picture: {problem}")


def _check_shape(field: str, image: Image.Image) -> None:
    width, height = image.size
    if min(width, height) < LEAST_SIDE:
        raise InputError(
            field, f"is {width} x {height} px; both sides must be at least {LEAST_SIDE} px"
        )
    if width * height > MOST_PIXELS:
        raise InputError(
            field, f"is {width} x {height} px; use at most {MOST_PIXELS:,} pixels in all"
        )


def _url(field: str, given: str) -> str:
    authority = re.split("[/?#]", given.partition("://")[2], maxsplit=1)[0]
    try:
        # For a host of combining characters, `urlsplit` takes quadratic time.
        parts = urlsplit(given if len(authority) <= LONGEST_AUTHORITY else "")
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        is_usable = False
    # Before Python looks at it, urlsplit drops line breaks: they are looked for in the original.
    if not is_usable or re.search(r"[\s\x00-\x1f\x7f]", given):
        raise InputError(field, f"{given[:80]!r} is not an http or https URL")
    return given


def _why_unreadable(path: str, error: OSError | ValueError) -> str:
    if path.startswith(BASE64_STARTS) or RAW_BASE64.fullmatch(path.rstrip()):
        return "is Base64; give the path of the picture or an http(s) URL"
    shown = path if len(path) <= 200 else f"{path[:200]}…"
    if isinstance(error, FileNotFoundError):
        return f"{shown} does not exist"
    reason = (isinstance(error, OSError) and error.strerror) or "not a path"
    return f"{shown!r} cannot be read: {reason}"

"""Reads an input picture from a field of a create request."""

from __future__ import annotations

import base64
import binascii
import io
from urllib.parse import urlsplit

import requests
import requests_hardened
from PIL import Image

MOST_BYTES = 10 * 1024 * 1024
LEAST_SIDE = 300
MOST_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG")
FETCH_TIMEOUT = (3.0, 10.0)
# Only public addresses: otherwise the sandbox would give access to the network in which it runs.
PUBLIC = requests_hardened.Manager(
    requests_hardened.Config(
        ip_filter_enable=True,
        ip_filter_allow_loopback_ips=False,
        never_redirect=True,
        default_timeout=FETCH_TIMEOUT,
    )
)


class InputError(ValueError):
    """The picture cannot be used. The message gives the reason without naming the field."""


def read(value: str, own_url: str) -> bytes:
    """Return the picture in `value` (raw Base64 or a URL); raise InputError."""
    is_url = value.startswith(("http://", "https://"))
    content = _fetch(value, own_url) if is_url else _decode(value)
    check(content)
    return content


def check(content: bytes) -> None:
    """Apply Kling's limits: JPEG or PNG by content, at most 10 MB, both sides >= 300 px."""
    if len(content) > MOST_BYTES:
        raise InputError("is larger than 10 MB")
    width, height = _size(content)
    if min(width, height) < LEAST_SIDE:
        raise InputError(f"is {width}x{height} px; both sides must be at least {LEAST_SIDE} px")
    if width * height > MOST_PIXELS:
        raise InputError(f"is {width}x{height} px, which is too many")


def _size(content: bytes) -> tuple[int, int]:
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return image.size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InputError("has too many pixels") from None
    except (OSError, ValueError, SyntaxError):
        raise InputError("is not a JPEG or PNG picture") from None


def _decode(value: str) -> bytes:
    if value.startswith("data:"):
        raise InputError("must be raw Base64 without the `data:` prefix")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("is neither a URL nor valid Base64") from None


def _fetch(url: str, own_url: str) -> bytes:
    try:
        with _session_for(url, own_url) as session:
            # a proxy would connect to addresses that the filter does not see
            session.trust_env = False
            with session.get(
                url, timeout=FETCH_TIMEOUT, allow_redirects=False, stream=True
            ) as answer:
                return _at_most(answer)
    except InputError:
        raise
    except (requests.RequestException, ValueError) as fault:
        raise InputError(f"could not be fetched: {type(fault).__name__}") from None


def _session_for(url: str, own_url: str) -> requests.Session:
    is_own = urlsplit(url)[:2] == urlsplit(own_url)[:2]
    public: requests.Session = PUBLIC.get_session()
    return requests.Session() if is_own else public


def _at_most(answer: requests.Response) -> bytes:
    if answer.status_code != requests.codes.ok:
        raise InputError(f"could not be fetched: HTTP {answer.status_code}")
    content = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        content += chunk
        if len(content) > MOST_BYTES:
            raise InputError("is larger than 10 MB")
    return bytes(content)

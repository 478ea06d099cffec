"""Reads an input picture from a field of a create request."""

from __future__ import annotations

import base64
import binascii
import io
from dataclasses import dataclass
from importlib import resources
from urllib.parse import urlsplit

import requests
import requests_hardened
from PIL import Image
from requests_hardened.ip_filter import InvalidIPAddress

from sandbox.components import components

MOST_BYTES = 10 * 1024 * 1024
LEAST_SIDE = 300
MOST_PIXELS = 64_000_000
FORMATS = ("JPEG", "PNG")
FETCH_TIMEOUT = (3.0, 10.0)
# Domains reserved for documentation (RFC 2606), and the pictures that the samples on the vendors'
# pages name. The sandbox has a picture of its own for these, so that each sample runs unchanged.
DOCUMENTATION_DOMAINS = ("example", "example.com", "example.net", "example.org")
PICTURES_OF_SAMPLES = (
    "https://p1-kling.klingai.com/kcdn/cdn-kcdn112452/kling-qa-test/",
    "https://pub-582b7213209642b9b995c96c95a30381.r2.dev/",
    "https://storage.googleapis.com/imagesai.appypie.com/testing/",
)
PERSON, GARMENT = "person.jpg", "garment.png"
PRIVATE_ADDRESS = (
    "could not be fetched: its host has no public address; start the sandbox with "
    "`sandbox serve --allow-private` to fetch it"
)
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


@dataclass(frozen=True)
class PictureSource:
    """Reads input pictures. `own_url`: the URL of the sandbox, which is always fetched."""

    own_url: str
    allow_private: bool = False  # also fetch from private and loopback addresses

    def read(self, value: str, sample_name: str) -> bytes:
        """Return the picture in `value` (raw Base64 or a URL).

        `sample_name` names the picture that replaces one of the vendors' samples. Raises
        InputError.
        """
        if not value.startswith(("http://", "https://")):
            content = _decode(value)
        elif _is_of_a_sample(value):
            content = sample(sample_name)
        else:
            content = self._fetch(value)
        check(content)
        return content

    def _fetch(self, url: str) -> bytes:
        try:
            with self._session_for(url) as session:
                # a proxy would connect to addresses that the filter does not see
                session.trust_env = False
                with session.get(
                    url, timeout=FETCH_TIMEOUT, allow_redirects=False, stream=True
                ) as answer:
                    return _at_most(answer)
        except InputError:
            raise
        except InvalidIPAddress:
            raise InputError(PRIVATE_ADDRESS) from None
        except requests.Timeout:
            raise InputError("could not be fetched: its host did not respond in time") from None
        except (requests.exceptions.InvalidURL, ValueError):
            raise InputError("could not be fetched: its URL is invalid") from None
        except requests.RequestException:
            raise InputError("could not be fetched: its host cannot be reached") from None

    def _session_for(self, url: str) -> requests.Session:
        if self.allow_private or urlsplit(url)[:2] == urlsplit(self.own_url)[:2]:
            return requests.Session()
        public: requests.Session = PUBLIC.get_session()
        return public


def source() -> PictureSource:
    """Return the reader of the sandbox that serves the current request."""
    return PictureSource(components().url, components().allow_private)


def sample(name: str) -> bytes:
    """Return one of the two sample pictures of the sandbox, PERSON or GARMENT."""
    return (resources.files("sandbox") / "images" / name).read_bytes()


def _is_of_a_sample(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    is_reserved = any(f".{host}".endswith(f".{domain}") for domain in DOCUMENTATION_DOMAINS)
    return is_reserved or url.startswith(PICTURES_OF_SAMPLES)


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


def _at_most(answer: requests.Response) -> bytes:
    if answer.status_code != requests.codes.ok:
        raise InputError(f"could not be fetched: HTTP {answer.status_code}")
    content = bytearray()
    for chunk in answer.iter_content(64 * 1024):
        content += chunk
        if len(content) > MOST_BYTES:
            raise InputError("is larger than 10 MB")
    return bytes(content)

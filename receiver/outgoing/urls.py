"""Normalizes URLs of servers and providers as browsers do (the WHATWG URL standard).

`requests` follows RFC 3986 instead, and rejects or misinterprets some URLs that browsers accept.
This module only normalizes; `http` decides whether a URL may be requested.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urljoin

SCHEMES = ("http", "https")
LONGEST_HOST = 4_000  # escaped characters; a DNS name has at most 253
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
# Spaces, control characters and non-ASCII characters are sent escaped.
_SENT_AS_IS = frozenset(range(0x21, 0x7F))
# Parsers disagree about a decoded host that contains one of these.
_FORBIDDEN_IN_HOSTS = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]")


def redirect_target(header: str, base: str) -> str | None:
    """Return the URL that a Location header leads to; None if the header is empty.

    `header` is text as HTTP libraries decode it, one character per byte. Raises ValueError if it
    does not lead to an http or https URL.
    """
    try:
        raw = header.encode("latin-1")
    except UnicodeEncodeError:  # the library decoded UTF-8
        raw = header.encode("utf-8", "surrogateescape")
    return _absolute(raw, base)


def normalized(url: str) -> str:
    """Return an absolute http or https URL in the form that is sent. Raises ValueError."""
    found = _absolute(url.encode("utf-8", "replace"), None)
    if found is None:
        raise ValueError("the URL is empty")
    return found


def _absolute(raw: bytes, base: str | None) -> str | None:
    text = "".join(chr(byte) if byte < 0x80 else f"%{byte:02X}" for byte in raw)
    text = re.sub(r"[\t\n\r]", "", text.strip(_C0_AND_SPACE))
    if not text:
        return None
    text, _, _ = text.partition("#")  # a fragment is not sent
    path, question_mark, query = text.partition("?")
    text = path.replace("\\", "/") + question_mark + query
    return _with_ascii_host(_escaped(_resolved(text, base)))


def _resolved(text: str, base: str | None) -> str:
    """Return the absolute URL. As in browsers, any number of slashes may precede a host."""
    own_scheme = base.partition(":")[0] if base else ""
    if match := _SCHEME.fullmatch(text):
        scheme, rest = match[1].lower(), match[2]
        if scheme not in SCHEMES:
            raise ValueError(f"{scheme}: is neither http nor https")
        if rest.startswith("//") or scheme != own_scheme:
            return f"{scheme}://{rest.lstrip('/')}"
        text = rest
    elif text.startswith("//") and base:
        return f"{own_scheme}://{text.lstrip('/')}"
    if not base:
        raise ValueError("the URL is not absolute")
    return urljoin(base, text)


def _escaped(url: str) -> str:
    """Escape characters that cannot be sent unescaped, and a percent sign that escapes nothing."""
    escaped = "".join(c if ord(c) in _SENT_AS_IS else f"%{ord(c):02X}" for c in url)
    return _STRAY_PERCENT.sub("%25", escaped)


def _with_ascii_host(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    login, at, place = authority.rpartition("@")
    port = found[0] if (found := re.search(r":[0-9]*\Z", place)) else ""
    host = place.removesuffix(port)
    if not 0 < len(host) <= LONGEST_HOST:
        raise ValueError("the URL has no host")
    if "%" in host:
        host = _decoded_host(host)
    return f"{scheme}://{login}{at}{host}{port}{rest[len(authority) :]}"


def _decoded_host(host: str) -> str:
    """Return the DNS name of an escaped or internationalised host. Raises ValueError."""
    import idna  # noqa: PLC0415 - the import is slow, and rarely needed

    name = unquote_to_bytes(host).decode("utf-8")
    name = name if name.isascii() else idna.encode(name, uts46=True).decode()
    if _FORBIDDEN_IN_HOSTS.search(name):
        raise ValueError("the host contains a character that is not allowed in a host name")
    return name

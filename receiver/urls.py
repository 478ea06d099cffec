"""URLs as browsers read them (the WHATWG URL standard), for URLs that servers and providers write.

`requests` follows RFC 3986 instead, and refuses or misreads some of what browsers accept. Only the
spelling is settled here; `outgoing` decides whether a URL may be reached.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes, urljoin

SCHEMES = ("http", "https")
LONGEST_HOST = 4_000  # characters, escaped: a name in DNS has at most 253
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_C0_AND_SPACE = "".join(map(chr, range(0x21)))
# Neither a space nor a control character, nor one that is not ASCII, is sent as it is.
_SENT_AS_IS = frozenset(range(0x21, 0x7F))
# A host that holds one of these after decoding is read differently by different parsers.
_FORBIDDEN_IN_HOSTS = re.compile(r"[\x00-\x20#%/:<>?@\[\\\]^|\x7f]")


def located(header: str, base: str) -> str | None:
    """The URL that a Location header leads to; None if the header is empty, like a missing one.

    `header` is text as HTTP libraries decode it, one character for each byte. Raises ValueError if
    it leads to no http or https URL.
    """
    try:
        raw = header.encode("latin-1")
    except UnicodeEncodeError:  # a library that decoded UTF-8
        raw = header.encode("utf-8", "surrogateescape")
    return _absolute(raw, base)


def usable(url: str) -> str:
    """An absolute http or https URL in the spelling that is sent. Raises ValueError."""
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
    """The absolute URL; as in browsers, slashes are missing or too many before a host."""
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
    """Escape what cannot be sent as it is, and a percent sign that escapes nothing."""
    escaped = "".join(c if ord(c) in _SENT_AS_IS else f"%{ord(c):02X}" for c in url)
    return _STRAY_PERCENT.sub("%25", escaped)


def _with_ascii_host(url: str) -> str:
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?]", rest, maxsplit=1)[0]
    login, at, place = authority.rpartition("@")
    port = found[0] if (found := re.search(r":[0-9]*\Z", place)) else ""
    host = place.removesuffix(port)
    if not 0 < len(host) <= LONGEST_HOST:
        raise ValueError("the URL names no host")
    if "%" in host:
        host = _decoded_host(host)
    return f"{scheme}://{login}{at}{host}{port}{rest[len(authority) :]}"


def _decoded_host(host: str) -> str:
    """An escaped or internationalised host as DNS has it. Raises ValueError."""
    import idna  # noqa: PLC0415 - it takes long to import, and few need it

    name = unquote_to_bytes(host).decode("utf-8")
    name = name if name.isascii() else idna.encode(name, uts46=True).decode()
    if _FORBIDDEN_IN_HOSTS.search(name):
        raise ValueError("the host holds a character that no host name has")
    return name

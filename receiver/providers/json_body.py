"""Reads the JSON object in a body: tolerantly from providers, strictly from our own users."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import BYTE_ORDER_MARK

MAX_DEPTH = 200  # levels of arrays and objects in a provider's message; real ones have four
MAX_OWN_DEPTH = 32  # the same for requests to our own API
MAX_DIGITS = 100  # of an integer; reading a much longer one takes long
MAX_KEY = 40  # characters of a key that an error shows
_NO_KEYS: frozenset[str] = frozenset()


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys are repeated; each has the last of its values."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.repeated = frozenset(key for key, count in counts.items() if count > 1)


def repeated(document: Mapping[str, Any]) -> frozenset[str]:
    """Return the keys that the JSON object contains more than once."""
    return document.repeated if isinstance(document, RepeatedKeys) else _NO_KEYS


def decode(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body, read as tolerantly as its meaning allows.

    Accepts a byte order mark, UTF-16 and UTF-32, control characters in strings, NaN, and numbers of
    any size. Bytes that are not text are replaced. If an object repeats a key, the last value is
    used, and `repeated` returns the key. Raises NotJson, also for more than MAX_DEPTH levels, and
    NotTheProtocol for JSON that is not an object.
    """
    is_utf_8 = body[:1] == b"{" and body[1:2] != b"\0"  # true of nearly all bodies
    encoding = "utf-8" if is_utf_8 else json.detect_encoding(body)
    decoded = body.decode(encoding, "replace").strip(BYTE_ORDER_MARK + " \t\r\n")
    return _object_in(decoded, _TOLERANT, MAX_DEPTH)


def decode_strictly(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request to our API, or in a row of a file.

    Rejects everything that Python's parser accepts but that cannot be stored or repeated: NaN and
    Infinity, also as an exponent that is too large, a repeated key, a lone surrogate, NUL, and more
    than MAX_OWN_DEPTH levels. Raises NotJson, and NotTheProtocol for JSON that is not an object.
    """
    try:
        decoded = body.decode("utf-8")  # json's own decoder accepts surrogates
        document = _object_in(decoded, _STRICT, MAX_OWN_DEPTH)
        if "\\u" in decoded:  # only an escape can contain them
            _refuse_nul(decoded)
            json.dumps(document, ensure_ascii=False).encode()  # fails for a lone surrogate
    except ValueError as error:
        raise NotJson(f"the body is not JSON: {error}") from None
    return document


def is_deep(document: object, levels: int) -> bool:
    """Return whether the document is nested more deeply. Not recursive: depth needs no stack."""
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(levels):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _object_in(decoded: str, decoder: json.JSONDecoder, levels: int) -> dict[str, Any]:
    try:
        document = decoder.decode(decoded)
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:  # malformed, or rejected by one of the functions below
        raise NotJson(f"the body is not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > levels and is_deep(document, levels):
        raise NotJson(f"the body is nested more than {levels} levels deep")
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    return document if len(document) == len(pairs) else RepeatedKeys(pairs)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = _object(pairs)
    for key in repeated(document):
        raise ValueError(f"the key {key[:MAX_KEY]!r} stands twice")
    return document


def _bounded(digits: str) -> int | float:
    """Return the integer, or infinity for one that is longer than any field allows."""
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than any number")
    return number


def _refuse_nul(decoded: str) -> None:
    # Escaped backslashes are removed first, so that each remaining backslash begins an escape.
    if "\\u0000" in decoded.replace("\\\\", "  "):
        raise NotJson("a string in the body contains NUL, which not every database can store")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_TOLERANT = json.JSONDecoder(object_pairs_hook=_object, parse_int=_bounded, strict=False)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_short,
)

"""Reads the JSON object in a request to our own API, strictly."""

# ruff: noqa: PLC0414 - `as` exports the names that adapters of other packages may import from here
from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from receiver.errors import NotJson, NotTheProtocol
from receiver.providers.fields import MAX_DIGITS, MAX_KEY, is_deep, json_object
from receiver.providers.fields import decode as decode
from receiver.providers.fields import repeated as repeated

MAX_OWN_DEPTH = 32  # levels of arrays and objects


def decode_strictly(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a request to our API, or in a row of a file.

    Rejects everything that Python's parser accepts but that cannot be stored or repeated: NaN and
    Infinity, also as an exponent that is too large, a repeated key, a lone surrogate, NUL, and more
    than MAX_OWN_DEPTH levels. Raises NotJson, and NotTheProtocol for JSON that is not an object.
    """
    try:
        decoded = body.decode("utf-8")  # json's own decoder accepts surrogates
        document = _STRICT.decode(decoded)
        if is_deep(document, MAX_OWN_DEPTH):
            raise NotJson(f"the body is nested more than {MAX_OWN_DEPTH} levels deep")
        if not isinstance(document, dict):
            raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
        if "\\u" in decoded:  # only an escape can contain NUL or a lone surrogate
            # Without escaped backslashes, each remaining backslash begins an escape.
            if "\\u0000" in decoded.replace("\\\\", "  "):
                raise NotJson(
                    "a string in the body contains NUL, which not every database can store"
                )
            json.dumps(document, ensure_ascii=False).encode()  # fails for a lone surrogate
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:  # malformed, or rejected by one of the functions below
        raise NotJson(f"the body is not JSON: {error}") from None
    return document


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = json_object(pairs)
    for key in repeated(document):
        raise ValueError(f"the key {key[:MAX_KEY]!r} is repeated")
    return document


def _short(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than any number")
    return number


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_short,
)

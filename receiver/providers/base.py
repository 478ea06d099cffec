"""The contract of every provider room on the way in (theirs → ours), and what rooms share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qs, urlsplit

from marshmallow import Schema, ValidationError, missing
from marshmallow.fields import Field, Raw

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import Callback, Event, Media

DAY = 86_400_000  # ms
LATEST_INSTANT = 32_503_680_000_000  # ms; the year 3000: what is added to it stays a date
MOST_OUTPUTS = 256  # of one task; real ones have at most nine
DEEPEST = 32  # levels of arrays and objects; real ones have four
LONGEST_INTEGER = 100  # digits; Python's own bound can be switched off by the environment
LONGEST_INDEX = 64  # characters; it stands in file names


class Provider(Protocol):
    """What the receiver knows of one provider."""

    name: str
    has_callbacks: bool  # without, its tasks are followed by asking alone

    def parse(self, callback: Callback) -> Event:
        """What the message means; pure, so that a stored one can be parsed again.

        Raises NotJson, or NotTheProtocol naming each field that is wrong.
        """
        ...

    def status(self, spelling: str) -> str | None:
        """Our status for the provider's spelling of one, or None if it has no such status."""
        ...


def decode(body: bytes) -> dict[str, Any]:
    """The JSON object in a body.

    Refuses what Python's reader would let through but nobody could store or repeat: NaN and
    Infinity, also as an exponent too large, a key twice, lone surrogates, depths that another
    reader would not follow. Raises NotJson, or NotTheProtocol for JSON that is no object.
    """
    try:
        decoded = body.decode("utf-8")  # json's own decoder lets surrogates through
        document = _READER.decode(decoded)
        if "\\u" in decoded:  # only an escape can hide them from the decoder
            _refuse_nul(decoded)
            json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:  # malformed, not UTF-8, or an integer of absurd length
        raise NotJson(f"the body is not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > DEEPEST and _is_deep(document):
        raise NotJson(f"the body is nested more than {DEEPEST} levels deep")
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


def checked(schema: Schema, document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a flat schema that are there. Raises ValidationError naming each wrong one.

    `schema.load` does the same, and prepares for nesting, hooks and partial loads, which takes
    longer than the checks. Raw fields may be anything, and are left out.
    """
    found: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    for name, one in _ruled(schema):
        try:
            value = one.deserialize(document.get(name, missing))
        except ValidationError as error:
            wrong[name] = error.messages
        else:
            if value is not missing:
                found[name] = value
    if wrong:
        raise ValidationError(wrong)
    return found


@cache
def _ruled(schema: Schema) -> list[tuple[str, Field[Any]]]:
    return [(name, one) for name, one in schema.fields.items() if type(one) is not Raw]


def faults(error: ValidationError) -> str:
    """marshmallow's messages as one line that names each field."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return "; ".join(f"{name}: {_flat(texts)}" for name, texts in sorted(messages.items()))


def objects(value: object, where: str) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """The objects of an array: position, place in words, object. Raises NotTheProtocol."""
    if value is None:
        return
    if not isinstance(value, list):
        raise NotTheProtocol(f"{where}: expected an array")
    for position, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise NotTheProtocol(f"{where}[{position}]: expected an object")
        yield position, f"{where}[{position}]", entry


def url_in(entry: Mapping[str, Any], keys: Sequence[str], where: str) -> str:
    """The first of these keys that is there. Raises NotTheProtocol if it holds no URL."""
    key = next((key for key in keys if key in entry), keys[-1])
    url = entry.get(key)
    if not isinstance(url, str) or not url:
        raise NotTheProtocol(f"{where}.{key}: expected a URL")
    return url


def text(value: object) -> str | None:
    """A string that says something, or None."""
    return value if isinstance(value, str) and value else None


def index_of(entry: Mapping[str, Any], position: int) -> str:
    """The provider's index or id of an output, or else its position."""
    found = entry.get("index", entry.get("id"))
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        return str(position)
    index = str(found)
    return index if 0 < len(index) <= LONGEST_INDEX else str(position)


def told_apart(media: Iterable[Media]) -> tuple[Media, ...]:
    """The same outputs, no two with the same index: files are kept by it."""
    seen: set[str] = set()
    apart: list[Media] = []
    for position, one in enumerate(media):
        if position >= MOST_OUTPUTS:
            raise NotTheProtocol(f"more than {MOST_OUTPUTS} outputs")
        index = one.index
        while index in seen:
            index = f"{one.kind}-{position}-{index}"
        seen.add(index)
        apart.append(one if index == one.index else replace(one, index=index))
    return tuple(apart)


def expires_at(url: str, otherwise: int) -> int:
    """When the URL stops to work, in ms UTC; `otherwise` if it does not say.

    Recorded Kling URLs carry `Expires=` (decimal seconds) or `ksTime=` (hexadecimal seconds).
    """
    if "?" not in url:
        return otherwise
    try:
        query = parse_qs(urlsplit(url).query)
    except ValueError:  # such as an unbalanced bracket in the host
        return otherwise
    for name, base, digits in (("Expires", 10, r"\d{1,11}"), ("ksTime", 16, r"[0-9a-fA-F]{1,9}")):
        value = query.get(name, [""])[0]
        if re.fullmatch(digits, value, re.ASCII):
            return int(value, base) * 1000
    return otherwise


def _flat(texts: Sequence[object] | Mapping[object, object]) -> str:
    if isinstance(texts, Mapping):
        return "; ".join(f"{name}: {words}" for name, words in texts.items())
    return " ".join(map(str, texts))


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:40]!r} stands twice")
    return document


def _bounded(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than any number")
    return number


def _is_deep(document: object) -> bool:
    """Is something below the deepest level? Level by level, so that depth costs no stack."""
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def _refuse_nul(decoded: str) -> None:
    if _NUL.search(decoded):
        raise NotJson("the body has a NUL character in a string: not every database can keep it")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


_READER = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_bounded,
)
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # not where the backslash itself is escaped

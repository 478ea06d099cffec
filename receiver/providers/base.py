"""The contract of every provider room on the way in (theirs → ours), and what rooms share."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from marshmallow import Schema, ValidationError, missing
from marshmallow.fields import Field, Raw

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import Callback, Event, Media
from receiver.providers.fields import cleaned, instant

DAY = 86_400_000  # ms
MOST_OUTPUTS = 256  # of one task; real ones have at most nine
DEEPEST = 200  # levels of arrays and objects; real ones have four
LONGEST_INTEGER = 100  # digits; to read a much longer one takes long
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
    """The JSON object in a body, read as tolerantly as its meaning allows.

    Accepts a byte order mark, UTF-16 and UTF-32, control characters in strings, NaN and numbers
    beyond any bound; bytes that are no text are replaced. An object keeps the last of the values
    of a key that stands in it more than once, and remembers the key: see `Object`. Raises NotJson,
    also for nesting deeper than DEEPEST, or NotTheProtocol for JSON that is no object.
    """
    decoded = body.decode(json.detect_encoding(body), "replace")
    try:
        document = _READER.decode(decoded)
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:
        raise NotJson(f"the body is not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > DEEPEST and _is_deep(document):
        raise NotJson(f"the body is nested more than {DEEPEST} levels deep")
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


class Object(dict[str, Any]):
    """A JSON object; `repeated`: the keys that stand in it more than once."""

    repeated: frozenset[str] = frozenset()


def checked(schema: Schema, document: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """The fields of a flat schema that are there.

    A required field has to be valid. Any other field that is not is left out, and named in
    `dropped`. Raises ValidationError naming each required field that is wrong. Raw fields may be
    anything, and are left out.
    """
    found: dict[str, Any] = {}
    wrong: dict[str, Any] = {
        name: ["stands twice"] for name in repeated(document) if _is_required(schema, name)
    }
    for name, one in _ruled(schema):
        try:
            value = one.deserialize(document.get(name, missing))
        except ValidationError as error:
            if one.required:
                wrong[name] = error.messages
            else:
                dropped.append(f"{name}: {_flat(error.messages)}")
        else:
            if value is not missing:
                found[name] = value
    if wrong:
        raise ValidationError(wrong)
    return found


def repeated(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys that stand in it more than once."""
    return document.repeated if isinstance(document, Object) else frozenset()


def _is_required(schema: Schema, name: str) -> bool:
    return name in schema.fields and schema.fields[name].required


@cache
def _ruled(schema: Schema) -> list[tuple[str, Field[Any]]]:
    return [(name, one) for name, one in schema.fields.items() if type(one) is not Raw]


def faults(error: ValidationError) -> str:
    """marshmallow's messages as one line that names each field."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return "; ".join(f"{name}: {_flat(texts)}" for name, texts in sorted(messages.items()))


def entries(value: object, where: str, dropped: list[str]) -> Iterator[tuple[int, str, Any]]:
    """The entries of an array: position, place in words, entry. What is no array is dropped."""
    if value is None:
        return
    if not isinstance(value, list):
        dropped.append(f"{where}: expected an array")
        return
    for position, entry in enumerate(value):
        yield position, f"{where}[{position}]", entry


def objects(
    value: object, where: str, dropped: list[str]
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """As `entries`, for an array of objects. An entry that is none is dropped."""
    for position, place, entry in entries(value, where, dropped):
        if isinstance(entry, dict):
            yield position, place, entry
        else:
            dropped.append(f"{place}: expected an object")


def url_in(
    entry: Mapping[str, Any], keys: Sequence[str], where: str, dropped: list[str]
) -> str | None:
    """The first of these keys that holds a URL; None, and `dropped` says so, if none does."""
    for key in keys:
        url = entry.get(key)
        if isinstance(url, str) and url.strip() and url == cleaned(url):
            return url.strip()
    key = next((key for key in keys if key in entry), keys[-1])
    dropped.append(f"{where}.{key}: expected a URL")
    return None


def text(value: object) -> str | None:
    """A string that says something, without what no database can keep; or None."""
    return cleaned(value) if isinstance(value, str) and value else None


def index_of(entry: Mapping[str, Any], position: int) -> str:
    """The provider's index or id of an output, or else its position."""
    found = entry.get("index", entry.get("id"))
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        return str(position)
    index = cleaned(str(found))
    return index if 0 < len(index) <= LONGEST_INDEX else str(position)


def told_apart(media: Iterable[Media], dropped: list[str]) -> tuple[Media, ...]:
    """The same outputs, no two with the same index: files are kept by it. At most MOST_OUTPUTS."""
    seen: set[str] = set()
    apart: list[Media] = []
    for position, one in enumerate(media):
        if position >= MOST_OUTPUTS:
            dropped.append(f"more than {MOST_OUTPUTS} outputs")
            break
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
    for name, base, digits in (("Expires", 10, r"\d{1,17}"), ("ksTime", 16, r"[0-9a-fA-F]{1,9}")):
        value = query.get(name, [""])[0]
        if re.fullmatch(digits, value, re.ASCII):
            return instant(int(value, base)) or otherwise
    return otherwise


def _flat(texts: Sequence[object] | Mapping[object, object]) -> str:
    if isinstance(texts, Mapping):
        return "; ".join(f"{name}: {words}" for name, words in texts.items())
    return " ".join(map(str, texts))


def _object(pairs: list[tuple[str, Any]]) -> Object:
    document = Object(pairs)
    if len(document) != len(pairs):
        keys = [key for key, _ in pairs]
        document.repeated = frozenset(key for key in document if keys.count(key) > 1)
    return document


def _bounded(digits: str) -> int | float:
    """No field may be so long an integer: it is as good as infinite."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf


def _is_deep(document: object) -> bool:
    """Is something below the deepest level? Level by level, so that depth costs no stack."""
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(DEEPEST):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


_READER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_bounded, strict=False)

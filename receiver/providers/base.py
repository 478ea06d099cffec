"""The contract of every provider room on the way in (theirs → ours), and what rooms share."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, NoReturn, Protocol
from urllib.parse import parse_qs

from marshmallow import Schema, ValidationError, missing
from marshmallow.fields import Field, Raw

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import BYTE_ORDER_MARK, Callback, Event, Media
from receiver.providers.fields import LATEST_INSTANT as LATEST_INSTANT  # noqa: PLC0414 - for adapters
from receiver.providers.fields import amount, cleaned, instant

DAY = 86_400_000  # ms
MOST_OUTPUTS = 256  # of one task; real ones have at most nine
DEEPEST = 200  # levels of arrays and objects in a provider's message; real ones have four
DEEPEST_FOR_US = 32  # the same for requests to our own API
LONGEST_INTEGER = 100  # digits; to read a much longer one takes long
LONGEST_INDEX = 64  # characters; it stands in file names
LONGEST_KEY = 40  # characters of a key that a message names
_NO_KEYS: frozenset[str] = frozenset()
_DECIMAL = re.compile(r"[0-9]{1,17}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,9}")


class Provider(Protocol):
    """What the receiver knows of one provider."""

    name: str
    has_callbacks: bool  # without, its tasks are followed by asking alone
    # Whether callbacks use the same task id as the response to the create request. If this is not
    # documented, set it to False: the two kinds of ids are then stored separately, never compared.
    shares_ids: bool

    def parse(self, callback: Callback) -> Event:
        """Return the meaning of a message; pure, so that a stored message can be parsed again.

        The body is plain: `receiver.providers.parse` has decoded its Content-Encoding.

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
    is_utf_8 = body[:1] == b"{" and body[1:2] != b"\0"  # nearly all are: no need to look further
    encoding = "utf-8" if is_utf_8 else json.detect_encoding(body)
    decoded = body.decode(encoding, "replace").strip(BYTE_ORDER_MARK + " \t\r\n")
    return _object_in(decoded, _TOLERANT, DEEPEST)


def decode_strictly(body: bytes) -> dict[str, Any]:
    """The JSON object in a body that was written for us: a request to our API, or a row of a file.

    Refuses what Python's reader accepts but what cannot be stored or repeated: NaN and Infinity,
    also as an exponent that is too large, a repeated key, lone surrogates, NUL, and nesting that
    another reader would not follow. Raises NotJson, or NotTheProtocol for JSON that is no object.
    """
    try:
        decoded = body.decode("utf-8")  # json's own decoder accepts surrogates
        document = _object_in(decoded, _STRICT, DEEPEST_FOR_US)
        if "\\u" in decoded:  # only an escape can hide them from the decoder
            _refuse_nul(decoded)
            json.dumps(document, ensure_ascii=False).encode()  # a lone surrogate
    except ValueError as error:
        raise NotJson(f"the body is not JSON: {error}") from None
    return document


def _object_in(decoded: str, reader: json.JSONDecoder, deepest: int) -> dict[str, Any]:
    try:
        document = reader.decode(decoded)
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:  # malformed, or refused by the reader
        raise NotJson(f"the body is not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > deepest and is_deep(document, deepest):
        raise NotJson(f"the body is nested more than {deepest} levels deep")
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


class Object(dict[str, Any]):
    """A JSON object in which these keys are repeated; it has the last of their values."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        times = Counter(key for key, _ in pairs)
        self.repeated = frozenset(key for key, count in times.items() if count > 1)


class DroppedOutputs(list[str]):
    """Collects dropped fields that leave an output out, and adds each to `dropped` as well."""

    def __init__(self, dropped: list[str]) -> None:
        super().__init__()
        self._dropped = dropped

    def append(self, field: str) -> None:
        super().append(field)
        self._dropped.append(field)

    def extend(self, fields: Iterable[str]) -> None:
        for field in fields:
            self.append(field)


def checked(schema: Schema, document: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """The fields of a flat schema that are there.

    A required field has to be valid. Any other field that is not is left out, and named in
    `dropped`. Raises ValidationError naming each required field that is wrong. Raw fields may be
    anything, and are left out.
    """
    found: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    if isinstance(document, Object):
        for name in sorted(document.repeated & schema.fields.keys()):
            if schema.fields[name].required:
                wrong[name] = ["Repeated."]
            else:
                dropped.append(f"{name}: repeated, and the last one is used")
    for name, one in _ruled(schema):
        try:
            value = one.deserialize(document.get(name, missing))
        except ValidationError as error:
            if one.required:
                wrong.setdefault(name, error.messages)
            else:
                dropped.append(f"{name}: {_flat(error.messages)}")
        else:
            if value is not missing:
                found[name] = value
    if wrong:
        raise ValidationError(wrong, valid_data=found)
    return found


def repeated(document: Mapping[str, Any]) -> frozenset[str]:
    """The keys that the JSON object has more than once."""
    return document.repeated if isinstance(document, Object) else _NO_KEYS


def note_repeated(document: Mapping[str, Any], where: str, dropped: list[str]) -> None:
    """Name each repeated key of an object of which only the last value is used."""
    if isinstance(document, Object):
        dropped.extend(
            f"{where}.{cleaned(key)[:LONGEST_KEY]}: repeated, and the last one is used"
            for key in sorted(document.repeated)
        )


@cache
def _ruled(schema: Schema) -> list[tuple[str, Field[Any]]]:
    return [(name, one) for name, one in schema.fields.items() if type(one) is not Raw]


def faults(error: ValidationError) -> str:
    """marshmallow's messages as one line that names each field."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return "; ".join(f"{name}: {_flat(texts)}" for name, texts in sorted(messages.items()))


def not_the_protocol(whose: str, error: ValidationError, identity: str) -> NotTheProtocol:
    """Return the error for a message with wrong required fields; `identity` names the id field."""
    data = error.valid_data
    about = data.get(identity) if isinstance(data, dict) else None
    return NotTheProtocol(f"not {whose} callback protocol: {faults(error)}", about)


def entries(value: object, where: str, dropped: list[str]) -> Iterator[tuple[int, str, Any]]:
    """Yield the entries of an array: position, place in words, entry.

    Drops a value that is no array, and entries beyond MOST_OUTPUTS.
    """
    if value is None:
        return
    if not isinstance(value, list):
        dropped.append(f"{where}: expected an array")
        return
    for position, entry in enumerate(value[:MOST_OUTPUTS]):
        yield position, f"{where}[{position}]", entry
    if len(value) > MOST_OUTPUTS:
        dropped.append(f"{where}: more than {MOST_OUTPUTS} entries")


def objects(
    value: object, where: str, dropped: list[str]
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """As `entries`, for an array of objects. Drops an entry that is no object."""
    for position, place, entry in entries(value, where, dropped):
        if isinstance(entry, dict):
            note_repeated(entry, place, dropped)
            yield position, place, entry
        else:
            dropped.append(f"{place}: expected an object")


def url_in(
    entry: Mapping[str, Any], keys: Sequence[str], where: str, dropped: list[str]
) -> str | None:
    """The first of these keys that holds a URL; None if no key does.

    Names in `dropped` each key before it that holds something else.
    """
    for key in keys:
        if key not in entry:
            continue
        url = entry[key]
        if isinstance(url, str) and url.strip() and url == cleaned(url):
            return url.strip()
        dropped.append(f"{where}.{key}: expected a URL")
    if not entry.keys() & keys:
        dropped.append(f"{where}.{keys[-1]}: expected a URL")
    return None


def output_url(
    entry: Mapping[str, Any],
    keys: Sequence[str],
    where: str,
    lost: list[str],
    dropped: list[str],
) -> str | None:
    """Like `url_in`, for an output that is lost without a URL: adds the keys to `lost`."""
    unusable: list[str] = []
    url = url_in(entry, keys, where, unusable)
    (lost if url is None else dropped).extend(unusable)
    return url


def text_in(entry: Mapping[str, Any], key: str, where: str, dropped: list[str]) -> str | None:
    """The text under this key of an output; None if there is none, or if it is dropped."""
    value = entry.get(key)
    if value is None or isinstance(value, str):
        return text(value)
    dropped.append(f"{where}.{key}: expected a string")
    return None


def amount_in(entry: Mapping[str, Any], key: str, where: str, dropped: list[str]) -> str | None:
    """The decimal string or the number under this key, as a string; None as in `text_in`."""
    value = entry.get(key)
    found = amount(value)
    if found is None and value is not None and value != "":
        dropped.append(f"{where}.{key}: expected a decimal string")
    return found


def text(value: object) -> str | None:
    """A string that is not empty, with the characters that cannot be stored replaced; or None."""
    return cleaned(value) if isinstance(value, str) and value else None


def duration_in(
    entry: Mapping[str, Any], keys: Sequence[str], where: str, dropped: list[str]
) -> str | None:
    """The duration under the first of these keys that is there, in seconds; None as above."""
    key = next((key for key in keys if key in entry), keys[0])
    return amount_in(entry, key, where, dropped)


def index_of(entry: Mapping[str, Any], position: int) -> str:
    """The provider's index or id of an output, or else its position."""
    found = entry.get("index", entry.get("id"))
    if isinstance(found, bool) or not isinstance(found, (int, str)):
        return str(position)
    index = cleaned(str(found))
    return index if 0 < len(index) <= LONGEST_INDEX else str(position)


def with_unique_indexes(media: Iterable[Media], dropped: list[str]) -> tuple[Media, ...]:
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
    # `urlsplit` takes quadratic time for a host of combining characters.
    query = parse_qs(url.partition("#")[0].partition("?")[2])
    for name, base, digits in (("Expires", 10, _DECIMAL), ("ksTime", 16, _HEXADECIMAL)):
        value = query.get(name, [""])[0]
        if digits.fullmatch(value):
            return instant(int(value, base)) or otherwise
    return otherwise


def _flat(texts: Sequence[object] | Mapping[object, object]) -> str:
    if isinstance(texts, Mapping):
        return "; ".join(f"{name}: {words}" for name, words in texts.items())
    return " ".join(map(str, texts))


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    return document if len(document) == len(pairs) else Object(pairs)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = _object(pairs)
    for key in repeated(document):
        raise ValueError(f"the key {key[:LONGEST_KEY]!r} stands twice")
    return document


def _bounded(digits: str) -> int | float:
    """An integer; one that is longer than any field allows is as good as infinite."""
    return int(digits) if len(digits) <= LONGEST_INTEGER else math.inf


def _short(digits: str) -> int:
    if len(digits) > LONGEST_INTEGER:
        raise ValueError(f"an integer has {len(digits)} digits")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:40]} is larger than any number")
    return number


def _refuse_nul(decoded: str) -> None:
    # Without escaped backslashes, so that the backslash of each escape is the first of its kind.
    if "\\u0000" in decoded.replace("\\\\", "  "):
        raise NotJson("the body has a NUL character in a string: not every database can keep it")


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON value")


def is_deep(document: object, deepest: int) -> bool:
    """Is something below the deepest level? Level by level, so that depth costs no stack."""
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(deepest):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


_TOLERANT = json.JSONDecoder(object_pairs_hook=_object, parse_int=_bounded, strict=False)
_STRICT = json.JSONDecoder(
    object_pairs_hook=_unique_keys,
    parse_constant=_no_constant,
    parse_float=_finite,
    parse_int=_short,
)

"""Reads a provider's message: strict about its identity and status, tolerant of all other fields.

JSON, numbers, instants and text are accepted in every form that providers have been seen to use.
"""

# ruff: noqa: ARG002, RUF012 - signatures and attributes are marshmallow's
from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from typing import Any

from marshmallow import INCLUDE, Schema, ValidationError, fields, missing, validate

from receiver.errors import NotJson, NotTheProtocol
from receiver.events import BYTE_ORDER_MARK
from receiver.text.display import storable

EARLIEST_INSTANT = 946_684_800_000  # ms; the year 2000
LATEST_INSTANT = 32_503_680_000_000  # ms; the year 3000, so that adding 30 days stays a date
LONGEST_INSTANT = 64  # characters of an instant that is written as text
MAX_DEPTH = 200  # levels of arrays and objects; real messages have four
MAX_DIGITS = 100  # of an integer; reading a much longer one takes long
MAX_KEY = 40  # characters of a key that an error shows
cleaned = storable  # the name under which adapters, also of other packages, import it
_CODE = re.compile(r"-?[0-9]{1,10}")
_NO_KEYS: frozenset[str] = frozenset()


class RepeatedKeys(dict[str, Any]):
    """A JSON object in which keys are repeated; each has the last of its values."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        counts = Counter(key for key, _ in pairs)
        self.repeated = frozenset(key for key, count in counts.items() if count > 1)

    def note(self, where: str, dropped: list[str]) -> None:
        """Add each repeated key to `dropped`. `where` is the place of the object in the message."""
        dropped.extend(
            f"{where}.{cleaned(key)[:MAX_KEY]}: repeated, and the last one is used"
            for key in sorted(self.repeated)
        )


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
    try:
        document = _DECODER.decode(decoded)
    except RecursionError:
        raise NotJson("the body is nested too deeply") from None
    except ValueError as error:
        raise NotJson(f"the body is not JSON: {error}") from None
    if decoded.count("{") + decoded.count("[") > MAX_DEPTH and is_deep(document, MAX_DEPTH):
        raise NotJson(f"the body is nested more than {MAX_DEPTH} levels deep")
    if not isinstance(document, dict):
        raise NotTheProtocol(f"expected a JSON object, got {type(document).__name__}")
    return document


def is_deep(document: object, levels: int) -> bool:
    """Return whether the document has more nesting levels.

    Not recursive, so depth needs no stack.
    """
    level: list[Any] = [document] if isinstance(document, (dict, list)) else []
    for _ in range(levels):
        inner = [part.values() if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner for part in parts if isinstance(part, (dict, list))]
        if not level:
            return False
    return True


def json_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the JSON object with these keys and values: RepeatedKeys if a key is repeated."""
    document = dict(pairs)
    return document if len(document) == len(pairs) else RepeatedKeys(pairs)


def _bounded(digits: str) -> int | float:
    """Return the integer, or infinity for one that is longer than any field allows."""
    return int(digits) if len(digits) <= MAX_DIGITS else math.inf


_DECODER = json.JSONDecoder(object_pairs_hook=json_object, parse_int=_bounded, strict=False)


IDENTITY = r"^[^\u0000\ufffd]*$"  # text that can be stored unchanged, for the OpenAPI document


def identity(value: object) -> str | None:
    """Return an id as a string; None unless it is an integer or text that can be stored."""
    if isinstance(value, str):
        return value if "\ufffd" not in cleaned(value) else None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def code_in(envelope: Mapping[str, Any]) -> int | None:
    """Return the code of a response as an integer; None if there is none.

    If the response has `data`, the code may also be a string of digits or a float.
    """
    value = envelope.get("code")
    if isinstance(value, int):
        return None if isinstance(value, bool) else value
    if "data" not in envelope:
        return None
    if isinstance(value, str) and _CODE.fullmatch(value.strip()):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else None


def instant(value: object) -> int | None:
    """Return an instant in ms UTC; None unless the value is one between the years 2000 and 3000.

    The unit of a number is recognised by its magnitude: a number of seconds in this time has at
    most 11 digits, one of milliseconds 12 to 14, one of microseconds 15 to 17.
    """
    if isinstance(value, str):
        written = value.strip()
        if len(written) > LONGEST_INSTANT:
            return None
        try:
            value = float(written)
        except ValueError:
            return _of_iso(written)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    if not 0 < value <= LATEST_INSTANT * 1000:  # neither is NaN
        return None
    for factor in (1.0, 1000.0, 0.001):
        milliseconds = round(value * factor)
        if EARLIEST_INSTANT <= milliseconds <= LATEST_INSTANT:
            return milliseconds
    return None


def _of_iso(written: str) -> int | None:
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        return None
    at = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    milliseconds = round(at.timestamp() * 1000)
    return milliseconds if EARLIEST_INSTANT <= milliseconds <= LATEST_INSTANT else None


def amount(value: object) -> str | None:
    """Return a non-empty string, or a finite number as a decimal string; None for other values."""
    if isinstance(value, str):
        return cleaned(value) or None
    if isinstance(value, int):
        return None if isinstance(value, bool) else str(value)
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return f"{Decimal(repr(value)):f}"


def text(value: object) -> str | None:
    """Return a non-empty string, cleaned; None for any other value."""
    return cleaned(value) if isinstance(value, str) and value else None


class MessageSchema(Schema):
    """The base of the schemas of providers' messages: unknown keys are allowed."""

    class Meta:
        unknown = INCLUDE


class _TolerantField(fields.Field[Any]):
    """A field whose values are read by a function that returns None for an unusable one."""

    @staticmethod
    def read(value: object) -> Any:
        raise NotImplementedError

    def _deserialize(self, value: Any, attr: Any, data: Any, **kwargs: Any) -> Any:
        result = self.read(value)
        if result is None:
            raise self.make_error("invalid")
        return result


class Identity(_TolerantField, fields.String):
    """An id: a string, or an integer, which becomes its digits."""

    default_error_messages = {"invalid": "Not a string or an integer."}
    read = staticmethod(identity)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(metadata={"pattern": IDENTITY}, **kwargs)


class Spelling(_TolerantField, fields.String):
    """A status, as one of these spellings in any letter case."""

    def __init__(self, spellings: Iterable[str], **kwargs: Any) -> None:
        super().__init__(validate=validate.OneOf(tuple(spellings)), **kwargs)

    @staticmethod
    def read(value: object) -> str | None:
        return value.lower() if isinstance(value, str) else None


class Text(_TolerantField, fields.String):
    """Text for people; a number becomes its digits."""

    @staticmethod
    def read(value: object) -> str | None:
        return cleaned(value) if isinstance(value, str) else amount(value)


class Instant(_TolerantField, fields.Integer):
    """Milliseconds UTC, from a number of seconds, milliseconds or microseconds, or ISO 8601."""

    default_error_messages = {"invalid": "Not an instant."}
    read = staticmethod(instant)


def checked(schema: Schema, document: Mapping[str, Any], dropped: list[str]) -> dict[str, Any]:
    """Return the fields of a flat schema that are present in the document.

    A required field must be valid. Any other field that is not valid is left out and named in
    `dropped`. Raw fields are left out; their adapter reads them. Raises ValidationError naming each
    required field that is wrong.
    """
    values: dict[str, Any] = {}
    wrong: dict[str, Any] = {}
    if isinstance(document, RepeatedKeys):
        for name in sorted(document.repeated & schema.fields.keys()):
            if schema.fields[name].required:
                wrong[name] = ["Repeated."]
            else:
                dropped.append(f"{name}: repeated, and the last one is used")
    for name, field in _validated_fields(schema):
        try:
            value = field.deserialize(document.get(name, missing))
        except ValidationError as error:
            if field.required:
                wrong.setdefault(name, error.messages)
            else:
                dropped.append(f"{name}: {_flat(error.messages)}")
        else:
            if value is not missing:
                values[name] = value
    if wrong:
        raise ValidationError(wrong, valid_data=values)
    return values


@cache
def _validated_fields(schema: Schema) -> list[tuple[str, fields.Field[Any]]]:
    return [(name, field) for name, field in schema.fields.items() if type(field) is not fields.Raw]


def faults(error: ValidationError) -> str:
    """Return marshmallow's messages as one line that names each field."""
    messages: dict[str, Any] = error.normalized_messages()  # type: ignore[no-untyped-call]
    return "; ".join(f"{name}: {_flat(texts)}" for name, texts in sorted(messages.items()))


def _flat(texts: Sequence[object] | Mapping[object, object]) -> str:
    if isinstance(texts, Mapping):
        return "; ".join(f"{name}: {message}" for name, message in texts.items())
    return " ".join(map(str, texts))


def not_the_protocol(provider: str, error: ValidationError, identity: str) -> NotTheProtocol:
    """Return the error for a message with wrong required fields.

    `provider` is its name for people; `identity` is the field with the id of the task, which the
    error contains if that field is valid.
    """
    data = error.valid_data
    about = data.get(identity) if isinstance(data, dict) else None
    return NotTheProtocol(f"not {provider}'s callback protocol: {faults(error)}", about)

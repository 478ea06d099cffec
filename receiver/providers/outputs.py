"""Reads the outputs in a provider's message. Fields that cannot be used are left out and named.

`where` and `place` are names of fields for people, such as `task_result.images[0]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from receiver.events import Media
from receiver.providers.fields import amount, cleaned, instant
from receiver.providers.json_body import MAX_KEY, RepeatedKeys

MAX_OUTPUTS = 256  # of one task; real ones have at most nine
MAX_INDEX = 64  # characters; it becomes part of file names
_DECIMAL = re.compile(r"[0-9]{1,17}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,9}")


class LostOutputs(list[str]):
    """Collects the fields without which an output is missing, and adds each to `dropped` too."""

    def __init__(self, dropped: list[str]) -> None:
        super().__init__()
        self._dropped = dropped

    def append(self, field: str) -> None:
        super().append(field)
        self._dropped.append(field)

    def extend(self, fields: Iterable[str]) -> None:
        for field in fields:
            self.append(field)


def note_repeated(document: Mapping[str, Any], where: str, dropped: list[str]) -> None:
    """Add each repeated key of an object to `dropped`."""
    if isinstance(document, RepeatedKeys):
        dropped.extend(
            f"{where}.{cleaned(key)[:MAX_KEY]}: repeated, and the last one is used"
            for key in sorted(document.repeated)
        )


def entries(value: object, where: str, dropped: list[str]) -> Iterator[tuple[int, str, Any]]:
    """Yield the position, the place and the value of each entry of an array.

    Drops a value that is not an array, and entries beyond MAX_OUTPUTS. None is an empty array.
    """
    if value is None:
        return
    if not isinstance(value, list):
        dropped.append(f"{where}: expected an array")
        return
    for position, entry in enumerate(value[:MAX_OUTPUTS]):
        yield position, f"{where}[{position}]", entry
    if len(value) > MAX_OUTPUTS:
        dropped.append(f"{where}: more than {MAX_OUTPUTS} entries")


def objects(
    value: object, where: str, dropped: list[str]
) -> Iterator[tuple[int, str, Mapping[str, Any]]]:
    """Yield like `entries`, but drop each entry that is not an object."""
    for position, place, entry in entries(value, where, dropped):
        if isinstance(entry, dict):
            note_repeated(entry, place, dropped)
            yield position, place, entry
        else:
            dropped.append(f"{place}: expected an object")


def url_in(
    entry: Mapping[str, Any],
    keys: Sequence[str],
    where: str,
    dropped: list[str],
    lost: list[str] | None = None,
) -> str | None:
    """Return the URL under the first of these keys that has one; None if no key has one.

    Drops each earlier key that has another value. If no key has a URL, the keys are added to
    `lost` instead, if it is given.
    """
    url = None
    unusable = [] if entry.keys() & keys else [f"{where}.{keys[-1]}: expected a URL"]
    for key in keys:
        if key not in entry:
            continue
        value = entry[key]
        if isinstance(value, str) and value.strip() and value == cleaned(value):
            url = value.strip()
            break
        unusable.append(f"{where}.{key}: expected a URL")
    (dropped if url or lost is None else lost).extend(unusable)
    return url


def text_in(entry: Mapping[str, Any], key: str, where: str, dropped: list[str]) -> str | None:
    """Return the text under this key; None if there is none. Drops any other value."""
    value = entry.get(key)
    if isinstance(value, str):
        return cleaned(value) or None
    if value is None:
        return None
    dropped.append(f"{where}.{key}: expected a string")
    return None


def amount_in(
    entry: Mapping[str, Any], keys: Sequence[str], where: str, dropped: list[str]
) -> str | None:
    """Return the number under the first of these keys that is present, as a decimal string.

    Returns None if there is none. Drops any other value.
    """
    key = next((key for key in keys if key in entry), keys[0])
    value = entry.get(key)
    number = amount(value)
    if number is None and value is not None and value != "":
        dropped.append(f"{where}.{key}: expected a decimal string")
    return number


def index_of(entry: Mapping[str, Any], position: int) -> str:
    """Return the provider's index or id of an output, or else its position."""
    value = entry.get("index", entry.get("id"))
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return str(position)
    index = cleaned(str(value))
    return index if 0 < len(index) <= MAX_INDEX else str(position)


def with_unique_indexes(media: Iterable[Media], dropped: list[str]) -> tuple[Media, ...]:
    """Return the outputs, at most MAX_OUTPUTS, with a unique index each: files are named by it."""
    seen: set[str] = set()
    unique: list[Media] = []
    for position, output in enumerate(media):
        if position >= MAX_OUTPUTS:
            dropped.append(f"more than {MAX_OUTPUTS} outputs")
            break
        index = output.index
        while index in seen:
            index = f"{output.kind}-{position}-{index}"
        seen.add(index)
        unique.append(output if index == output.index else replace(output, index=index))
    return tuple(unique)


def expires_at(url: str, otherwise: int) -> int:
    """Return when the URL expires, in ms UTC; `otherwise` if the URL does not contain it.

    URLs of object stores contain `Expires=` (decimal seconds) or `ksTime=` (hexadecimal seconds).
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

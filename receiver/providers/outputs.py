"""Reads the outputs in a provider's message. Fields that cannot be used are left out and named.

`where` and `place` are names of fields for people, such as `task_result.images[0]`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs

from receiver.events import Media
from receiver.providers.fields import RepeatedKeys, amount, cleaned, instant

MAX_OUTPUTS = 256  # of one task; real ones have at most nine
MAX_INDEX = 64  # characters; the index is part of file names
# The kind of an output, the keys of its URL, its position, its place, and its fields.
Output = tuple[str, Sequence[str], int, str, Mapping[str, Any]]
_DECIMAL = re.compile(r"[0-9]{1,17}")
_HEXADECIMAL = re.compile(r"[0-9a-fA-F]{1,9}")


@dataclass(eq=False)
class LostOutputs(list[str]):
    """Collects unusable fields that leave an output out, and also adds each to `dropped`."""

    dropped: list[str]

    def append(self, field: str) -> None:
        super().append(field)
        self.dropped.append(field)

    def extend(self, fields: Iterable[str]) -> None:
        for field in fields:
            self.append(field)


def entries(
    value: object, where: str, dropped: list[str], *, only_objects: bool = False
) -> Iterator[tuple[int, str, Any]]:
    """Yield the position, the place and the value of each entry of an array.

    Drops a value that is not an array, and entries beyond MAX_OUTPUTS. None is an empty array. With
    `only_objects`, drops each entry that is not an object, and notes the repeated keys of the rest.
    """
    if value is None:
        return
    if not isinstance(value, list):
        dropped.append(f"{where}: expected an array")
        return
    for position, entry in enumerate(value[:MAX_OUTPUTS]):
        place = f"{where}[{position}]"
        if only_objects:
            if not isinstance(entry, dict):
                dropped.append(f"{place}: expected an object")
                continue
            if isinstance(entry, RepeatedKeys):
                entry.note(place, dropped)
        yield position, place, entry
    if len(value) > MAX_OUTPUTS:
        dropped.append(f"{where}: more than {MAX_OUTPUTS} entries")


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


def text_in(
    entry: Mapping[str, Any],
    keys: Sequence[str],
    where: str,
    dropped: list[str],
    *,
    is_amount: bool = False,
) -> str | None:
    """Return the text under the first of these keys that is present; None if there is none.

    With `is_amount`, a number is returned as a decimal string. Drops any other value.
    """
    key = next((key for key in keys if key in entry), keys[0])
    value = entry.get(key)
    if value is None or isinstance(value, str):
        return cleaned(value) if value else None
    found = amount(value) if is_amount else None
    if found is None:
        dropped.append(f"{where}.{key}: expected a {'decimal ' if is_amount else ''}string")
    return found


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


def media_of(
    outputs: Iterable[Output], duration_keys: Sequence[str], deleted_at: int, lost: LostOutputs
) -> tuple[Media, ...]:
    """Return the outputs that have a URL, at most MAX_OUTPUTS, with a unique index each.

    Files are named by the index: the provider's index or id of an output, or else its position.
    Adds unusable fields to `lost` if they leave an output out, and otherwise to `lost.dropped`.
    """
    media: dict[str, Media] = {}
    dropped = lost.dropped
    for kind, url_keys, position, where, output in outputs:
        url = url_in(output, url_keys, where, dropped, lost)
        if url is None:
            continue
        watermark_url = text_in(output, ("watermark_url",), where, dropped)
        duration = text_in(output, duration_keys, where, dropped, is_amount=True)
        if len(media) == MAX_OUTPUTS:
            lost.append(f"more than {MAX_OUTPUTS} outputs")
            break
        value = output.get("index", output.get("id"))
        is_usable = isinstance(value, int | str) and not isinstance(value, bool)
        index = cleaned(str(value)) if is_usable else ""
        if not 0 < len(index) <= MAX_INDEX:
            index = str(position)
        while index in media:
            index = f"{kind}-{len(media)}-{index}"
        until = expires_at(url, deleted_at)
        media[index] = Media(kind, url, index, watermark_url, duration, until)
    return tuple(media.values())

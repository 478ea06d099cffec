"""Reads a batch file, CSV with a header or JSONL; a row that cannot be used is told, not fatal."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.json_body import decode_strictly
from submitter import sheet
from submitter.errors import InputError
from submitter.orders import check_texts
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS
from submitter.settings import DEFAULT_ACCOUNT

COLUMNS = ("reference", "human", "cloth", "cloth2", "model", "account", "provider")
NEEDED = ("reference", "human", "cloth")
MAY_BE_NUMBERS = ("reference", "model", "account")  # in JSONL
EXACT_BELOW = 2**53  # floats below represent integers exactly
_SPACES = re.compile(r"[\u00a0\u2007\u202f]")  # non-breaking spaces
_ROUNDED = re.compile(r"-?\d([.,]\d+)?E\+\d{2,}", re.ASCII)
Entry = Mapping[str, Any] | InputError


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a row does not say."""

    provider: str = DEFAULT_PROVIDER
    account: str = DEFAULT_ACCOUNT
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One try-on to submit; `line` is where it begins in the file."""

    line: int
    reference: str
    human: str
    cloth: tuple[str, ...]
    provider: str
    account: str
    model: str | None


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be used, and why."""

    line: int
    reference: str
    problem: str


def read(
    path: Path,
    defaults: Defaults,
    encoding: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[list[Row], list[BadRow]]:
    """Return all rows of the file in order. Raises InputError if the whole file is unusable.

    `encoding` and `note` are passed to `sheet.text`.
    """
    text = sheet.text(path, encoding, note)
    entries = _jsonl(text) if text.lstrip().startswith("{") else _csv(text)
    good: dict[str, Row] = {}
    bad: list[BadRow] = []
    for line, entry in entries:
        reference = "" if isinstance(entry, InputError) else str(entry.get("reference") or "")
        try:
            row = _row(line, entry, defaults)
            _check_unique(row, good)
            good[row.reference] = row
        except InputError as error:
            bad.append(BadRow(line, reference.strip(), str(error)))
    return list(good.values()), bad


def _check_unique(row: Row, earlier: Mapping[str, Row]) -> None:
    if row.reference in earlier:
        first = earlier[row.reference].line
        raise InputError("reference", f"is in line {first} already")


def _jsonl(text: str) -> Iterator[tuple[int, Entry]]:
    for line, words in enumerate(sheet.lines(text), 1):
        if words.strip():
            try:
                document = decode_strictly(words.encode())
                yield line, _known(document)
            except RequestRefused as refusal:
                yield line, InputError("row", str(refusal).removeprefix("the body "))
            except InputError as error:
                yield line, error


def _csv(text: str) -> Iterator[tuple[int, Entry]]:
    found = sheet.rows(text, COLUMNS)
    _, first = next(found, (1, InputError("row", "is missing")))
    header = _header([] if isinstance(first, InputError) else first)
    for line, cells in found:
        yield line, cells if isinstance(cells, InputError) else _cells(header, cells)


def _header(cells: Sequence[str]) -> list[str]:
    """Return the column names; empty for a column without a name, whose cells must be empty."""
    header = [sheet.name(cell) for cell in cells]
    while header and not header[-1]:  # a trailing separator
        header.pop()
    names = [name for name in header if name]
    strange = [name for name in names if name not in COLUMNS]
    missing = [name for name in NEEDED if name not in names]
    if strange or missing or len(set(names)) != len(names):
        raise InputError(
            "file",
            f"its first line must name the columns: {', '.join(NEEDED)}, and as needed "
            f"{', '.join(name for name in COLUMNS if name not in NEEDED)}; "
            f"it names {', '.join(names)[:200] or 'none'}",
        )
    return header


def _cells(header: Sequence[str], values: Sequence[str]) -> Entry:
    if any(values[len(header) :]):
        return InputError("row", f"has {len(values)} fields, the header {len(header)}")
    for number, (name, value) in enumerate(zip(header, values, strict=False), 1):
        if value and not name:
            return InputError(
                "row", f"column {number} has no name in the header; add a name, or clear the column"
            )
    cells = {name: value for name, value in zip(header, values, strict=False) if name}
    if _ROUNDED.fullmatch(cells.get("reference", "")):
        return InputError(
            "reference", "was rounded by the spreadsheet; format the column as text, and export it"
        )
    garments = [cell.strip() for cell in cells.get("cloth", "").split(";")]
    return {**cells, "cloth": [garment for garment in garments if garment]}


def _known(document: Mapping[str, Any]) -> Mapping[str, Any]:
    strange = sorted(document.keys() - set(COLUMNS))
    if strange:
        raise InputError("row", f"{strange[0][:40]!r} is not one of {', '.join(COLUMNS)}")
    return document


def _row(line: int, entry: Entry, defaults: Defaults) -> Row:
    if isinstance(entry, InputError):
        raise entry
    model = _value(entry, "model") or defaults.model
    reference = _needed(entry, "reference")
    check_texts(reference, model)
    provider = _value(entry, "provider") or defaults.provider
    if provider not in PROVIDERS:
        raise InputError("provider", f"{provider!r} is not known; use {' or '.join(PROVIDERS)}")
    return Row(
        line=line,
        reference=reference,
        human=_needed(entry, "human"),
        cloth=tuple(_cloth(entry)),
        provider=provider,
        account=_value(entry, "account") or defaults.account,
        model=model,
    )


def _cloth(entry: Mapping[str, Any]) -> Iterable[str]:
    given = entry.get("cloth")
    several = [{"cloth": one} for one in given] if isinstance(given, list) else [entry]
    found = [_value(one, "cloth") for one in several] + [_value(entry, "cloth2")]
    garments = [garment for garment in found if garment]
    if not garments:
        raise InputError("cloth", "is missing")
    return garments


def _needed(entry: Mapping[str, Any], name: str) -> str:
    value = _value(entry, name)
    if value is None:
        raise InputError(name, "is missing")
    return value


def _value(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if name in MAY_BE_NUMBERS:
        value = _digits(name, value)
    if value is not None and not isinstance(value, str):
        raise InputError(name, f"expected a text, not {type(value).__name__}")
    value = (value or "").strip()
    return (_SPACES.sub(" ", value) if name in MAY_BE_NUMBERS else value) or None


def _digits(name: str, value: object) -> object:
    """Return a number as text, 42.0 as '42'; return any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(value, float) and abs(value) >= EXACT_BELOW:
        raise InputError(name, f"{value!r} is not an exact number; put it in quotation marks")
    return str(int(value)) if value == int(value) else repr(value)

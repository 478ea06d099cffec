"""Reads a batch file: CSV with a header, or JSONL. Invalid rows are returned separately."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.json_body import decode_strictly
from submitter import metadata
from submitter.batch import spreadsheet
from submitter.errors import InputError
from submitter.pictures.inputs import check_texts
from submitter.providers import DEFAULT_PROVIDER, PROVIDERS
from submitter.settings import DEFAULT_ACCOUNT

COLUMNS = ("reference", "human", "cloth", "cloth2", "model", "account", "provider", "metadata")
REQUIRED = ("reference", "human", "cloth")
MAY_BE_NUMBERS = ("reference", "model", "account")  # in JSONL
EXACT_BELOW = 2**53  # floats below represent integers exactly
_SPACES = re.compile(r"[\u00a0\u2007\u202f]")  # non-breaking spaces
_ROUNDED = re.compile(r"-?\d([.,]\d+)?E\+\d{2,}", re.ASCII)
Entry = Mapping[str, Any] | InputError


@dataclass(frozen=True, slots=True)
class Defaults:
    """The values for columns that a row leaves empty."""

    provider: str = DEFAULT_PROVIDER
    account: str = DEFAULT_ACCOUNT
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One try-on to submit; `line` is the line of the file on which it starts."""

    line: int
    reference: str
    human: str
    cloth: tuple[str, ...]
    provider: str
    account: str
    model: str | None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BadRow:
    """An invalid row and its problem."""

    line: int
    reference: str
    problem: str


def read(
    path: Path,
    defaults: Defaults,
    encoding: str | None = None,
    note: Callable[[str], None] = lambda _: None,
) -> tuple[list[Row], list[BadRow]]:
    """Return the valid and the invalid rows. Raises InputError if the whole file is unusable.

    `encoding` and `note` are passed to `spreadsheet.text`.
    """
    text = spreadsheet.text(path, encoding, note)
    entries = _jsonl(text) if text.lstrip().startswith("{") else _csv(text)
    good: dict[str, Row] = {}
    bad: list[BadRow] = []
    for line, entry in entries:
        reference = "" if isinstance(entry, InputError) else str(entry.get("reference") or "")
        try:
            row = _row(line, entry, defaults)
        except InputError as error:
            bad.append(BadRow(line, reference.strip(), str(error)))
            continue
        first = good.setdefault(row.reference, row)
        if first is not row:
            problem = f"reference: is already used in line {first.line}"
            bad.append(BadRow(line, row.reference, problem))
    return list(good.values()), bad


def _jsonl(text: str) -> Iterator[tuple[int, Entry]]:
    for line, content in enumerate(spreadsheet.lines(text), 1):
        if not content.strip():
            continue
        try:
            document = decode_strictly(content.encode())
        except RequestRefused as refusal:
            yield line, InputError("row", str(refusal).removeprefix("the body "))
            continue
        if unknown := sorted(document.keys() - set(COLUMNS)):
            problem = f"{unknown[0][:40]!r} is not one of {', '.join(COLUMNS)}"
            yield line, InputError("row", problem)
        else:
            yield line, document


def _csv(text: str) -> Iterator[tuple[int, Entry]]:
    rows = spreadsheet.rows(text, COLUMNS)
    _, first = next(rows, (1, InputError("row", "is missing")))
    header = _header([] if isinstance(first, InputError) else first)
    for line, cells in rows:
        yield line, cells if isinstance(cells, InputError) else _cells(header, cells)


def _header(cells: Sequence[str]) -> list[str]:
    """Return the names of the columns: "" for a column without a name, which must be empty."""
    header = [spreadsheet.name(cell) for cell in cells]
    while header and not header[-1]:  # a trailing separator
        header.pop()
    names = [name for name in header if name]
    unknown = [name for name in names if name not in COLUMNS]
    missing = [name for name in REQUIRED if name not in names]
    if unknown or missing or len(set(names)) != len(names):
        raise InputError(
            "file",
            f"its first line must name the columns: {', '.join(REQUIRED)}, and optionally "
            f"{', '.join(name for name in COLUMNS if name not in REQUIRED)}; "
            f"it names {', '.join(names)[:200] or 'none'}",
        )
    return header


def _cells(header: Sequence[str], values: Sequence[str]) -> Entry:
    if any(values[len(header) :]):
        return InputError("row", f"has {len(values)} fields, but the header has {len(header)}")
    for number, (name, value) in enumerate(zip(header, values, strict=False), 1):
        if value and not name:
            return InputError(
                "row", f"column {number} has no name in the header; add a name, or clear the column"
            )
    cells = {name: value for name, value in zip(header, values, strict=False) if name}
    if _ROUNDED.fullmatch(cells.get("reference", "")):
        return InputError(
            "reference",
            "was rounded by the spreadsheet; format the column as text and export it again",
        )
    garments = [cell.strip() for cell in cells.get("cloth", "").split(";")]
    return {**cells, "cloth": [garment for garment in garments if garment]}


def _row(line: int, entry: Entry, defaults: Defaults) -> Row:
    if isinstance(entry, InputError):
        raise entry
    model = _value(entry, "model") or defaults.model
    reference = _required(entry, "reference")
    check_texts(reference, model)
    provider = _value(entry, "provider") or defaults.provider
    if provider not in PROVIDERS:
        raise InputError("provider", f"{provider!r} is not known; use {' or '.join(PROVIDERS)}")
    return Row(
        line=line,
        reference=reference,
        human=_required(entry, "human"),
        cloth=tuple(_cloth(entry)),
        provider=provider,
        account=_value(entry, "account") or defaults.account,
        model=model,
        metadata=_metadata(entry),
    )


def _metadata(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a row: an object in JSONL, or its text as JSON."""
    given = entry.get("metadata")
    if not isinstance(given, str):
        return metadata.check(given)
    return metadata.parse(given) if given.strip() else {}


def _cloth(entry: Mapping[str, Any]) -> Iterable[str]:
    given = entry.get("cloth")
    entries = [{"cloth": garment} for garment in given] if isinstance(given, list) else [entry]
    values = [_value(one, "cloth") for one in entries] + [_value(entry, "cloth2")]
    garments = [value for value in values if value]
    if not garments:
        raise InputError("cloth", "is missing")
    return garments


def _required(entry: Mapping[str, Any], name: str) -> str:
    value = _value(entry, name)
    if value is None:
        raise InputError(name, "is missing")
    return value


def _value(entry: Mapping[str, Any], name: str) -> str | None:
    value = entry.get(name)
    if name in MAY_BE_NUMBERS:
        value = _digits(name, value)
    if value is not None and not isinstance(value, str):
        raise InputError(name, f"must be text, not {type(value).__name__}")
    value = (value or "").strip()
    return (_SPACES.sub(" ", value) if name in MAY_BE_NUMBERS else value) or None


def _digits(name: str, value: object) -> object:
    """Return a number as text, 42.0 as '42'; return any other value unchanged."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if isinstance(value, float) and abs(value) >= EXACT_BELOW:
        raise InputError(name, f"{value!r} is not an exact number; put it in quotation marks")
    return str(int(value)) if value == int(value) else repr(value)

"""Reads a batch file, CSV with a header or JSONL; a row that cannot be used is told, not fatal."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from receiver.errors import RequestRefused
from receiver.providers.base import decode_strictly
from submitter.errors import InputError
from submitter.orders import check_texts
from submitter.providers import ROOMS
from submitter.settings import DEFAULT_ACCOUNT

COLUMNS = ("reference", "human", "cloth", "cloth2", "model", "account", "provider")
NEEDED = ("reference", "human", "cloth")
DELIMITERS = ",;\t"  # spreadsheets of many countries write semicolons
MOST_BYTES = 64 * 1024 * 1024
Entry = Mapping[str, Any] | InputError


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds where a row does not say."""

    provider: str = "kling"
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


def read(path: Path, defaults: Defaults) -> tuple[list[Row], list[BadRow]]:
    """The rows of the file in its order, good and bad. Raises InputError for the whole file."""
    text = _text(path)
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
        raise InputError("reference", f"stands in line {first} already")


def _text(path: Path) -> str:
    if not path.is_file():  # looked at before it is opened: a pipe would wait for a writer
        raise InputError("file", f"{str(path)!r} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError("file", f"{path} is not UTF-8 text (byte {error.start + 1})") from None
    except OSError as error:
        raise InputError("file", f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise InputError("file", f"{path} is larger than {MOST_BYTES // 2**20} MB")
    if not text.strip():
        raise InputError("file", f"{path} is empty")
    return text


def _jsonl(text: str) -> Iterator[tuple[int, Entry]]:
    for line, words in enumerate(text.split("\n"), 1):
        if words.strip():
            try:
                document = decode_strictly(words.encode())
                yield line, _known(document)
            except RequestRefused as refusal:
                yield line, InputError("row", str(refusal))
            except InputError as error:
                yield line, error


def _csv(text: str) -> Iterator[tuple[int, Entry]]:
    delimiter = max(DELIMITERS, key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    header = _header(reader)
    while True:
        line = reader.line_num + 1
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:  # the reader goes on with the next line
            yield line, InputError("row", f"is not CSV: {error}")
            continue
        if any(value.strip() for value in values):
            yield line, _cells(header, values)


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        header = [name.strip().lower() for name in next(reader)]
    except (csv.Error, StopIteration):
        header = []
    strange = [name for name in header if name not in COLUMNS]
    missing = [name for name in NEEDED if name not in header]
    if strange or missing or len(set(header)) != len(header):
        raise InputError(
            "file",
            f"its first line must name the columns: {', '.join(NEEDED)}, and as needed "
            f"{', '.join(name for name in COLUMNS if name not in NEEDED)}; "
            f"it names {', '.join(header)[:200] or 'none'}",
        )
    return header


def _cells(header: Sequence[str], values: Sequence[str]) -> Entry:
    if any(value.strip() for value in values[len(header) :]):
        return InputError("row", f"has {len(values)} fields, the header {len(header)}")
    cells = dict(zip(header, values, strict=False))
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
    if provider not in ROOMS:
        raise InputError("provider", f"{provider!r} is not known; use {' or '.join(ROOMS)}")
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
    if value is not None and not isinstance(value, str):
        raise InputError(name, f"expected a text, not {type(value).__name__}")
    return (value or "").strip() or None

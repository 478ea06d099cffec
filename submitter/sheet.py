"""The text of a batch file, and its cells, as spreadsheets in many countries export them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submitter.errors import InputError

DELIMITERS = ",;\t|"  # where the decimal sign is a comma, spreadsheets separate cells by semicolons
MOST_BYTES = 64 * 1024 * 1024
MOST_LINES_OF_A_ROW = 100  # so that a quotation mark that is never closed costs one row
# Windows-1252, in which Excel saves CSV in Western Europe. charset-normalizer recognised it in none
# of five short files, because a few letters say too little; `encoding` is for all other files.
FALLBACK = "cp1252"
BINARY = {
    b"PK\x03\x04": "a workbook (such as .xlsx or .ods)",
    b"\xd0\xcf\x11\xe0": "a workbook (.xls)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a compressed file",
}
_MARKS = "\ufeff\u200b"  # byte order marks and zero-width spaces, which `strip` leaves
_SEPARATOR = re.compile(r'\s*"?sep *= *(\\t|\t|[^\s"])"?[\s,;|]*', re.IGNORECASE)
_FORMULA_OF_TEXT = re.compile(r'="((?:[^"]|"")*)"')


def text(path: Path, encoding: str | None, note: Callable[[str], None]) -> str:
    """The text of the file. `encoding` None: UTF-8, UTF-16 or UTF-32, else Windows-1252.

    Calls `note` if the encoding is a guess. Raises InputError.
    """
    if not path.is_file():  # checked before opening, because a pipe would wait for a writer
        raise InputError("file", f"{str(path)!r} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError("file", f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise InputError("file", f"{path} is larger than {MOST_BYTES // 2**20} MB")
    for start, kind in BINARY.items():
        if content.startswith(start):
            raise InputError("file", f"{path} is {kind}; export the sheet as CSV (UTF-8)")
    found = _decoded(path, content, encoding, note).strip(_MARKS + "\x1a")  # DOS ends files so
    if not found.strip():
        raise InputError("file", f"{path} is empty")
    return found


def _decoded(path: Path, content: bytes, encoding: str | None, note: Callable[[str], None]) -> str:
    likely = encoding or json.detect_encoding(content)  # byte order marks, and where NUL bytes are
    try:
        return content.decode(likely)
    except UnicodeDecodeError as error:
        if likely != "utf-8" or encoding is not None:
            where = f"byte {error.start + 1}"
            raise InputError("file", f"{path} is not {likely.upper()} text ({where})") from None
        position = error.start + 1
    try:
        found = content.decode(FALLBACK)
    except UnicodeDecodeError:
        raise InputError(
            "file",
            f"{path} is not UTF-8 text (byte {position}), nor Windows-1252; save it as UTF-8, or "
            "name its encoding with --encoding",
        ) from None
    note(
        f"{path} is not UTF-8 text (byte {position}) and was read as Windows-1252; if letters are "
        "wrong, save it as UTF-8, or name its encoding with --encoding"
    )
    return found


def check_encoding(name: str) -> str:
    """The name of an encoding of text. Raises ValueError."""
    try:
        found = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            f"{name!r} is not an encoding of text; use one like utf-8, cp1252, cp1251 or shift_jis"
        ) from None
    return found.name


def lines(found: str) -> list[str]:
    """The lines with their ends: those of Windows, Unix and old Macs."""
    return io.StringIO(found, newline="").readlines()


def rows(found: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str] | InputError]]:
    """Yield the line at which each row of the CSV begins, and its cells; the header comes first.

    The separator is the one that a first line `sep=;` names, or else the one by which most of
    these columns are found in the header. A row that is no CSV is an error of its own.
    """
    all_lines = lines(found)
    at = next((number for number, line in enumerate(all_lines) if line.strip()), 0)
    named = _SEPARATOR.fullmatch(all_lines[at])
    if named:
        at += 1
        delimiter = named[1].replace("\\t", "\t")
    else:
        delimiter = max(DELIMITERS, key=lambda one: _names_found(all_lines[at], one, columns))
    broken, broken_until = 0, 0  # a row that is no CSV, and where the reader found out
    while at < len(all_lines):
        line = at + 1
        some = (all_lines[i] for i in range(at, min(at + MOST_LINES_OF_A_ROW, len(all_lines))))
        reader = csv.reader(some, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            values = next(reader)
        except csv.Error as error:
            yield line, InputError("row", f"is not CSV: {error}")
            broken, broken_until = line, at + reader.line_num
            at += 1
            continue
        if at < broken_until and _has_stray_quote(all_lines[at], values):
            yield line, InputError("row", f"is not CSV, or belongs to the row in line {broken}")
        elif any(map(cell, values)):
            yield line, [cell(value) for value in values]
        at += reader.line_num


def cell(value: str) -> str:
    """The text of a cell without spaces around it, and without Excel's mark for text, `="…"`."""
    inner = value.strip().strip(_MARKS).strip()
    formula = _FORMULA_OF_TEXT.fullmatch(inner)
    return formula[1].replace('""', '"').strip() if formula else inner


def name(value: str) -> str:
    """The name of a column, from a header in any letter case and with spaces around it."""
    return cell(value).lower()


def _has_stray_quote(line: str, values: Sequence[str]) -> bool:
    """Whether a cell has a quotation mark that is not doubled, as CSV demands."""
    return '""' not in line and any('"' in value for value in values)


def _names_found(line: str, delimiter: str, columns: Sequence[str]) -> int:
    try:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return sum(name(one) in columns for one in names)

"""Reads the text and the cells of batch files as spreadsheet programs worldwide export them."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from submitter.errors import InputError

DELIMITERS = ",;\t|"  # semicolons are common in countries with a decimal comma
MAX_BYTES = 64 * 1024 * 1024
MAX_LINES_OF_A_ROW = 100  # so that an unclosed quotation mark spoils only one row
# Excel in Western Europe saves CSV as Windows-1252. Guessing among all encodings is unreliable for
# short files: charset-normalizer recognised none of five. Other encodings must be named.
FALLBACK = "cp1252"
BINARY = {
    b"PK\x03\x04": "a workbook (such as .xlsx or .ods)",
    b"\xd0\xcf\x11\xe0": "a workbook (.xls)",
    b"%PDF": "a PDF document",
    b"\x1f\x8b": "a compressed file",
}
_MARKS = "\ufeff\u200b"  # byte order marks and zero-width spaces, which `strip` keeps
_SEPARATOR = re.compile(r'\s*"?sep *= *(\\t|\t|[^\s"])"?[\s,;|]*', re.IGNORECASE)
_FORMULA_OF_TEXT = re.compile(r'="((?:[^"]|"")*)"')


def text(path: Path, encoding: str | None, note: Callable[[str], None]) -> str:
    """Return the text of the file. Without `encoding`: UTF-8, UTF-16, UTF-32 or Windows-1252.

    Calls `note` if the encoding was guessed. Raises InputError.
    """
    if not path.exists():
        raise InputError("file", f"{str(path)!r} does not exist")
    if not path.is_file():  # before opening it, because a pipe would block
        raise InputError("file", f"{str(path)!r} is not a file")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError("file", f"{path} cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise InputError("file", f"{path} is larger than {MAX_BYTES // 2**20} MB")
    for start, kind in BINARY.items():
        if content.startswith(start):
            raise InputError("file", f"{path} is {kind}; export the sheet as CSV (UTF-8)")
    decoded = _decoded(path, content, encoding, note).strip(_MARKS + "\x1a")  # end of file in DOS
    if not decoded.strip():
        raise InputError("file", f"{path} is empty")
    return decoded


def _decoded(path: Path, content: bytes, encoding: str | None, note: Callable[[str], None]) -> str:
    likely = encoding or json.detect_encoding(content)  # by byte order marks and NUL bytes
    try:
        return content.decode(likely)
    except UnicodeDecodeError as error:
        if likely != "utf-8" or encoding is not None:
            where = f"byte {error.start + 1}"
            raise InputError("file", f"{path} is not {likely.upper()} text ({where})") from None
        position = error.start + 1
    try:
        decoded = content.decode(FALLBACK)
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
    return decoded


def check_encoding(name: str) -> str:
    """Return the name of a text encoding. Raises ValueError."""
    try:
        codec = codecs.lookup(name)
        "".encode(name)
    except (LookupError, ValueError):
        raise ValueError(
            f"{name!r} is not a text encoding; use one such as utf-8, cp1252, cp1251 or shift_jis"
        ) from None
    return codec.name


def lines(text: str) -> list[str]:
    """Return the lines with their line endings: Windows, Unix and old Mac."""
    return io.StringIO(text, newline="").readlines()


def rows(text: str, columns: Sequence[str]) -> Iterator[tuple[int, list[str] | InputError]]:
    """Yield the first line and the cells of each row of the CSV, including the header.

    The separator is the one named in a first line such as `sep=;`, or else the one with which the
    header has most of these columns. A row that is not valid CSV yields an error.
    """
    all_lines = lines(text)
    at = next((number for number, line in enumerate(all_lines) if line.strip()), 0)
    named = _SEPARATOR.fullmatch(all_lines[at])
    if named:
        at += 1
        delimiter = named[1].replace("\\t", "\t")
    else:
        delimiter = max(DELIMITERS, key=lambda char: _columns_in(all_lines[at], char, columns))
    broken, broken_until = 0, 0  # an invalid row, and the line on which the error was detected
    while at < len(all_lines):
        line = at + 1
        following = (all_lines[i] for i in range(at, min(at + MAX_LINES_OF_A_ROW, len(all_lines))))
        reader = csv.reader(following, delimiter=delimiter, strict=True, skipinitialspace=True)
        try:
            values = next(reader)
        except csv.Error as error:
            yield line, InputError("row", f"is not valid CSV: {error}")
            broken, broken_until = line, at + reader.line_num
            at += 1
            continue
        if at < broken_until and _has_stray_quote(all_lines[at], values):
            yield (
                line,
                InputError("row", f"is not valid CSV, or belongs to the row in line {broken}"),
            )
        elif any(map(cell, values)):
            yield line, [cell(value) for value in values]
        at += reader.line_num


def cell(value: str) -> str:
    """Return the cell without surrounding spaces and without Excel's text marker, `="…"`."""
    inner = value.strip().strip(_MARKS).strip()
    formula = _FORMULA_OF_TEXT.fullmatch(inner)
    return formula[1].replace('""', '"').strip() if formula else inner


def name(value: str) -> str:
    """Return the normalized name of a column: lower case, without surrounding spaces."""
    return cell(value).lower()


def _has_stray_quote(line: str, values: Sequence[str]) -> bool:
    """Return whether a cell has a quotation mark that is not doubled, as CSV requires."""
    return '""' not in line and any('"' in value for value in values)


def _columns_in(line: str, delimiter: str, columns: Sequence[str]) -> int:
    try:
        names = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return 0
    return sum(name(value) in columns for value in names)

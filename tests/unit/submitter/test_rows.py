"""Reading the rows of a batch file."""

from __future__ import annotations

import codecs
import json
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.batch.rows import COLUMNS, BadRow, Defaults, Row, read
from submitter.batch.spreadsheet import check_encoding
from submitter.errors import InputError

HEADER = "reference,human,cloth,cloth2,model,account,provider\n"
Parse = Callable[..., tuple[list[Row], list[BadRow]]]


@pytest.fixture
def parse(tmp_path: Path) -> Parse:
    def parse(
        text: str | bytes, defaults: Defaults | None = None
    ) -> tuple[list[Row], list[BadRow]]:
        path = tmp_path / "orders.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read(path, defaults or Defaults())

    return parse


def row(line: int, reference: str, *cloth: str, **more: str | None) -> Row:
    values: dict[str, Any] = {"provider": "kling", "account": "default", "model": None, **more}
    return Row(line, reference, "me.jpg", cloth, **values)


def test_csv_columns_are_found_by_the_header_in_any_order(parse: Parse) -> None:
    text = "Cloth, Human ,REFERENCE\nshirt.png,me.jpg,ORDER-7\n\n ,,\nhat.png,me.jpg,ORDER-8"
    assert parse(text) == ([row(2, "ORDER-7", "shirt.png"), row(5, "ORDER-8", "hat.png")], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_the_encodings_of_spreadsheets_is_read(
    parse: Parse, delimiter: str, end: str, encoding: str
) -> None:
    lines = [("reference", "human", "cloth"), ("ÖRDER-7", "me.jpg", "shirt.png")]
    text = end.join(delimiter.join(cells) for cells in lines)
    assert parse(text.encode(encoding)) == ([row(2, "ÖRDER-7", "shirt.png")], [])


def test_two_garments_are_in_one_cell_or_in_two_columns(parse: Parse) -> None:
    text = HEADER + "A,me.jpg,upper:a.png; lower:b.png,,,,\nB,me.jpg,upper:a.png,lower:b.png,,,\n"
    pair = ("upper:a.png", "lower:b.png")
    assert parse(text) == ([row(2, "A", *pair), row(3, "B", *pair)], [])


def test_a_row_overrides_the_options(parse: Parse) -> None:
    text = HEADER + "A,me.jpg,a,,m2,shop2,modellix\nB,me.jpg,a,,,,\n"
    rows, _ = parse(text, Defaults("appypie", "shop1", "m1"))
    assert rows == [
        row(2, "A", "a", provider="modellix", account="shop2", model="m2"),
        row(3, "B", "a", provider="appypie", account="shop1", model="m1"),
    ]


def test_jsonl_is_recognised_by_its_first_character(parse: Parse) -> None:
    pair = ["upper:a;b.png", "lower:b.png"]
    lines = [
        {"reference": "A", "human": "me.jpg", "cloth": "a.png"},
        {"reference": "B", "human": "me.jpg", "cloth": pair, "model": None},
    ]
    text = "\n\n".join(json.dumps(line) for line in lines)
    assert parse("\n" + text) == ([row(2, "A", "a.png"), row(4, "B", *pair)], [])


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (",me.jpg,a,,,,", "reference: is missing"),
        ("A,,a,,,,", "human: is missing"),
        ("A,me.jpg,;,,,,", "cloth: is missing"),
        ("A,me.jpg", "cloth: is missing"),
        ("A,me.jpg,a,,,,piapi", "provider: 'piapi' is not known; use kling or modellix or appypie"),
        ("A\x1b,me.jpg,a,,,,", "reference: use 1 to 200 printable characters"),
        (f"{'A' * 201},me.jpg,a,,,,", "reference: use 1 to 200 printable characters"),
        ("A,me.jpg,a,,,,,one too many", "row: has 8 fields, but the header has 7"),
        ('A,"me"x,a,,,,', "row: is not valid CSV: ',' expected after '\"'"),
        ("GOOD-1,me.jpg,a,,,,", "reference: is already used in line 2"),
    ],
)
def test_a_bad_row_is_reported_with_its_line_and_the_others_are_read(
    parse: Parse, line: str, problem: str
) -> None:
    good = ("GOOD-1,me.jpg,a,,,,", "GOOD-2,me.jpg,a,,,,")
    rows, bad = parse(f"{HEADER}{good[0]}\n{line}\n{good[1]}\n")
    assert [row.reference for row in rows] == ["GOOD-1", "GOOD-2"]
    assert [(row.line, row.problem) for row in bad] == [(3, problem)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"reference": [7], "human": "h", "cloth": "c"}', "reference: must be text, not list"),
        ('{"reference": true, "human": "h", "cloth": "c"}', "reference: must be text, not bool"),
        ('{"reference": false, "human": "h", "cloth": "c"}', "reference: must be text, not b"),
        ('{"reference": 1e300, "human": "h", "cloth": "c"}', "reference: 1e+300 is not an exact n"),
        ('{"reference": 9007199254740993.0, "human": "h", "cloth": "c"}', "reference: 90071992547"),
        ('{"reference": NaN, "human": "h", "cloth": "c"}', "row: is not JSON"),
        ('{"reference": null, "human": "h", "cloth": "c"}', "reference: is missing"),
        ('{"reference": "A", "human": 7, "cloth": "c"}', "human: must be text, not int"),
        ('{"reference": "A", "human": "h", "cloth": [1]}', "cloth: must be text, not int"),
        ('{"reference": "A", "human": "h", "cloth": []}', "cloth: is missing"),
        ('{"reference": "A", "human": "h", "clothe": "c"}', "row: 'clothe' is not one of"),
        ('{"reference": "A", "reference": "B"}', "row: is not JSON"),
        ("[]", "row: expected a JSON object"),
        ("A,h,c", "row: is not JSON"),
    ],
)
def test_a_bad_line_of_jsonl_is_reported(parse: Parse, line: str, problem: str) -> None:
    good = json.dumps({"reference": "GOOD", "human": "me.jpg", "cloth": "a"})
    rows, ((bad),) = parse(f"{good}\n{line}\n")
    assert rows == [row(1, "GOOD", "a")]
    assert bad.line == 2
    assert bad.problem.startswith(problem)


def test_a_quoted_line_break_does_not_shift_the_line_numbers(parse: Parse) -> None:
    rows, bad = parse(HEADER + '"A\nB",me.jpg,a,,,,\nC,me.jpg,a,,,,\n')
    assert [row.line for row in rows] == [4]
    assert [row.line for row in bad] == [2]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"reference,human\n", "its first line must name the columns: reference, human, cloth"),
        (b"reference,human,clothe\n", "it names reference, human, clothe"),
        (b"reference,human,cloth,cloth\n", "its first line must name"),
        (b'"reference\n', "its first line must name"),
        (b"reference,human,cloth\n\x81", r"not UTF-8 text \(byte 23\), nor .* with --encoding"),
        ("reference,human,cloth\nÖ".encode("utf-16")[:-1], r"not UTF-16 text \(byte 47\)"),
        (codecs.BOM_UTF8 + b"reference,human,cloth\n\xd6", "not UTF-8-SIG text"),
        (b"PK\x03\x04 and so on", "is a workbook .*; export the sheet as CSV"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is a workbook .*; export the sheet as CSV"),
        (b"sep=;\n", "its first line must name the columns"),
        (b"sep=;\nreference,human,cloth\n", "its first line must name the columns"),
        (b"reference,human,cloth,,price\n", "it names reference, human, cloth, price"),
    ],
)
def test_an_unusable_file_is_refused_as_a_whole(
    parse: Parse, content: bytes, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse(content)
    assert caught.value.field == "file"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [("missing.csv", "does not exist"), ("", "is not a file"), ("a\0b", "does not exist")],
)
def test_a_path_that_is_not_a_file_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        read(tmp_path / name, Defaults())


# -- exports of spreadsheets

ORDERS = ("ÖRDER-7", "me.jpg", "shirt.png")
UNMARKED = ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be", "cp1252"]
MARKED = {
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
    "utf-8-sig": codecs.BOM_UTF8,  # a second mark, from a program that added its own
}


@pytest.mark.parametrize(
    ("encoding", "mark"), [*((one, b"") for one in UNMARKED), *sorted(MARKED.items())]
)
def test_every_separator_encoding_and_line_ending_of_an_export_is_read(
    parse: Parse, encoding: str, mark: bytes
) -> None:
    separators = ["", "sep={0}", '"sep={0}"', "SEP={0}", "sep={0}{0}{0}"]
    for separator, delimiter, end in product(separators, ",;\t|", ["\n", "\r\n", "\r"]):
        first = [separator.format(delimiter)] if separator else []
        header = delimiter.join(("Reference", "human", "cloth"))
        lines = [*first, header, delimiter.join(ORDERS), ""]
        text = mark + end.join(lines).encode(encoding)
        assert parse(text) == ([row(len(first) + 2, "ÖRDER-7", "shirt.png")], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_jsonl_may_have_any_encoding_and_line_ending(parse: Parse, encoding: str, end: str) -> None:
    one = '{"reference": "ÖRDER-7", "human": "me.jpg", "cloth": "a\u2028b.png"}'
    one = one if encoding != "cp1252" else one.replace("\u2028", "")
    rows, bad = parse((one + end).encode(encoding))
    assert (len(rows), bad) == (1, [])


@pytest.mark.parametrize(
    "text",
    [
        "reference;human;cloth;\nA;me.jpg;a.png;\n",
        "reference;human;cloth;;;\nA;me.jpg;a.png;;;\n",
        "reference;human;cloth;;;\nA;me.jpg;a.png\n",
        "reference;human;cloth\nA;me.jpg;a.png;;;\n",
        "reference;;human;cloth\nA;;me.jpg;a.png\n",
        ";reference;human;cloth\n;A;me.jpg;a.png\n",
        'sep=;;;\n"REFERENCE";"Human"; "cloth"\n"A";"me.jpg"; "a.png"\n',
        "sep= ;\nreference;human;cloth\nA;me.jpg;a.png\n",
        "sep=\\t\nreference\thuman\tcloth\nA\tme.jpg\ta.png\n",
        "sep=^\nreference^human^cloth\nA^me.jpg^a.png\n",
        "\u00a0Reference\u00a0;human ;\u202fcloth\nA\u00a0; me.jpg;a.png\u00a0\n",
        "reference;human;cloth\n;;\n \u00a0;;\n\nA;me.jpg;a.png\n;;\n;;;;\n\n",
        "\n\n" + "reference;human;cloth\nA;me.jpg;a.png\n",
        'reference;human;cloth\n="A";="me.jpg";a.png\n',
        'reference;human;cloth\n"=""A""";me.jpg;a.png\n',
        "reference;human;cloth\nA;me.jpg;a.png\n\x1a",
        "\ufeff\ufeffreference;human;cloth\nA;me.jpg;a.png\n",
        "reference;human;cloth\n\u200bA;me.jpg;a.png\ufeff\n",
    ],
)
def test_additions_of_spreadsheets_are_ignored(parse: Parse, text: str) -> None:
    rows, bad = parse(text)
    assert ([(one.reference, one.human, one.cloth) for one in rows], bad) == (
        [("A", "me.jpg", ("a.png",))],
        [],
    )


def test_leading_zeros_and_inner_spaces_are_preserved(parse: Parse) -> None:
    rows, bad = parse('reference;human;cloth\n="0012";me.jpg;a.png\nB\u00a07;m e.jpg;b.png\n')
    assert [(one.reference, one.human) for one in rows] == [("0012", "me.jpg"), ("B 7", "m e.jpg")]
    assert bad == []


@pytest.mark.parametrize(
    ("number", "reference"),
    [
        ("42", "42"),
        ("0", "0"),
        ("-7", "-7"),
        ("42.0", "42"),
        ("1e3", "1000"),
        ("42.5", "42.5"),
        ("123456789012345678901234567890", "123456789012345678901234567890"),
        ("867283741759111202", "867283741759111202"),
        ("9007199254740991.0", "9007199254740991"),
    ],
)
def test_a_number_in_jsonl_is_read_as_its_text(parse: Parse, number: str, reference: str) -> None:
    line = f'{{"reference": {number}, "human": "me.jpg", "cloth": "a.png", "account": 2}}\n'
    assert parse(line) == ([row(1, reference, "a.png", account="2")], [])


def test_a_number_and_its_text_are_the_same_reference(parse: Parse) -> None:
    lines = ['{"reference": 42, "human": "me.jpg", "cloth": "a"}']
    lines += ['{"reference": "42", "human": "me.jpg", "cloth": "a"}']
    rows, ((bad),) = parse("\n".join(lines))
    assert [one.reference for one in rows] == ["42"]
    assert (bad.line, bad.problem) == (2, "reference: is already used in line 1")


@pytest.mark.parametrize("number", ["1.23457E+12", "1,23457E+12", "1E+12", "8.67284E+17"])
def test_a_reference_that_a_spreadsheet_rounded_is_refused(parse: Parse, number: str) -> None:
    rows, ((bad),) = parse(f"reference;human;cloth\n{number};me.jpg;a\n1E5;me.jpg;a\n")
    assert [one.reference for one in rows] == ["1E5"]
    assert bad.problem.startswith("reference: was rounded by the spreadsheet; format the column")


def test_a_value_in_a_column_without_a_name_is_reported(parse: Parse) -> None:
    rows, ((bad),) = parse("reference,,human,cloth\nA,,me.jpg,a\nB,x,me.jpg,a\n")
    assert [one.reference for one in rows] == ["A"]
    assert (bad.line, bad.problem) == (
        3,
        "row: column 2 has no name in the header; add a name, or clear the column",
    )


def test_an_unclosed_quotation_mark_invalidates_one_row(parse: Parse) -> None:
    lines = [f"R{number},me.jpg,a" for number in range(500)]
    rows, ((bad),) = parse("\n".join(["reference,human,cloth", 'A,"me.jpg,a', *lines]))
    assert len(rows) == 500
    assert (bad.line, bad.problem) == (2, "row: is not valid CSV: unexpected end of data")


def test_the_rest_of_a_broken_row_is_not_read_as_a_row(parse: Parse) -> None:
    text = 'reference,human,cloth\n"A\nB"x,me.jpg,a\n"C",me.jpg,a\n'
    rows, bad = parse(text)
    assert [one.reference for one in rows] == ["C"]
    assert [one.line for one in bad] == [2, 3]
    assert "belongs to the row in line 2" in bad[1].problem


def test_a_guessed_encoding_is_reported_and_can_be_overridden(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_bytes("reference;human;cloth\nŻółw;me.jpg;a.png\n".encode("cp1250"))
    notes: list[str] = []
    read(path, Defaults(), None, notes.append)
    (note,) = notes
    assert "was read as Windows-1252" in note
    assert "--encoding" in note
    rows, _ = read(path, Defaults(), "cp1250", notes.append)
    assert [one.reference for one in rows] == ["Żółw"]
    assert len(notes) == 1
    with pytest.raises(InputError, match="is not UTF-8 text"):
        read(path, Defaults(), "utf-8")


@pytest.mark.parametrize("name", ["utf-8", "CP1252", "latin1", "shift_jis", "utf-16"])
def test_the_usual_names_of_encodings_are_accepted(name: str) -> None:
    assert check_encoding(name)


@pytest.mark.parametrize("name", ["", "nonsense", "base64", "rot13", "zlib", "a\0b", "é"])
def test_anything_but_a_text_encoding_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is not a text encoding; use one such as utf-8"):
        check_encoding(name)


CELL = st.one_of(
    st.text(max_size=8), st.sampled_from(["A", "B", "upper:a;lower:b", '"', ";", "kling", "\0"])
)
SHEET = st.lists(st.lists(CELL, max_size=9).map(",".join), max_size=8).map("\n".join)


@given(body=SHEET, header=st.sampled_from([HEADER, "cloth;human;reference\n", "{\n", ""]))
def test_every_row_of_any_file_is_either_valid_or_reported(
    tmp_path_factory: pytest.TempPathFactory, body: str, header: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_text(header + body, encoding="utf-8", newline="")
    try:
        rows, bad = read(path, Defaults())
    except InputError:
        return
    assert all(row.reference and row.human and row.cloth for row in rows)
    assert len({row.reference for row in rows}) == len(rows)
    assert all(row.line >= 1 and row.problem for row in bad)


def test_the_columns_are_named_in_the_help() -> None:
    from submitter.cli import main  # noqa: PLC0415 - only this test needs the command

    help_text = main.commands["batch"].help or ""
    assert all(column in help_text for column in COLUMNS)

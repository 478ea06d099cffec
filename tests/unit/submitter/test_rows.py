"""What a batch file says, row by row."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from submitter.errors import InputError
from submitter.rows import COLUMNS, BadRow, Defaults, Row, read

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
    told: dict[str, Any] = {"provider": "kling", "account": "default", "model": None, **more}
    return Row(line, reference, "me.jpg", cloth, **told)


def test_csv_is_read_by_its_header_in_any_order(parse: Parse) -> None:
    text = "Cloth, Human ,REFERENCE\nshirt.png,me.jpg,ORDER-7\n\n ,,\nhat.png,me.jpg,ORDER-8"
    assert parse(text) == ([row(2, "ORDER-7", "shirt.png"), row(5, "ORDER-8", "hat.png")], [])


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_as_spreadsheets_write_it(
    parse: Parse, delimiter: str, end: str, encoding: str
) -> None:
    lines = [("reference", "human", "cloth"), ("ÖRDER-7", "me.jpg", "shirt.png")]
    text = end.join(delimiter.join(cells) for cells in lines)
    assert parse(text.encode(encoding)) == ([row(2, "ÖRDER-7", "shirt.png")], [])


def test_two_garments_stand_in_one_cell_or_in_two_columns(parse: Parse) -> None:
    text = HEADER + "A,me.jpg,upper:a.png; lower:b.png,,,,\nB,me.jpg,upper:a.png,lower:b.png,,,\n"
    pair = ("upper:a.png", "lower:b.png")
    assert parse(text) == ([row(2, "A", *pair), row(3, "B", *pair)], [])


def test_a_row_says_more_than_the_options(parse: Parse) -> None:
    text = HEADER + "A,me.jpg,a,,m2,shop2,modellix\nB,me.jpg,a,,,,\n"
    rows, _ = parse(text, Defaults("appypie", "shop1", "m1"))
    assert rows == [
        row(2, "A", "a", provider="modellix", account="shop2", model="m2"),
        row(3, "B", "a", provider="appypie", account="shop1", model="m1"),
    ]


def test_jsonl_is_known_by_its_first_character(parse: Parse) -> None:
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
        ("A,me.jpg,a,,,,,one too many", "row: has 8 fields, the header 7"),
        ('A,"me"x,a,,,,', "row: is not CSV: ',' expected after '\"'"),
        ("GOOD-1,me.jpg,a,,,,", "reference: stands in line 2 already"),
    ],
)
def test_a_bad_row_is_told_with_its_line_and_the_rest_goes_on(
    parse: Parse, line: str, problem: str
) -> None:
    good = ("GOOD-1,me.jpg,a,,,,", "GOOD-2,me.jpg,a,,,,")
    rows, bad = parse(f"{HEADER}{good[0]}\n{line}\n{good[1]}\n")
    assert [row.reference for row in rows] == ["GOOD-1", "GOOD-2"]
    assert [(row.line, row.problem) for row in bad] == [(3, problem)]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"reference": 7, "human": "h", "cloth": "c"}', "reference: expected a text, not int"),
        ('{"reference": "A", "human": "h", "cloth": [1]}', "cloth: expected a text, not int"),
        ('{"reference": "A", "human": "h", "cloth": []}', "cloth: is missing"),
        ('{"reference": "A", "human": "h", "clothe": "c"}', "row: 'clothe' is not one of"),
        ('{"reference": "A", "reference": "B"}', "row: the body is not JSON"),
        ("[]", "row: expected a JSON object"),
        ("A,h,c", "row: the body is not JSON"),
    ],
)
def test_a_bad_line_of_jsonl_is_told(parse: Parse, line: str, problem: str) -> None:
    good = json.dumps({"reference": "GOOD", "human": "me.jpg", "cloth": "a"})
    rows, ((bad),) = parse(f"{good}\n{line}\n")
    assert rows == [row(1, "GOOD", "a")]
    assert bad.line == 2
    assert bad.problem.startswith(problem)


def test_a_quoted_line_break_does_not_shift_the_lines(parse: Parse) -> None:
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
        ("reference,human,cloth\nÖ".encode("latin-1"), "not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_whole(
    parse: Parse, content: bytes, complaint: str
) -> None:
    with pytest.raises(InputError, match=complaint) as caught:
        parse(content)
    assert caught.value.field == "file"


@pytest.mark.parametrize("name", ["missing.csv", "", "a\0b"])
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="is not a file"):
        read(tmp_path / name, Defaults())


CELL = st.one_of(
    st.text(max_size=8), st.sampled_from(["A", "B", "upper:a;lower:b", '"', ";", "kling", "\0"])
)
SHEET = st.lists(st.lists(CELL, max_size=9).map(",".join), max_size=8).map("\n".join)


@given(body=SHEET, header=st.sampled_from([HEADER, "cloth;human;reference\n", "{\n", ""]))
def test_whatever_a_file_holds_each_row_is_good_or_told(
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
    from submitter.cli import main  # noqa: PLC0415 - the command, for this test alone

    told = main.commands["batch"].help or ""
    assert all(column in told for column in COLUMNS)

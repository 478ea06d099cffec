"""Tables on a terminal never break a word at any width."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import click
import pytest

from receiver.console import output, records
from receiver.deliveries import Attempt, Delivery, State, Transition
from receiver.doctor.findings import warning
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Outcome, Status, Task, Trust
from receiver.text import display
from tests.support.samples import callback

ID = "01a2241d82ad711087eaea9b0bbb9511"
AT = 1_765_519_851_000  # 2025-12-12 06:10:51
CALLBACK = callback(task_id=ID, received_at=AT)
PROBLEM = "the body has more than 262144 bytes after decompression"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Terminal]:
    """Make standard output a terminal of this width."""

    def make(columns: int) -> Terminal:
        screen = Terminal()
        monkeypatch.setattr(sys, "stdout", screen)
        for name, value in {"TERM": "dumb", "LINES": "50", "COLUMNS": str(columns)}.items():
            monkeypatch.setenv(name, value)
        return screen

    return make


def stored() -> StoredCallback:
    return StoredCallback(
        153, callback(task_id=ID, received_at=AT), Outcome.QUARANTINED, 0, PROBLEM
    )


def test_columns_that_do_not_fit_are_below_their_row(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    records.show_callbacks([stored()])
    assert screen.getvalue().splitlines() == [
        "id   task         source    outcome      repeats  received (UTC)",
        "153  …9b0bbb9511  callback  quarantined  0        2025-12-12 06:10:51",
        "    problem: the body has more than 262144 bytes after decompression",
    ]


def test_a_row_is_one_line_where_it_fits(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(180)
    records.show_callbacks([stored()])
    assert len(screen.getvalue().splitlines()) == 2
    assert PROBLEM in screen.getvalue()
    assert ID in screen.getvalue()  # it is abbreviated only if the row does not fit


@pytest.mark.parametrize("columns", [1, 20, 79, 80, 81, 200])
def test_nothing_is_omitted_at_any_width(terminal: Callable[[int], Terminal], columns: int) -> None:
    screen = terminal(columns)
    reason = "服务 is [bold]busy[/] " + "x" * 90
    task = Task(ID, "kling", Status.FAILED, AT, AT, reference="ORDER-7", reason=reason)
    records.show_tasks([task])
    shown = "".join(screen.getvalue().split())
    end_of_id = ID[-output.ID_KEPT :]
    for text in (end_of_id, "kling", "ORDER-7", "failed", "2025-12-12", "".join(reason.split())):
        assert text in shown


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "x" * 200  # with the other columns, it is wider than any terminal
    records.show_tasks([Task(ID, "kling", Status.FAILED, AT, AT, reason=reason)])
    names, row = capsys.readouterr().out.splitlines()
    assert names.split("\t") == ["task", "provider", "reference", "status", "created", "reason"]
    assert row.split("\t") == [ID, "kling", "", "failed", "2025-12-12 06:10:51", reason]


def test_a_finding_is_broken_between_words(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    problem = "none was seen for 63 s: callbacks that never come are not fetched"
    output.show_finding(warning("poller", problem, "start receiver serve, or another poller"))
    shown = click.unstyle(screen.getvalue()).splitlines()
    assert shown == [
        "warning  poller       none was seen for 63 s: callbacks that never come are not",
        "                      fetched; start receiver serve, or another poller",
    ]


def test_a_command_for_pasting_stays_on_one_line(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    program = "python3 -c 'import secrets; print(secrets.token_urlsafe(32))'"
    output.show_finding(warning("settings", "it is too short", f"make one with: {program}"))
    assert program in screen.getvalue()


def test_a_list_of_mismatches_fits(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    columns = ("its id", "our id", "status", "created", "result")
    row = ("385235401494757376", ID, "succeeded", "2026-11-29T01:07:57.044Z", "https://a.example/1")
    output.show_table(columns, [row], "No tasks.", ids=("our id",))
    assert screen.getvalue().splitlines() == [
        "its id              our id       status     created",
        "385235401494757376  …9b0bbb9511  succeeded  2026-11-29T01:07:57.044Z",
        "    result: https://a.example/1",
    ]


def test_a_table_for_people_names_the_time_zone(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    records.show_tasks([Task(ID, "kling", Status.CREATED, AT, AT)])
    assert "created (UTC)" in screen.getvalue().splitlines()[0]


def test_no_line_of_a_timeline_ends_with_spaces(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    task = Task(ID, "kling", Status.CREATED, AT, AT)
    created = Transition("created", AT, AT, Trust.TOKEN)
    records.show_timeline(TaskHistory(task, (created,), (), (), {}, {}))
    assert not [line for line in screen.getvalue().splitlines() if line != line.rstrip()]


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_no_word_and_no_number_is_broken(terminal: Callable[[int], Terminal], columns: int) -> None:
    screen = terminal(columns)
    words = ["https://cdn.example/" + "a" * 90, "12345678901234567890.12", "half-open", "ORDER-7"]
    output.show_table(("name", "text"), [("x", " ".join(words))], "Nothing.")
    output.print_line(f"task {' '.join(words)}")
    shown = screen.getvalue().split()
    for word in words:
        assert shown.count(word) == 2


def test_long_lines_of_a_timeline_are_broken_between_words(
    terminal: Callable[[int], Terminal],
) -> None:
    screen = terminal(80)
    task = Task(ID, "kling", Status.CREATED, AT, AT)
    late = StoredCallback(
        1, callback(task_id=ID, received_at=AT + 3_725_000), Outcome.QUARANTINED, 0, PROBLEM
    )
    created = Transition("created", AT, AT, Trust.TOKEN)
    records.show_timeline(TaskHistory(task, (created,), (late,), (), {}, {}))
    lines = screen.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[2].split()[:5] == ["+1", "h", "2", "min", "callback"]
    assert all(line.startswith(" " * records.TIMELINE_INDENT) for line in lines[3:])
    assert PROBLEM in " ".join(" ".join(lines).split())


def test_a_timeline_shows_what_a_delivery_waits_for_and_that_it_is_dead(
    terminal: Callable[[int], Terminal],
) -> None:
    screen = terminal(80)
    task = Task(ID, "kling", Status.SUCCEEDED, AT, AT)
    waits = Delivery(1, ID, "succeeded", "shop", State.PENDING, 0, None, after="cutout")
    due = Delivery(2, ID, "succeeded", "chat", State.PENDING, 0, AT)
    dead = Delivery(3, ID, "succeeded", "mail", State.DEAD, 2, None, ended_at=AT)
    failures = tuple(Attempt(number, AT, AT, "failed", "550 no such user") for number in (1, 2))
    records.show_timeline(TaskHistory(task, (), (), (waits, due, dead), {3: failures}, {}))
    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert lines[1:] == [
        "+0.000 s mail failed 550 no such user (0.000 s)",
        "+0.000 s mail failed 550 no such user (0.000 s, dead letter)",
        "shop pending after cutout",
        "chat pending due 2025-12-12 06:10:51",
    ]


def test_a_number_is_not_separated_from_its_unit(terminal: Callable[[int], Terminal]) -> None:
    for columns in range(30, 50):
        screen = terminal(columns)
        output.print_line("downloaded 1 file, 257332 bytes (0.070 s), after 3 h 12 min")
        lines = screen.getvalue().splitlines()
        for words in ("257332 bytes", "(0.070 s),", "3 h 12 min"):
            assert any(words in line for line in lines), lines


def test_numbers_are_aligned_on_the_right(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    output.show_table(("by", "cost"), [("a", "1.50"), ("b", "100.25")], "", numbers=("cost",))
    assert screen.getvalue().splitlines() == ["by    cost", "a     1.50", "b   100.25"]


@pytest.mark.parametrize(
    ("ms", "shown"),
    [
        (0, "0.000 s"),
        (136, "0.136 s"),
        (-1918, "1.918 s"),
        (9_999, "9.999 s"),
        (10_000, "10.0 s"),
        (59_949, "59.9 s"),
        (59_951, "1 min 0 s"),
        (65_000, "1 min 5 s"),
        (3_599_400, "59 min 59 s"),
        (3_599_600, "1 h 0 min"),
        (11_520_000, "3 h 12 min"),
        (187_200_000, "2 d 4 h"),
    ],
)
def test_elapsed_times_have_one_notation(ms: int, shown: str) -> None:
    assert display.elapsed(ms) == shown

"""Tables on a terminal never break a word, whatever the width is."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable

import click
import pytest

from receiver.console import output, records
from receiver.deliveries import Transition
from receiver.doctor.findings import warning
from receiver.stores.sql.queries import TaskHistory
from receiver.stores.sql.rows import StoredCallback
from receiver.tasks import Outcome, Status, Task, Trust
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
        "id   task                              source    outcome      repeats",
        f"153  {ID}  callback  quarantined  0",
        "    received: 2025-12-12 06:10:51  problem: the body has more than 262144 bytes",
        "    after decompression",
    ]


def test_a_row_is_one_line_where_it_fits(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(180)
    records.show_callbacks([stored()])
    assert len(screen.getvalue().splitlines()) == 2
    assert PROBLEM in screen.getvalue()


@pytest.mark.parametrize("columns", [1, 20, 79, 80, 81, 200])
def test_nothing_is_omitted_at_any_width(terminal: Callable[[int], Terminal], columns: int) -> None:
    screen = terminal(columns)
    reason = "服务 is [bold]busy[/] " + "x" * 90
    task = Task(ID, "kling", Status.FAILED, AT, AT, reference="ORDER-7", reason=reason)
    records.show_tasks([task])
    shown = "".join(screen.getvalue().split())
    for text in (ID, "kling", "ORDER-7", "failed", "2025-12-12", "".join(reason.split())):
        assert text in shown


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    reason = "x" * 200  # with the other columns, it is wider than any terminal
    records.show_tasks([Task(ID, "kling", Status.FAILED, AT, AT, reason=reason)])
    names, row = capsys.readouterr().out.splitlines()
    assert names.split() == ["task", "provider", "reference", "status", "created", "reason"]
    assert row.startswith(ID)
    assert row.endswith(reason)


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
    output.show_table(columns, [row], "No tasks.")
    assert screen.getvalue().splitlines() == [
        "its id              our id                            status",
        f"385235401494757376  {ID}  succeeded",
        "    created: 2026-11-29T01:07:57.044Z  result: https://a.example/1",
    ]


def test_no_line_of_a_timeline_ends_with_spaces(terminal: Callable[[int], Terminal]) -> None:
    screen = terminal(80)
    task = Task(ID, "kling", Status.CREATED, AT, AT)
    created = Transition("created", AT, AT, Trust.TOKEN)
    records.show_timeline(TaskHistory(task, (created,), (), (), {}, {}))
    assert not [line for line in screen.getvalue().splitlines() if line != line.rstrip()]

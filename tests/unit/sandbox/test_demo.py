"""The demo rejects invalid output of the receiver's commands."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.table import Table

from sandbox.demo import display, receiver_commands
from sandbox.demo.activity import Event
from sandbox.demo.progress_deadline import StepError
from sandbox.demo.receiver_commands import DeliveryRow, ReceiverCommands, TaskRow

TASK = TaskRow("t1", "kling", "DEMO-1", "succeeded")
MAIL = DeliveryRow("1", "t1", "mail", "delivered", 1)


class Answers:
    """Replaces the commands, and returns their output."""

    def __init__(self, tasks: str, deliveries: str) -> None:
        self._printed = {"tasks": tasks, "deliveries": deliveries}

    def run(self, *arguments: str) -> str:
        return self._printed[arguments[1]]


def read(tasks: str, deliveries: str = "[]") -> ReceiverCommands:
    return receiver_commands.read(Answers(tasks, deliveries))  # type: ignore[arg-type]  # implements what is used


def test_a_list_and_an_object_that_contains_the_list_are_both_read() -> None:
    row = '{"id": "t1", "provider": "kling", "reference": "DEMO-1", "status": "succeeded"}'
    delivery = '{"id": 1, "task": "t1", "hook": "mail", "state": "delivered", "attempts": 1}'
    expected = ReceiverCommands((TASK,), (MAIL,))
    assert read(f"[{row}]", f"[{delivery}]") == expected
    assert read(f'{{"tasks": [{row}]}}', f'{{"deliveries": [{delivery}]}}') == expected


@pytest.mark.parametrize("tasks", ["", "nothing yet", '{"rows": []}', '[{"id": "t1"}]', "[1]"])
def test_any_other_output_is_a_missing_step(tasks: str) -> None:
    with pytest.raises(StepError, match="receiver"):
        read(tasks)


@pytest.mark.parametrize(
    ("status", "state", "settled"),
    [
        ("succeeded", "delivered", True),
        ("failed", "dead", True),
        ("processing", "delivered", False),
        ("succeeded", "pending", False),
    ],
)
def test_a_demo_is_settled_when_everything_has_ended(
    status: str, state: str, settled: bool
) -> None:
    seen = ReceiverCommands(
        (TaskRow("t1", "kling", "DEMO-1", status),), (DeliveryRow("1", "t1", "mail", state, 1),)
    )
    assert seen.is_settled(1, 1) is settled
    assert not seen.is_settled(2, 1)


def event(after_ms: int, outcome: str, hook: str | None = None) -> Event:
    return Event(1_795_875_300_000 + after_ms, "kling", "DEMO-1", outcome, hook)


def test_an_event_is_one_line_if_the_output_is_not_a_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with display.Lines() as lines:
        lines.show([event(0, "succeeded")])
        lines.show([])
        lines.show([event(1230, "delivered", "mail")])
    first, second = capsys.readouterr().out.splitlines()
    assert first.split() == ["0.0", "s", "DEMO-1", "succeeded"]
    assert second.split() == ["1.2", "s", "DEMO-1", "mail", "delivered"]


def text_of(table: Table) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(table)
    return console.export_text()


def test_the_table_has_a_column_for_each_hook_and_the_recorded_times() -> None:
    moves = [event(3210, "succeeded"), event(0, "created"), event(840, "processing")]
    attempts = [event(3900, "delivered", "mail"), event(3500, "failed", "mail")]
    text = text_of(display.table([*moves, *attempts, event(4400, "delivered", "slack")]))
    headings = next(line for line in text.splitlines() if "reference" in line)
    assert headings.index("mail") < headings.index("slack")
    assert "succeeded" in text
    assert "3.2 s" in text
    assert "3.9 s" in text
    assert "processing" not in text  # the latest status and attempt only
    assert "failed" not in text


def test_an_empty_table_can_be_shown() -> None:
    assert "reference" in text_of(display.table([]))


def test_the_title_is_one_line_even_above_the_first_row() -> None:
    text = text_of(display.table([event(0, "created")]))
    assert "What the receiver recorded, and when" in text


def test_a_line_of_the_timeline_is_broken_between_words_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = f"{'+2.079 s':>14}  {'  pictures delivered':<22} {'word ' * 20}".rstrip()
    assert display.fitting(line) == line
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    broken = display.fitting(line).splitlines()
    assert len(broken) > 1
    assert max(map(len, broken)) <= 80
    assert " ".join(" ".join(broken).split()) == " ".join(line.split())


def test_the_table_fits_into_80_columns() -> None:
    attempts = [event(99_900, "delivered", hook) for hook in ("mail", "pictures", "slack")]
    text = text_of(display.table([event(0, "created"), event(99_800, "processing"), *attempts]))
    assert text.count("delivered") == 3
    assert text.count("99.9 s") == 3

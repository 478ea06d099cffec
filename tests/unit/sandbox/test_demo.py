"""The demo believes the receiver's answers only as far as they go."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from sandbox.demo import display, record
from sandbox.demo.processes import StepError
from sandbox.demo.record import DeliveryRow, Record, TaskRow

TASK = TaskRow("t1", "kling", "DEMO-1", "succeeded")
MAIL = DeliveryRow("1", "t1", "mail", "delivered", 1)


class Answers:
    """Stands for the commands: prints what it was given."""

    def __init__(self, tasks: str, deliveries: str) -> None:
        self._printed = {"tasks": tasks, "deliveries": deliveries}

    def run(self, *arguments: str) -> str:
        return self._printed[arguments[1]]


def read(tasks: str, deliveries: str = "[]") -> Record:
    return record.read(Answers(tasks, deliveries))  # type: ignore[arg-type]  # has all it needs


def test_a_list_and_an_object_with_the_list_are_both_read() -> None:
    row = '{"id": "t1", "provider": "kling", "reference": "DEMO-1", "status": "succeeded"}'
    delivery = '{"id": 1, "task": "t1", "hook": "mail", "state": "delivered", "attempts": 1}'
    expected = Record((TASK,), (MAIL,))
    assert read(f"[{row}]", f"[{delivery}]") == expected
    assert read(f'{{"tasks": [{row}]}}', f'{{"deliveries": [{delivery}]}}') == expected


@pytest.mark.parametrize("tasks", ["", "nothing yet", '{"rows": []}', '[{"id": "t1"}]', "[1]"])
def test_anything_else_is_a_missing_step(tasks: str) -> None:
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
def test_settled_means_all_ended_well_or_not(status: str, state: str, settled: bool) -> None:
    seen = Record(
        (TaskRow("t1", "kling", "DEMO-1", status),), (DeliveryRow("1", "t1", "mail", state, 1),)
    )
    assert seen.is_settled(1, 1) is settled
    assert not seen.is_settled(2, 1)


def test_elsewhere_a_change_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with display.Lines() as lines:
        lines.show(Record((TASK,)))
        lines.show(Record((TASK,)))
        lines.show(Record((TASK,), (MAIL,)))
    first, second = capsys.readouterr().out.splitlines()
    assert first.split()[-2:] == ["DEMO-1", "succeeded"]
    assert second.split()[-3:] == ["DEMO-1", "mail", "delivered"]


def test_the_table_has_a_column_a_hook() -> None:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(display.table(Record((TASK,), (MAIL,))))
    assert "mail" in console.export_text()

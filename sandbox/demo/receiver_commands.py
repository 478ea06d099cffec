"""Reads the record with the receiver's own commands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.demo.progress_deadline import StepError

if TYPE_CHECKING:
    from sandbox.demo.processes import Commands

FINAL_STATUSES = ("succeeded", "failed")
FINAL_STATES = ("delivered", "dead")


@dataclass(frozen=True)
class TaskRow:
    id: str
    provider: str
    reference: str
    status: str
    provider_task_id: str | None = None


@dataclass(frozen=True)
class DeliveryRow:
    id: str
    task: str
    hook: str
    state: str
    attempts: int


@dataclass(frozen=True)
class ReceiverCommands:
    """The receiver's tasks and deliveries at one moment."""

    tasks: tuple[TaskRow, ...] = ()
    deliveries: tuple[DeliveryRow, ...] = ()

    def of(self, task: TaskRow) -> list[DeliveryRow]:
        return [row for row in self.deliveries if row.task == task.id]

    def count(self, status: str) -> int:
        return sum(task.status == status for task in self.tasks)

    def count_deliveries(self, state: str) -> int:
        return sum(row.state == state for row in self.deliveries)

    def is_settled(self, tasks: int, deliveries: int) -> bool:
        """Return whether all expected tasks and deliveries exist and have ended."""
        tasks_ended = sum(task.status in FINAL_STATUSES for task in self.tasks)
        deliveries_ended = sum(row.state in FINAL_STATES for row in self.deliveries)
        return (tasks_ended, deliveries_ended) == (tasks, deliveries)


def read(commands: Commands) -> ReceiverCommands:
    # In this order, no delivery is seen before the transition that caused it.
    deliveries = _rows(commands.run("receiver", "deliveries", "--json"), "deliveries")
    tasks = _rows(commands.run("receiver", "tasks", "--json"), "tasks")
    try:
        return ReceiverCommands(tuple(map(_task, tasks)), tuple(map(_delivery, deliveries)))
    except (KeyError, TypeError, ValueError) as fault:
        raise StepError(f"the receiver's output lacks {fault}") from None


def _task(row: dict[str, Any]) -> TaskRow:
    texts = _texts(row, "id", "provider", "reference", "status")
    return TaskRow(**texts, provider_task_id=row.get("provider_task_id"))


def _delivery(row: dict[str, Any]) -> DeliveryRow:
    return DeliveryRow(**_texts(row, "id", "task", "hook", "state"), attempts=int(row["attempts"]))


def _texts(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: str(row[name]) for name in names}


def _rows(printed: str, name: str) -> list[dict[str, Any]]:
    try:
        answer = json.loads(printed)
    except ValueError:
        raise StepError(f"`receiver {name} --json` did not print JSON:\n{printed[:400]}") from None
    rows = answer.get(name) if isinstance(answer, dict) else answer
    if not isinstance(rows, list):
        raise StepError(f"`receiver {name} --json` did not print a list")
    return rows

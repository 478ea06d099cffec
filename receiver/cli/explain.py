"""`receiver hooks explain`: why each hook receives an event of a task, or does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from receiver.cli.database import settings_and_store
from receiver.cli.options import as_json
from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.console import output
from receiver.console.find_task import find_task
from receiver.deliveries import Delivery, Notice
from receiver.filters.conditions import plain_value, written
from receiver.filters.where import TOGETHER, Check
from receiver.processes.current_hooks import entries_for
from receiver.stores import Store
from receiver.tasks import Status
from receiver.text.display import counted

OF_OUTPUTS = "where.outputs."  # the keys of conditions for outputs of hooks begin with this
INDENT = 7  # spaces before the wrapped lines of a check
NO_MEDIA = "its media are not on record: `prune` has erased them, or there were none"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a hook receives an event or does not, with its delivery, if one is on record."""

    entry: HookEntry
    checks: tuple[Check, ...]
    delivery: Delivery | None

    @property
    def fires(self) -> bool:
        """Whether the hook receives the event, according to the current hooks file."""
        return all(check.holds for check in self.checks)

    @property
    def lacks_output(self) -> bool:
        """Whether all conditions that do not hold are for outputs of other hooks."""
        unmet = [check for check in self.checks if not check.holds]
        return bool(unmet) and all(check.key.startswith(OF_OUTPUTS) for check in unmet)

    @property
    def verdict(self) -> str:
        """The decision in words, with the delivery on record."""
        name, delivery = self.entry.name, self.delivery
        if delivery is not None and self.lacks_output:
            if delivery.state.is_final:
                return f"{name} is skipped; delivery {delivery.id} ended without a call"
            return f"{name} is skipped unless delivery {delivery.id} gets the output it waits for"
        if delivery is not None:
            record = f"delivery {delivery.id} is {delivery.state}"
            return (
                f"{name} fires; {record}" if self.fires else f"{name} does not fire, but {record}"
            )
        if not self.fires:
            return f"{name} does not fire"
        return f"{name} fires, but has no delivery: its present form was not loaded at the time"


@click.command()
@click.argument("task")
@click.option(
    "--status",
    type=click.Choice(HEARABLE),
    help="Explain the event of this status. [default: the newest event]",
)
@as_json
def explain(task: str, status: str | None, as_json: bool) -> None:
    """Show for every hook why it fires for an event of a task, or why it does not.

    It shows every condition in the current hooks file, with the value in the event. TASK is an
    id, a unique beginning or end of one, or a reference.
    """
    chosen, record = settings_and_store()
    entries = entries_for(chosen)
    task_id = find_task(record, task).id
    notice = _notice(record, task_id, status)
    deliveries = {
        delivery.hook: delivery
        for delivery in record.queries.history(task_id).deliveries
        if delivery.status == notice.status
    }
    returned = {hook: delivery.output for hook, delivery in deliveries.items() if delivery.output}
    notice = replace(notice, outputs=returned)
    explanations = [
        Explanation(
            entry, tuple(entry.subscription.checks(notice)), deliveries.get(entry.subscription.hook)
        )
        for entry in entries
    ]
    if as_json:
        output.as_json(_json(notice, explanations))
        return
    _show(notice, explanations)


def _notice(record: Store, task_id: str, status: str | None) -> Notice:
    """Return the newest event of the task, or the one with this status. Raises UsageError."""
    every = record.queries.notices(task_id)
    notices = {notice.status: notice for notice in every if notice.status in HEARABLE}
    if not notices:
        raise click.UsageError(f"task {task_id} has no event yet: its status has not changed")
    newest = next(reversed(notices))
    if status is not None and status not in notices:
        known = ", ".join(notices)
        raise click.UsageError(
            f"task {task_id} has no event with the status {status}; it has: {known}"
        )
    return notices[status or newest]


def _show(notice: Notice, explanations: Sequence[Explanation]) -> None:
    output.print_line(f"{notice.type} of task {notice.task.id}  {notice.task.reference or ''}")
    if notice.status == Status.SUCCEEDED and not notice.media:
        output.print_line(NO_MEDIA)
    for explanation in explanations:
        click.echo()
        output.print_line(explanation.verdict)
        for line in _lines(explanation.checks):
            output.print_line(line, indent=INDENT)
    if not explanations:
        click.echo("No hooks.")


def _lines(checks: tuple[Check, ...]) -> Iterator[str]:
    for check in checks:
        condition, value = written(check.condition), output.cut(written(check.value))
        if check.key == TOGETHER:
            condition, value = check.condition, counted(check.value, "item")
        mark = "yes" if check.holds else "no"
        yield f"  {mark:<3}  {output.cut(f'{check.key} = {condition}')}; the event has {value}"


def _json(notice: Notice, explanations: Sequence[Explanation]) -> dict[str, Any]:
    return {
        "event": notice.as_json(),
        "hooks": [
            {
                "hook": explanation.entry.name,
                "type": explanation.entry.type,
                "fires": explanation.fires,
                "checks": [
                    {
                        "key": check.key,
                        "condition": plain_value(check.condition),
                        "value": check.value,
                        "holds": check.holds,
                    }
                    for check in explanation.checks
                ],
                "delivery": explanation.delivery
                and {
                    "id": explanation.delivery.id,
                    "state": explanation.delivery.state.value,
                },
            }
            for explanation in explanations
        ],
    }

"""The command that follows what happens."""

from __future__ import annotations

import signal
from collections.abc import Iterable

import click

from receiver.cli.activity import ActivityFollower
from receiver.cli.group import as_json, hook_names, store
from receiver.console import output
from receiver.processes.shutdown import stop_at
from receiver.providers import PROVIDERS
from receiver.serializers import records
from receiver.stores.sql.activity import Activity, ActivityKind


@click.command()
@click.option(
    "--only",
    type=click.Choice([kind.value for kind in ActivityKind]),
    multiple=True,
    help="Only this; may be given several times.",
)
@click.option("--task")
@click.option("--hook", shell_complete=hook_names, help="Only attempts at deliveries to it.")
@click.option("--provider", type=click.Choice(sorted(PROVIDERS)))
@click.option("--account")
@click.option("--reference")
@click.option(
    "--lines",
    "-n",
    default=10,
    show_default=True,
    type=click.IntRange(0, 200),
    help="Begin with so many of the latest.",
)
@as_json
def tail(only: tuple[str, ...], lines: int, as_json: bool, **wanted: str | None) -> None:
    """Follow callbacks, moves and attempts as they happen, until Ctrl-C.

    With --json a document a line. A byte-identical repeat of a callback is only counted, and does
    not show.
    """
    wanted["task_id"] = wanted.pop("task")
    following = ActivityFollower(store())
    stop = stop_at(signal.SIGINT, signal.SIGTERM)

    def show(found: Iterable[Activity]) -> None:
        if as_json:
            output.as_json_lines(map(records.activity_json, found))
        else:
            output.show_happenings(found)

    def chosen(found: Iterable[Activity]) -> list[Activity]:
        return [one for one in found if _is_wanted(one, only, wanted)]

    show(chosen(following.past)[-lines:] if lines else ())
    for found in following.follow(stop):
        show(chosen(found))


def _is_wanted(one: Activity, only: tuple[str, ...], wanted: dict[str, str | None]) -> bool:
    given = {name: value for name, value in wanted.items() if value is not None}
    is_meant = all(getattr(one, name) == value for name, value in given.items())
    return is_meant and (not only or one.kind in only)

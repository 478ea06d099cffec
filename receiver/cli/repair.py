"""The commands that send something again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext

import click

from receiver.cli.group import (
    ROW,
    InstantType,
    as_json,
    hook_names,
    say_which_hooks_are_missing,
    store,
)
from receiver.clock import now_ms
from receiver.config import settings
from receiver.console import output
from receiver.deliveries import State
from receiver.errors import RequestRefused
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.text.display import plain

ENDED = click.Choice([State.DEAD.value, State.DELIVERED.value])


@click.command()
@click.argument("deliveries", type=ROW, nargs=-1, metavar="[DELIVERY]...")
@click.option(
    "--hook",
    shell_complete=hook_names,
    help="Those of this hook; with --since also those it never had.",
)
@click.option("--state", type=ENDED, help="[default: dead]")
@click.option("--provider")
@click.option("--status", help="Those that tell this status.")
@click.option("--task")
@click.option(
    "--since", type=InstantType(), help="Moves recorded since: 2d, or 2026-11-20T08:00:00Z."
)
@click.option("--until", type=InstantType(), help="And before.")
@click.option("--dry-run", is_flag=True, help="Only report how many.")
@as_json
def redeliver(
    deliveries: tuple[int, ...],
    state: str | None,
    since: int | None,
    until: int | None,
    dry_run: bool,
    as_json: bool,
    hook: str | None,
    provider: str | None,
    status: str | None,
    task: str | None,
) -> None:
    """Make deliveries that ended due again: those with these numbers, or all that are meant.

    `redeliver --hook NAME --since 2d` also creates the deliveries that a hook added to the hooks
    file since then never had.
    """
    filters = (hook, state, provider, status, task, since, until)
    if bool(deliveries) is any(given is not None for given in filters):
        raise click.UsageError("name deliveries by their numbers, or say which by options")
    if deliveries:
        _one_by_one(deliveries, dry_run)
        return
    wanted = DeliverySelection(
        State(state or State.DEAD), hook, provider, status, task, since=since, until=until
    )
    ingest = _ingest()
    now = now_ms()
    found = _total(repair.redeliver(ingest.store, wanted, now, dry_run=dry_run))
    missing = _total(
        repair.catch_up(ingest.store, ingest.subscriptions, wanted, now, dry_run=dry_run)
    )
    if as_json:
        output.as_json({"redelivered": found, "created": missing, "dry_run": dry_run})
    else:
        verb = "would be" if dry_run else "are"
        click.echo(f"{found} deliveries {verb} due again, {missing} {verb} created")
    say_which_hooks_are_missing(ingest.store, ingest.hooks)


@click.command()
@click.argument("callback", type=ROW, required=False)
@click.option(
    "--accept",
    is_flag=True,
    help="Record a mismatch: the provider task that it names becomes the one on record.",
)
@click.option(
    "--quarantined", is_flag=True, help="Replay every callback in quarantine, oldest first."
)
@click.option(
    "--since",
    type=InstantType(),
    help="Only callbacks received since then: 2d, or 2026-11-20T08:00:00Z.",
)
@click.option(
    "--dry-run", is_flag=True, help="Only print the outcome that each callback would have alone."
)
def replay(
    callback: int | None, accept: bool, quarantined: bool, since: int | None, dry_run: bool
) -> None:
    """Parse and record a stored callback again, or all callbacks in quarantine.

    With --quarantined, the exit status is 0 if every callback was tried, even if some are still not
    understood and stay in quarantine. It is 1 if an adapter failed.
    """
    if quarantined is (callback is not None):
        raise click.UsageError("give the number of a callback, or --quarantined")
    if callback is None:
        if accept:
            raise click.UsageError("--accept needs the number of a callback")
        _replay_quarantined(since or 0, dry_run=dry_run)
    elif since is not None:
        raise click.UsageError("--since can only be used with --quarantined")
    else:
        _replay_one(callback, accept=accept, dry_run=dry_run)


def _replay_one(callback: int, *, accept: bool, dry_run: bool) -> None:
    try:
        outcome = _ingest().replay(callback, accept=accept, dry_run=dry_run)
    except RequestRefused as refusal:
        raise click.ClickException(
            f"callback {callback} is still not understood: {refusal}"
        ) from None
    click.echo(f"callback {callback}{' would be' if dry_run else ''}: {outcome}")


def _replay_quarantined(since: int, *, dry_run: bool) -> None:
    verb = " would be" if dry_run else ""
    counted: Counter[str] = Counter()
    faults = 0
    # On a terminal the printed lines themselves show the progress.
    hidden = nullcontext(lambda _: None)
    progress = hidden if sys.stdout.isatty() else output.progress("parsing callbacks")
    with progress as more:
        for one in repair.replay(_ingest(), since, dry_run=dry_run):
            became = f"{verb}: {one.outcome}" if one.outcome else f": {plain(one.problem)}"
            click.echo(f"callback {one.callback}{became}")
            counted[one.outcome or one.problem.partition(":")[0]] += 1
            faults += one.is_fault
            more(1)
    sums = ", ".join(f"{number} {became}" for became, number in sorted(counted.items()))
    click.echo(f"{counted.total()} callbacks{verb} parsed again" + (f": {sums}" if sums else ""))
    if faults:
        raise click.ClickException(f"an adapter failed on {faults} of them; please report it")


def _one_by_one(deliveries: tuple[int, ...], dry_run: bool) -> None:
    record = store()
    for delivery in deliveries:
        if dry_run:
            found = record.queries.delivery(delivery)
            click.echo(f"delivery {delivery} would be due again: it is {found.state} now")
        else:
            record.outbox.redeliver(delivery, now_ms())
            click.echo(f"delivery {delivery} is due again")


def _total(steps: Iterator[RepairStep]) -> int:
    total = 0
    with output.progress("deliveries") as more:
        for step in steps:
            total += step.changed
            more(step.changed)
    return total


def _ingest() -> Ingest:
    chosen = settings.load(creates_secret=False)
    return Ingest.into(store(chosen), chosen)

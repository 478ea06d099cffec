"""The commands that make deliveries due again and parse stored callbacks again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import click

from receiver.cli.database import check_hook, print_missing_hooks, settings_and_store
from receiver.cli.options import ROW, OneOf, as_json, dry_run, hook_names, since, task_option, until
from receiver.clock import now_ms
from receiver.config.hooks_file import HEARABLE
from receiver.console import output
from receiver.console.find_task import find_task
from receiver.deliveries import Delivery, State
from receiver.errors import NotFound, RequestRefused
from receiver.ingest import Ingest
from receiver.maintenance import repair
from receiver.providers import PROVIDERS
from receiver.stores.sql.repair import DeliverySelection, RepairStep
from receiver.text.display import counted, plain, rfc3339

ENDED = OneOf(State, State.DEAD, State.DELIVERED)


@click.command()
@click.argument("deliveries", type=ROW, nargs=-1, metavar="[DELIVERY]...")
@click.option(
    "--hook",
    shell_complete=hook_names,
    help="Deliveries to this hook; with --since, missing ones are also created.",
)
@click.option("--state", type=ENDED, help="Deliveries in this state. [default: dead]")
@click.option(
    "--provider",
    type=click.Choice(sorted(PROVIDERS)),
    help="Deliveries for tasks of this provider.",
)
@click.option("--status", type=click.Choice(HEARABLE), help="Deliveries that report this status.")
@task_option
@since("The status was recorded")
@until("The status was recorded")
@dry_run
@as_json
def redeliver(deliveries: tuple[int, ...], dry_run: bool, as_json: bool, **options: Any) -> None:
    """Make finished deliveries due again: those with these numbers, or all that the options select.

    `redeliver --hook NAME --since 2d` also creates the deliveries that a hook missed because it was
    added to the hooks file later.
    """
    filters = {name: value for name, value in options.items() if value is not None}
    if bool(deliveries) is bool(filters):
        raise click.UsageError("give either the numbers of deliveries, or options that select them")
    if deliveries:
        _one_by_one(deliveries, dry_run)
        return
    ingest = _ingest()
    check_hook(ingest.store, ingest.hooks, filters.get("hook"))
    if "task_id" in filters:
        filters["task_id"] = find_task(ingest.store, filters["task_id"]).id
    wanted = DeliverySelection(**filters)
    now = now_ms()
    found = _total(
        repair.redeliver(ingest.store, ingest.subscriptions, wanted, now, dry_run=dry_run)
    )
    missing = _total(
        repair.catch_up(ingest.store, ingest.subscriptions, wanted, now, dry_run=dry_run)
    )
    if as_json:
        output.as_json({"redelivered": found, "created": missing, "dry_run": dry_run})
    else:
        verb = "would be" if dry_run else "is" if found == 1 else "are"
        created = "would be created" if dry_run else "created"
        total = counted(found, "delivery", "deliveries")
        click.echo(f"{total} {verb} due again, {missing} {created}")
    print_missing_hooks(ingest.store, ingest.hooks)


@click.command()
@click.argument("callback", type=ROW, required=False)
@click.option(
    "--accept",
    is_flag=True,
    help="Record a mismatch: the provider task that it names replaces the one on record.",
)
@click.option(
    "--quarantined", is_flag=True, help="Replay every callback in quarantine, oldest first."
)
@since("Only callbacks received")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Only print what each callback would change if it were the only one.",
)
def replay(
    callback: int | None, accept: bool, quarantined: bool, since: int | None, dry_run: bool
) -> None:
    """Parse and record a stored callback again, or all callbacks in quarantine.

    With --quarantined, the exit status is 0 if every callback was parsed, even if some still cannot
    be interpreted and stay in quarantine. It is 1 if an adapter failed.
    """
    if quarantined is (callback is not None):
        raise click.UsageError("give the number of a callback, or --quarantined")
    if callback is None:
        if accept:
            raise click.UsageError("--accept needs the number of a callback")
        _replay_quarantined(since or 0, dry_run=dry_run)
        return
    if since is not None:
        raise click.UsageError("--since can only be used with --quarantined")
    try:
        outcome = _ingest().replay(callback, accept=accept, dry_run=dry_run)
    except RequestRefused as refusal:
        raise click.ClickException(
            f"callback {callback} is still not understood: {refusal}"
        ) from None
    click.echo(f"callback {callback}{' would be' if dry_run else ''}: {outcome}")


def _replay_quarantined(since: int, *, dry_run: bool) -> None:
    verb = " would be" if dry_run else ""
    results: Counter[str] = Counter()
    faults = 0
    # On a terminal the printed lines themselves show the progress.
    hidden = nullcontext(lambda _: None)
    progress = hidden if sys.stdout.isatty() else output.progress("parsing callbacks")
    with progress as more:
        for replayed in repair.replay(_ingest(), since, dry_run=dry_run):
            outcome, problem = replayed.outcome, replayed.problem
            result = f"{verb}: {outcome}" if outcome else f": {plain(problem)}"
            click.echo(f"callback {replayed.callback}{result}")
            results[outcome or problem.partition(":")[0]] += 1
            faults += replayed.is_fault
            more(1)
    sums = ", ".join(f"{number} {result}" for result, number in sorted(results.items()))
    callbacks = counted(results.total(), "callback")
    click.echo(f"{callbacks}{verb} parsed again" + (f": {sums}" if sums else ""))
    if faults:
        raise click.ClickException(f"an adapter failed on {faults} of them; please report this")


def _one_by_one(deliveries: tuple[int, ...], dry_run: bool) -> None:
    ingest = _ingest()
    record = ingest.store
    for delivery in deliveries:
        found = record.queries.delivery(delivery)
        if not found.state.is_final:
            raise NotFound(_unfinished(found, now_ms()))
        if dry_run:
            click.echo(f"delivery {delivery} would be due again: its state is {found.state}")
        else:
            record.outbox.redeliver(delivery, now_ms(), ingest.subscriptions)
            click.echo(f"delivery {delivery} is due again")


def _unfinished(delivery: Delivery, now: int) -> str:
    """Return why this delivery cannot be made due again, and how to send it now."""
    if delivery.state is State.CLAIMED:
        return f"delivery {delivery.id} is claimed: a worker is sending it"
    if delivery.is_waiting(now):
        return f"delivery {delivery.id} is pending: it waits for the hook {delivery.after}"
    due = "" if delivery.due_at is None else f", due {rfc3339(delivery.due_at)}"
    resume = f"receiver endpoints resume {delivery.hook}"
    return f"delivery {delivery.id} is pending{due}; to send what is pending now: {resume}"


def _total(steps: Iterator[RepairStep]) -> int:
    total = 0
    with output.progress("deliveries") as more:
        for step in steps:
            total += step.changed
            more(step.changed)
    return total


def _ingest() -> Ingest:
    chosen, record = settings_and_store()
    return Ingest.into(record, chosen)

"""The commands that show, pause and resume the endpoints of the hooks."""

from __future__ import annotations

import click

from receiver.cli.database import check_hook, print_missing_hooks, settings_and_store
from receiver.cli.group import complain
from receiver.cli.options import as_json, dry_run, hook_names
from receiver.clock import now_ms
from receiver.config.hooks_file import limits_of
from receiver.console import output
from receiver.console import records as tables
from receiver.console.program import SummarizedGroup
from receiver.deliveries import State
from receiver.endpoints import Circuit
from receiver.processes.current_hooks import entries_for
from receiver.serializers import records
from receiver.stores import Store
from receiver.stores.sql.endpoint_status import endpoint_statuses
from receiver.text.display import counted

# By the word that people see, and by the word in the JSON output.
CIRCUITS = (*(circuit.label for circuit in Circuit), Circuit.CLOSED.value)


@click.group(cls=SummarizedGroup, invoke_without_command=True)
@click.option(
    "--circuit",
    type=click.Choice(CIRCUITS),
    help="Only endpoints whose circuit breaker has this state. healthy: those that are closed, "
    "and whose last attempt did not fail.",
)
@as_json
@click.pass_context
def endpoints(ctx: click.Context, circuit: str | None, as_json: bool) -> None:
    """List the endpoints of the hooks, and whether they work, fail, are paused or disabled.

    If a hook has limits, the list also shows them, and whether its deliveries are waiting for them.
    """
    if ctx.invoked_subcommand:
        return
    chosen, record = settings_and_store()
    entries = entries_for(chosen)
    names = [entry.name for entry in entries]
    print_missing_hooks(record, names)
    names += sorted({endpoint.hook for endpoint in record.endpoints.all()} - set(names))
    found = endpoint_statuses(record, names, now_ms(), limits_of(entries))
    if circuit == Circuit.CLOSED.label:
        found = [status for status in found if not status.has_problem]
    elif circuit is not None:
        found = [status for status in found if status.circuit is Circuit(circuit)]
    output.show_rows(found, records.endpoint_json, tables.show_endpoints, is_json=as_json)
    complain(f"{status.hook}: {status.advice}" for status in found if status.advice)


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
def pause(hook: str) -> None:
    """Make the deliveries to this hook wait until it is resumed; none is lost."""
    _store_with(hook).endpoints.pause(hook, now_ms())
    click.echo(f"{hook} is paused; resume it with: receiver endpoints resume {hook}")


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
def resume(hook: str) -> None:
    """Deliver to this hook again, whether it was paused, disabled or failing."""
    record, now = _store_with(hook), now_ms()
    due_before = record.metrics.backlog(now).due
    was_held = record.endpoints.resume(hook, now)
    made_due = record.metrics.backlog(now).due - due_before
    if was_held or not made_due:
        click.echo(f"{hook} receives deliveries again" if was_held else f"{hook} was not paused")
    if made_due:
        click.echo(f"deliveries that are due now: {made_due}")


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
@dry_run
def drop(hook: str, dry_run: bool) -> None:
    """Turn the deliveries that wait for this hook into dead letters.

    Use this if the hook was removed from the hooks file permanently; otherwise the deliveries wait
    until the hook is back. `receiver redeliver --hook HOOK` makes them due again.
    """
    record = _store_with(hook)
    counts = record.metrics.delivery_counts()
    dropped = sum(one.value for one in counts if (one.hook, one.state) == (hook, State.PENDING))
    if not dry_run:
        dropped = 0
        while step := record.repair.drop(hook, now_ms()):
            dropped += step
    deliveries = counted(dropped, "delivery", "deliveries")
    result = "a dead letter" if dropped == 1 else "dead letters"
    click.echo(f"{deliveries} to {hook} {'would become' if dry_run else 'became'} {result}")


def _store_with(hook: str) -> Store:
    """Return the store. Raises BadParameter unless the hook is in the hooks file or on record."""
    chosen, record = settings_and_store()
    check_hook(record, [entry.name for entry in entries_for(chosen)], hook)
    return record

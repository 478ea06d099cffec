"""The commands about the other sides of the hooks."""

from __future__ import annotations

import click

from receiver.cli.group import as_json, hook_names, say_which_hooks_are_missing, store
from receiver.clock import now_ms
from receiver.config import settings
from receiver.console import output
from receiver.deliveries import State
from receiver.endpoints import Circuit, Endpoint
from receiver.ingest import hook_entries
from receiver.serializers import records
from receiver.text.display import plain


@click.group(invoke_without_command=True)
@click.option("--circuit", type=click.Choice([circuit.value for circuit in Circuit]))
@as_json
@click.pass_context
def endpoints(ctx: click.Context, circuit: str | None, as_json: bool) -> None:
    """List the hooks' endpoints, and whether each works, is paused or disabled."""
    if ctx.invoked_subcommand:
        return
    chosen = settings.load(creates_secret=False)
    record = store(chosen)
    known = {endpoint.hook: endpoint for endpoint in record.endpoints.all()}
    names = [entry.name for entry in hook_entries(chosen)]
    say_which_hooks_are_missing(record, names)
    names += sorted(known.keys() - set(names))
    found, now = [known.get(name, Endpoint(name)) for name in names], now_ms()
    found = [endpoint for endpoint in found if circuit in (None, endpoint.circuit(now))]
    if as_json:
        output.as_json([records.endpoint_json(endpoint, now) for endpoint in found])
    else:
        output.show_endpoints(found, now)


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
def pause(hook: str) -> None:
    """Make no delivery to this hook until it is resumed: they wait, and none is lost."""
    _must_be_known(hook)
    store().endpoints.pause(hook, now_ms())
    click.echo(f"{hook} is paused; resume it with: receiver endpoints resume {hook}")


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
def resume(hook: str) -> None:
    """Deliver to this hook again, whatever held it."""
    _must_be_known(hook)
    record, now = store(), now_ms()
    due_before = record.metrics.backlog(now).due
    was_held = record.endpoints.resume(hook, now)
    click.echo(f"{hook} is delivered to again" if was_held else f"{hook} was not paused")
    if made_due := record.metrics.backlog(now).due - due_before:
        click.echo(f"due now instead of later: {made_due}")


@endpoints.command()
@click.argument("hook", shell_complete=hook_names)
@click.option("--dry-run", is_flag=True, help="Only report how many.")
def drop(hook: str, dry_run: bool) -> None:
    """Turn the deliveries that wait for this hook into dead letters.

    Use this if the hook was removed from the hooks file permanently. Without it, the deliveries
    wait until the hook is back.
    `redeliver --hook HOOK` makes them due again.
    """
    _must_be_known(hook)
    record = store()
    counts = record.metrics.delivery_counts()
    dropped = sum(one.value for one in counts if (one.hook, one.state) == (hook, State.PENDING))
    if not dry_run:
        dropped = 0
        while step := record.repair.drop(hook, now_ms()):
            dropped += step
    verb = "would be" if dry_run else "are"
    click.echo(f"{dropped} deliveries to {hook} {verb} dead letters now")


def _must_be_known(hook: str) -> None:
    chosen = settings.load(creates_secret=False)
    record = store(chosen)
    names = {entry.name for entry in hook_entries(chosen)}
    names |= {endpoint.hook for endpoint in record.endpoints.all()}
    names |= {one.hook for one in record.metrics.delivery_counts() if one.value}
    if hook not in names:
        known = ", ".join(plain(name) for name in sorted(names)) or "none"
        raise click.BadParameter(f"{hook!r} is not in the hooks file; known are: {known}")

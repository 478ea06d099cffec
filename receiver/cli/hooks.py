"""The commands that show the contents of the hooks file and test a hook."""

from __future__ import annotations

import os

import click

from receiver import hooks
from receiver.cli.group import REFUSED, complain
from receiver.cli.options import as_json, hook_names
from receiver.config import settings
from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.console import output
from receiver.console import records as tables
from receiver.console.imported_commands import Imported, ImportedCommands
from receiver.console.program import SummarizedGroup
from receiver.errors import DeliveryFailure, SettingsError
from receiver.processes.current_hooks import entries_for, known_secrets
from receiver.serializers import records
from receiver.signing import standard_webhooks
from receiver.text.display import hiding, plain

COMMANDS = ImportedCommands(
    render=Imported(
        "receiver.cli.render:render",
        "Print the message that a hook would send, without sending it.",
    ),
    explain=Imported(
        "receiver.cli.explain:explain",
        "Show for every hook why it fires for an event of a task, or why it does not.",
    ),
)


@click.group("hooks", cls=SummarizedGroup, commands=COMMANDS)
def hooks_() -> None:
    """List and test the hooks of the hooks file."""


@hooks_.command("list")
@as_json
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the hooks, the events that each of them receives, and problems with their options.

    The exit status is 1 if a hook cannot be used.
    """
    found = [
        (entry, _problems(entry)) for entry in entries_for(settings.load(creates_secret=False))
    ]
    output.show_rows(found, lambda row: records.hook_json(*row), tables.show_hooks, is_json=as_json)
    ctx.exit(REFUSED if any(problems for _, problems in found) else 0)


@hooks_.command()
@click.argument("name", shell_complete=hook_names)
@click.option(
    "--status",
    type=click.Choice(HEARABLE),
    help="The status in the event. [default: one that the hook receives]",
)
@as_json
@click.pass_context
def test(ctx: click.Context, name: str, status: str | None, as_json: bool) -> None:
    """Send a test event through a hook; print the endpoint's response.

    Nothing is recorded, and nothing is retried. A download hook stores a picture where results are
    stored, and removes it. The exit status is 1 if the delivery failed.
    """
    from receiver.delivery import hook_tests  # noqa: PLC0415 - slow, and `list` does without
    from receiver.observability import logs  # noqa: PLC0415
    from receiver.stores.sql.endpoint_status import advice_after  # noqa: PLC0415

    entry = hook_entry(name)
    hook = hooks.build(entry, os.environ)
    chosen = settings.load(creates_secret=False)
    hide = hiding(known_secrets(chosen))
    logs.configure(hide, settings.log_format())
    status = status or entry.subscription.test_status
    try:
        delivered, answer = True, hook_tests.send(hook, status, chosen.zone)
    except DeliveryFailure as failure:
        delivered, answer = False, str(failure)
    answer = hide(answer)
    if as_json:
        output.as_json({"hook": name, "status": status, "delivered": delivered, "answer": answer})
    elif delivered:
        click.echo(f"{name} accepted the test event ({status}): {plain(answer)}")
    else:
        advice = advice_after(answer)
        complain([f"{name} failed: {plain(answer)}", *([f"{name}: {advice}"] if advice else [])])
    if ignored := tables.condition_of(entry.subscription):
        click.echo(f"Test events ignore the filters of the hook: {plain(ignored)}", err=True)
    ctx.exit(0 if delivered else REFUSED)


@hooks_.command()
def secret() -> None:
    """Print a new secret for a hook of type webhook, which signs its events with it.

    The receiving program verifies the signatures with the same secret.
    """
    click.echo(standard_webhooks.new_secret())


def hook_entry(name: str) -> HookEntry:
    """Return the hook with this name in the hooks file. Raises BadParameter and SettingsError."""
    entries = {entry.name: entry for entry in entries_for(settings.load(creates_secret=False))}
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise click.BadParameter(f"{name!r} is not in the hooks file; its hooks are: {known}")
    return entries[name]


def _problems(entry: HookEntry) -> tuple[str, ...]:
    try:
        hooks.build(entry, os.environ)
    except SettingsError as error:
        return error.problems
    return ()

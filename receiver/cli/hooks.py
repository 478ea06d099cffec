"""The commands about the hooks file: what stands in it, and whether a hook works."""

from __future__ import annotations

import os

import click

from receiver import hooks
from receiver.cli.group import REFUSED, as_json, hook_names
from receiver.config import settings
from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.console import output
from receiver.delivery import hook_tests
from receiver.errors import DeliveryFailure, SettingsError
from receiver.ingest import hook_entries, known_secrets
from receiver.observability import logs
from receiver.serializers import records
from receiver.text.display import hiding, plain


@click.group("hooks")
def hooks_() -> None:
    """Look at the hooks of the hooks file, and try them."""


@hooks_.command("list")
@as_json
@click.pass_context
def list_(ctx: click.Context, as_json: bool) -> None:
    """List the hooks, the events that each receives, and mistakes in its options.

    Status 1 if one cannot be used.
    """
    found = [
        (entry, _problems(entry)) for entry in hook_entries(settings.load(creates_secret=False))
    ]
    if as_json:
        output.as_json([records.hook_json(entry, problems) for entry, problems in found])
    else:
        output.show_hooks(found)
    ctx.exit(REFUSED if any(problems for _, problems in found) else 0)


@hooks_.command()
@click.argument("name", shell_complete=hook_names)
@click.option(
    "--status", type=click.Choice(HEARABLE), help="[default: one of those that it receives]"
)
@as_json
@click.pass_context
def test(ctx: click.Context, name: str, status: str | None, as_json: bool) -> None:
    """Send a test event, marked as one, through a hook; print the endpoint's response.

    Nothing is recorded, and nothing is tried again. A download stores a picture where results are
    stored, and removes it. Status 1 if it failed.
    """
    entry = _entry(name)
    hook = hooks.build(entry, os.environ)
    chosen = settings.load(creates_secret=False)
    hide = hiding(known_secrets(chosen))
    logs.configure(hide, settings.log_format())
    told = status or entry.subscription.test_status
    try:
        works, said = True, hide(hook_tests.send(hook, told, chosen.zone))
    except DeliveryFailure as failure:
        works, said = False, hide(str(failure))
    if as_json:
        output.as_json({"hook": name, "status": told, "delivered": works, "answer": said})
    elif works:
        click.echo(f"{name} took the test event ({told}): {plain(said)}")
    else:
        click.echo(f"receiver: {name} failed: {plain(said)}", err=True)
    ctx.exit(0 if works else REFUSED)


def _entry(name: str) -> HookEntry:
    entries = {entry.name: entry for entry in hook_entries(settings.load(creates_secret=False))}
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise click.BadParameter(f"{name!r} is not in the hooks file; known are: {known}")
    return entries[name]


def _problems(entry: HookEntry) -> tuple[str, ...]:
    try:
        hooks.build(entry, os.environ)
    except SettingsError as error:
        return error.problems
    return ()

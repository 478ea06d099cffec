"""`receiver hooks render`: prints the message that a hook would send, without sending it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import click

from receiver import hooks
from receiver.cli.database import settings_and_store
from receiver.cli.group import REFUSED, complain
from receiver.cli.hooks import hook_entry
from receiver.cli.options import as_json, hook_names, task_option
from receiver.config import settings
from receiver.config.hooks_file import HEARABLE, HookEntry
from receiver.console import output
from receiver.console.find_task import find_task
from receiver.deliveries import Notice
from receiver.delivery.hook_tests import sample_notice
from receiver.errors import DeliveryFailure, NotFound, PermanentFailure
from receiver.hooks.base import Preview, Previewing
from receiver.processes.current_hooks import known_secrets
from receiver.serializers.outputs import notice_of_history
from receiver.text.display import hiding, plain, plain_lines


@click.command()
@click.argument("name", shell_complete=hook_names)
@task_option
@click.option(
    "--status",
    type=click.Choice(HEARABLE),
    help="The status in the event. [default: the latest one that the hook receives]",
)
@as_json
@click.pass_context
def render(
    ctx: click.Context, name: str, task_id: str | None, status: str | None, as_json: bool
) -> None:
    """Print the message that a hook would send, without sending it.

    It shows the headers and the body, the parts of an e-mail, or the JSON for Slack, with secrets
    replaced by `…`. Without --task, the event is the test event. The exit status is 1 if the
    message cannot be rendered.
    """
    entry = hook_entry(name)
    hook = hooks.build(entry, os.environ)
    hide = hiding(known_secrets(settings.load(creates_secret=False)))
    if not isinstance(hook, Previewing):
        complain([f"{name}: a hook of type {entry.type} sends no message"])
        ctx.exit(REFUSED)
    try:
        with _notice(entry, task_id, status) as notice:
            preview = hook.preview(notice)
    except DeliveryFailure as failure:
        complain([hide(plain(str(failure)))])
        ctx.exit(REFUSED)
    headers = {key: hide(value) for key, value in preview.headers.items()}
    shown = Preview(hide(preview.destination), headers, hide(preview.body))
    if as_json:
        document = {"hook": name, "status": notice.status, "destination": shown.destination}
        output.as_json({**document, "headers": headers, "body": shown.body})
    else:
        for line in _lines(shown):
            click.echo(line)


@contextmanager
def _notice(entry: HookEntry, task_name: str | None, status: str | None) -> Iterator[Notice]:
    """Yield the event of the task, or the test event.

    Raises NotFound, AmbiguousName, and PermanentFailure if nothing would be sent.
    """
    if task_name is None:
        zone = settings.load(creates_secret=False).zone
        with sample_notice(status or entry.subscription.test_status, zone) as (notice, _):
            yield notice
        return
    chosen, store = settings_and_store()
    history = store.queries.history(find_task(store, task_name).id)
    recorded = [move.status for move in history.transitions]
    wanted = {status} if status else entry.subscription.on
    found = next((move for move in reversed(history.transitions) if move.status in wanted), None)
    if found is None:
        missing = (
            f"never had the status {status}" if status else "has no status of the hook's events"
        )
        raise NotFound(f"the task {missing}; it had: {', '.join(recorded)}")
    notice = notice_of_history(history, found)
    if history.forgotten_at is not None:
        raise PermanentFailure("the task was forgotten, so nothing is sent about it")
    if not notice.media and any(not stored.callback.body for stored in history.callbacks):
        raise PermanentFailure("the provider's message was pruned, so there is nothing to send")
    if entry.subscription.after is None:
        notice = replace(notice, outputs={})
    yield replace(notice, zone=chosen.zone)


def _lines(preview: Preview) -> Iterator[str]:
    yield plain(preview.destination)
    for name, value in preview.headers.items():
        yield f"{plain(name)}: {plain(value)}"
    yield ""
    yield plain_lines(preview.body)

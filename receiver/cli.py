"""The `receiver` command."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import click
import structlog

from receiver import __version__, console, hooks, logs, providers, serve, settings, shapes
from receiver.clock import now_ms
from receiver.deliver import Deliver
from receiver.deliveries import State, task_json
from receiver.dispatch import dispatcher
from receiver.errors import CallbackReceiverError, RequestRefused, SettingsError
from receiver.ingest import Ingest, announce, hook_entries
from receiver.stop import stop_at
from receiver.stores import Store, open_store
from receiver.tasks import Outcome, Status

log = structlog.get_logger()
USAGE, REFUSED = 2, 1
ROW = click.IntRange(1, 2**63 - 1)
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit = click.option("--limit", default=50, type=click.IntRange(1, 10_000), help="At most N rows.")


class Commands(click.Group):
    """Turns our errors into lines for people: status 2 for settings, 1 for a refusal."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SettingsError as error:
            _complain(error.problems)
            ctx.exit(USAGE)
        except CallbackReceiverError as error:
            _complain([str(error)])
            ctx.exit(REFUSED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Receive the callbacks of AI tasks, keep them, and fire hooks.

    Settings come from the environment; see .env.example.
    """
    logs.configure()


@main.command()
def migrate() -> None:
    """Bring the database up to this release. Safe to run twice, and at once."""
    applied = open_store(settings.load().database_url).migrate()
    click.echo(f"migrate: applied {', '.join(applied)}" if applied else "migrate: up to date")


@main.command("serve")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen. [default: 127.0.0.1:8000]")
def serve_(bind: str | None) -> None:
    """Run web, worker and poller on this machine until SIGTERM."""
    chosen = settings.load()  # a mistake is reported once, here, not by each process
    entries = hook_entries(chosen)
    hooks.build_all(entries, os.environ)
    _store(chosen)
    sys.exit(serve.supervise(serve.commands(bind)))


@main.command()
def worker() -> None:
    """Deliver to the hooks until SIGTERM."""
    chosen = settings.load()
    entries = hook_entries(chosen)
    deliver = Deliver(_store(chosen), hooks.build_all(entries, os.environ))
    stop = stop_at(signal.SIGTERM, signal.SIGINT)
    log.info("worker started", hooks=[entry.name for entry in entries], pid=os.getpid())
    run = dispatcher(deliver.store, deliver, concurrency=chosen.worker_concurrency).run
    if not run(stop):
        log.error("an attempt did not end in time; it is made again when its lease is out")
        os._exit(REFUSED)  # the thread that makes it cannot be ended otherwise
    log.info("worker stopped")


@main.group(invoke_without_command=True)
@click.option("--status", type=click.Choice([status.value for status in Status]))
@click.option("--provider")
@click.option("--reference")
@limit
@as_json
@click.pass_context
def tasks(
    ctx: click.Context,
    status: str | None,
    provider: str | None,
    reference: str | None,
    limit: int,
    as_json: bool,
) -> None:
    """List tasks, newest first; `tasks show TASK` tells everything about one."""
    if ctx.invoked_subcommand:
        return
    wanted = Status(status) if status else None
    found = _store().tasks(status=wanted, provider=provider, reference=reference, limit=limit)
    if as_json:
        console.as_json([task_json(task) for task in found])
    else:
        console.show_tasks(found)


@tasks.command()
@click.argument("task")
@as_json
def show(task: str, as_json: bool) -> None:
    """The timeline of one task: every callback, move and attempt."""
    history = _store().history(task)
    if as_json:
        console.as_json(shapes.history_json(history))
    else:
        console.show_timeline(history)


@main.command()
@click.option("--task")
@click.option("--outcome", type=click.Choice([outcome.value for outcome in Outcome]))
@limit
@as_json
def callbacks(task: str | None, outcome: str | None, limit: int, as_json: bool) -> None:
    """List what providers said, newest first; `--outcome quarantined`: what was not understood."""
    wanted = Outcome(outcome) if outcome else None
    found = _store().callbacks(task_id=task, outcome=wanted, limit=limit)
    if as_json:
        console.as_json([shapes.callback_json(stored) for stored in found])
    else:
        console.show_callbacks(found)


@main.command()
@click.option("--task")
@click.option("--hook")
@click.option("--state", type=click.Choice([state.value for state in State]))
@limit
@as_json
def deliveries(
    task: str | None, hook: str | None, state: str | None, limit: int, as_json: bool
) -> None:
    """List deliveries, newest first; `--state dead`: the dead letters."""
    wanted = State(state) if state else None
    found = _store().deliveries(task_id=task, hook=hook, state=wanted, limit=limit)
    if as_json:
        console.as_json([shapes.delivery_json(delivery) for delivery in found])
    else:
        console.show_deliveries(found)


@main.command()
@click.option("--provider", required=True, type=click.Choice(sorted(providers.PROVIDERS)))
@click.option("--reference", help="Your own name for it, such as an order number.")
@click.option("--account", default="default", show_default=True)
@as_json
def url(provider: str, reference: str | None, account: str, as_json: bool) -> None:
    """Record a task that you create at the provider yourself, and print its callback URL."""
    chosen = settings.load()
    task, where = announce(_store(chosen), chosen, provider, reference, account)
    if as_json:
        console.as_json({"task": task_json(task), "callback_url": where})
    else:
        click.echo(where)


@main.command()
@click.argument("delivery", type=ROW)
def redeliver(delivery: int) -> None:
    """Make a delivery that ended due again."""
    _store().redeliver(delivery, now_ms())
    click.echo(f"delivery {delivery} is due again")


@main.command()
@click.argument("callback", type=ROW)
def replay(callback: int) -> None:
    """Send a stored callback through parse and record again."""
    chosen = settings.load()
    ingest = Ingest.into(_store(chosen), chosen)
    try:
        outcome = ingest.replay(callback)
    except RequestRefused as refusal:
        raise click.ClickException(
            f"callback {callback} is still not understood: {refusal}"
        ) from None
    click.echo(f"callback {callback}: {outcome}")


def _store(chosen: settings.Settings | None = None) -> Store:
    store = open_store((chosen or settings.load()).database_url)
    store.check_schema()
    return store


def _complain(lines: Any) -> None:
    for line in lines:
        click.echo(f"receiver: {line}", err=True)

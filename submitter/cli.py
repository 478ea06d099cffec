"""The `submitter` command: exit status 0 done, 1 refused or failed, 2 usage, 130 interrupted."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from receiver.errors import CallbackReceiverError, NotFound, SettingsError
from receiver.stores import Store
from receiver.tasks import Status, Task
from submitter import reconcile, report
from submitter.errors import ConfigurationError, InputError, ProviderError, SubmitterError
from submitter.follow import Follower, wait_for_downloads
from submitter.progress import Show, shown
from submitter.providers import ROOMS, Provider, open_room
from submitter.providers.base import Page
from submitter.record import Record, opened, opened_with
from submitter.settings import DEFAULT_ACCOUNT
from submitter.submit import Desk, prepare
from submitter.wording import readable

REFUSED, USAGE, INTERRUPTED = 1, 2, 130
ALL = 1_000_000
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
provider = click.option(
    "--provider", type=click.Choice(list(ROOMS)), default="kling", show_default=True
)
account = click.option(
    "--account",
    default=DEFAULT_ACCOUNT,
    metavar="NAME",
    help="Which keys to use: `shop2` reads KLING_SHOP2_API_KEY and so on.",
)


class Commands(click.Group):
    """Turns our errors into lines for people."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (ConfigurationError, SettingsError) as error:
            _complain(error.problems)
            ctx.exit(USAGE)
        except InputError as error:
            _complain([f"--{error.field.replace('_', '-')}: {error.message}"])
            ctx.exit(USAGE)
        except (SubmitterError, CallbackReceiverError) as error:
            _complain([str(error)])
            ctx.exit(REFUSED)
        except KeyboardInterrupt:
            _complain(["interrupted; what is on record stays there: see `receiver tasks`"])
            ctx.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="callback-receiver")
def main() -> None:
    """Create virtual try-on tasks at a provider, and see how they stand.

    Settings come from the environment; see .env.example.
    """


@main.command()
@provider
@click.option("--human", required=True, metavar="PATH|URL", help="The person: JPEG or PNG.")
@click.option("--cloth", required=True, metavar="PATH|URL", help="The garment: JPEG or PNG.")
@click.option("--reference", help="Your own name for it, such as an order number.")
@click.option("--model", help="The provider's model.  [default: the provider's first]")
@account
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@as_json
@click.pass_context
def submit(
    ctx: click.Context,
    provider: str,
    human: str,
    cloth: str,
    reference: str | None,
    model: str | None,
    account: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Submit one try-on."""
    with opened_with(provider, account) as (record, room):
        order = prepare(human, cloth, reference, model)
        desk = Desk(record.ingest, room, record.settings, account)
        with shown("submitting") as show:
            task = desk.put_on_record(order)
            show.task(task)
            try:
                task = desk.send(task, order)
                if wait:
                    task = _wait(record, room, task, timeout, show)
            except ProviderError:
                if as_json:
                    _print_task(record.store, task, as_json)
                raise
        _print_task(record.store, task, as_json)
    if wait and not task.status.is_terminal:
        late = f"task {task.id} has not ended within {timeout:g} s; it goes on"
        _complain([f"{late}, see: submitter status {task.id}"])
        ctx.exit(REFUSED)
    ctx.exit(REFUSED if task.status is Status.FAILED else 0)


@main.command()
@click.argument("task")
@as_json
def status(task: str, as_json: bool) -> None:
    """Show a task, by our id or the provider's; the provider is asked while it is open."""
    with opened() as record:
        found = _find(record.store, task)
        problem = None
        if not found.status.is_terminal:
            problem = _asked(record, found)
        _print_task(record.store, found, as_json)
    if problem is not None:
        raise problem


@main.command("list")
@provider
@account
@click.option("--page", default=1, show_default=True, metavar="N")
@click.option("--page-size", default=30, show_default=True, metavar="N")
@as_json
def list_(provider: str, account: str, page: int, page_size: int, as_json: bool) -> None:
    """Show the provider's own list of tasks, newest first."""
    found = open_room(provider, account).list(page, page_size)
    if as_json:
        _print_json(report.page_document(found))
    else:
        _print_page(found)


def _wait(record: Record, room: Provider, task: Task, timeout: float, show: Show) -> Task:
    task = Follower(record, room, show.task, show.note).follow(task, timeout)
    if task.status is Status.SUCCEEDED:
        wait_for_downloads(record.store, record.downloads, task)
    return task


def _asked(record: Record, task: Task) -> SubmitterError | None:
    """Ask the provider; what stood in the way, because the record is worth showing all the same."""
    try:
        reconcile.ask(record.ingest, open_room(task.provider, task.account), task)
    except SubmitterError as error:
        return error
    return None


def _find(store: Store, text: str) -> Task:
    try:
        return store.task(text)
    except NotFound:
        named = (task for task in store.tasks(limit=ALL) if task.provider_task_id == text)
        found = next(named, None)
    if found is None:
        raise NotFound(f"no task {text}, neither by our id nor by the provider's")
    return found


def _print_task(store: Store, task: Task, as_json: bool) -> None:
    history = store.history(task.id)
    if as_json:
        _print_json(report.document(history))
    else:
        for line in report.lines(history):
            click.echo(line)


def _print_page(page: Page) -> None:
    """A table for people; a line a task, separated by tabs, for other programs."""
    if not sys.stdout.isatty():
        for task in page.tasks:
            click.echo("\t".join(report.row(task)))
        return
    table = Table()
    for heading in ("its id", "our id"):
        table.add_column(heading, no_wrap=True)  # to be copied whole
    for heading in ("status", "created", "result"):
        table.add_column(heading, overflow="fold")
    for task in page.tasks:
        table.add_row(*map(Text, report.row(task)))
    Console().print(table)


def _print_json(document: Any) -> None:
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _complain(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(f"submitter: {readable(line, 2000)}", err=True)

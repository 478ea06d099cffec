"""The command `submitter submit`."""

from __future__ import annotations

from typing import Any

import click

from receiver.clock import now_ms
from receiver.console.numbers import Number
from receiver.stores import Store
from receiver.tasks import Status
from receiver.text.display import elapsed
from submitter.cli.group import EXIT_FAILED, print_errors
from submitter.cli.options import account, as_json, metadata, model, provider
from submitter.cli.progress import task_progress
from submitter.cli.tasks import print_task
from submitter.errors import ProviderError
from submitter.follow import Follower, wait_for_downloads
from submitter.pictures.inputs import prepare_inputs
from submitter.session import open_session_with
from submitter.task_creation import TaskCreator, check_once, open_or_recent


@click.command("submit")
@provider
@click.option("--human", required=True, metavar="PATH|URL", help="The person: JPEG or PNG.")
@click.option(
    "--cloth",
    required=True,
    multiple=True,
    metavar="PATH|URL",
    help="The garment: JPEG or PNG. Give upper:PATH and lower:PATH to merge two garments.",
)
@click.option("--reference", help="Your own name for the task, such as an order number.")
@click.option(
    "--once", is_flag=True, help="Refuse if a task with this reference was submitted before."
)
@metadata
@model
@account
@click.option("--wait", is_flag=True, help="Wait until the task has ended.")
@click.option(
    "--timeout",
    type=Number(min=0.1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="The maximum time to wait.",
)
@as_json
@click.pass_context
def submit(
    ctx: click.Context,
    provider: str,
    human: str,
    cloth: tuple[str, ...],
    reference: str | None,
    once: bool,
    metadata: dict[str, Any],
    model: str | None,
    account: str,
    wait: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Submit one try-on.

    A warning is printed if a task with the same reference is open or was created in the last day.
    """
    if once:
        check_once(reference)
    with open_session_with(provider, account) as (session, adapter):
        inputs = prepare_inputs(adapter, human, cloth, reference, model, metadata=metadata)
        creator = TaskCreator(session.ingest, adapter, session.settings, account)
        if not once:
            _warn_of_earlier(session.store, inputs.reference)
        with task_progress("submitting") as display:
            task = creator.record_once(inputs) if once else creator.record_task(inputs)
            display.show_task(task)
            try:
                task = creator.send(task, inputs)
                if wait:
                    follower = Follower(session, adapter, display.show_task, display.show_line)
                    task = follower.follow(task, timeout)
            except ProviderError:
                if as_json:
                    print_task(session.store, task, as_json)
                raise
            if wait and task.status is Status.SUCCEEDED:
                wait_for_downloads(session.store, session.download_hooks, task)
        print_task(session.store, task, as_json)
    if wait and not task.status.is_terminal:
        problem = f"task {task.id} has not ended within {timeout:g} s and continues"
        print_errors([f"{problem}; see: submitter status {task.id}"])
        ctx.exit(EXIT_FAILED)
    ctx.exit(EXIT_FAILED if task.status is Status.FAILED else 0)


def _warn_of_earlier(store: Store, reference: str | None) -> None:
    earlier = None if reference is None else open_or_recent(store, reference)
    if earlier is not None:
        age = elapsed(now_ms() - earlier.created_at)
        problem = (
            f"warning: task {earlier.id} ({earlier.status}), created {age} ago, has the same "
            "reference; with --once, this task would not be submitted"
        )
        print_errors([problem])

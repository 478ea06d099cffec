"""The `submitter reconcile` command: once, or as the poller process."""

from __future__ import annotations

import signal
from collections import Counter

import click

from receiver import logs, settings
from receiver.ingest import known_secrets
from receiver.redaction import hiding
from receiver.stop import stop_at
from submitter.console import REFUSED, as_json, print_json
from submitter.reconcile import Reconciler
from submitter.record import opened


@click.command("reconcile")
@click.option("--forever", is_flag=True, help="Go on until SIGTERM: the poller process.")
@as_json
@click.pass_context
def reconcile(ctx: click.Context, forever: bool, as_json: bool) -> None:
    """Ask the providers about tasks whose callbacks are late, or never come.

    Once: every task that is overdue now. Status 1 if a question failed.
    """
    logs.configure(form=settings.log_format())
    with opened() as record:
        known = known_secrets(record.settings)
        logs.configure(hiding(known), settings.log_format())
        reconciler = Reconciler(record.ingest, first_within=record.settings.reconcile_after)
        if forever:
            reconciler.run(stop_at(signal.SIGTERM, signal.SIGINT))
            return
        asked: Counter[str] = Counter()
        while found := reconciler.round():
            asked += found
        reconciler.hand_over()
    if as_json:
        print_json(dict(asked))
    else:
        told = ", ".join(f"{number} {word}" for word, number in sorted(asked.items()))
        click.echo(f"reconcile: asked about {asked.total()} tasks{': ' if told else ''}{told}")
    ctx.exit(REFUSED if asked["failed"] else 0)

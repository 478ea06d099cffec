"""The `submitter reconcile` command: once, or as the poller process."""

from __future__ import annotations

import os
import signal
from collections import Counter

import click
import structlog

from receiver import logs, settings
from receiver.clock_watch import ClockWatch
from receiver.ingest import known_secrets
from receiver.redaction import hiding
from receiver.stop import reload_at_hangup, stop_at
from submitter.console import REFUSED, as_json, print_json
from submitter.reconcile import Reconciler
from submitter.record import opened

log = structlog.get_logger()


@click.command("reconcile")
@click.option("--forever", is_flag=True, help="Go on until SIGTERM: the poller process.")
@as_json
@click.pass_context
def reconcile(ctx: click.Context, forever: bool, as_json: bool) -> None:
    """Ask the providers about tasks whose callbacks are late, or never come.

    Once: every task that is overdue now. Status 1 if a question failed.
    """
    logs.configure(form=settings.log_format())
    with opened(waits=forever) as record:
        known = known_secrets(record.settings, record.hooks.entries if record.hooks else ())
        logs.configure(hiding(known), settings.log_format())
        watch = ClockWatch(record.store, record.ingest.meter)
        reconciler = Reconciler(
            record.ingest, first_within=record.settings.reconcile_after, watch=watch
        )
        if forever:
            stop = stop_at(signal.SIGTERM, signal.SIGINT)
            reconciler.current_hooks = record.hooks
            reload_at_hangup(reconciler.reload, stop)
            log.info("poller started", pid=os.getpid())
            reconciler.run(stop)
            log.info("poller stopped")
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

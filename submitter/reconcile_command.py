"""The `submitter reconcile` command: once, or as the poller process."""

from __future__ import annotations

import os
import signal
from collections import Counter

import click
import structlog

from receiver import logs, settings
from receiver.clock_watch import ClockWatch
from receiver.current_hooks import CurrentHooks
from receiver.ingest import known_secrets
from receiver.redaction import hiding
from receiver.settings import Settings
from receiver.stop import reload_at_hangup, stop_at
from submitter.console import REFUSED, as_json, print_json
from submitter.reconcile import Reconciler
from submitter.record import opened

log = structlog.get_logger()


def hide_secrets(chosen: Settings, current: CurrentHooks | None, known: set[str]) -> None:
    """Hide the secrets of these hooks in the log, besides those that are `known`, from now on."""
    known |= known_secrets(chosen, current.entries if current else ())
    logs.configure(hiding(known), settings.log_format())


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
        known: set[str] = set()
        hide_secrets(record.settings, record.hooks, known)
        watch = ClockWatch(record.store, record.ingest.meter)
        reconciler = Reconciler(
            record.ingest, first_within=record.settings.reconcile_after, watch=watch
        )
        if forever:
            stop = stop_at(signal.SIGTERM, signal.SIGINT)
            reconciler.current_hooks = record.hooks

            def reload() -> None:
                reconciler.reload()
                hide_secrets(record.settings, reconciler.current_hooks, known)

            reload_at_hangup(reload, stop)
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

"""The `submitter reconcile` command: once, or as the poller process."""

from __future__ import annotations

import os
import signal
from collections import Counter

import click
import structlog

from receiver.config import settings
from receiver.ingest import known_secrets
from receiver.observability import logs
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import CurrentHooks
from receiver.processes.shutdown import delay_hangup, reload_at_hangup, stop_at
from receiver.text.display import hiding
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
    if forever:
        delay_hangup()
    with opened(waits=forever) as record:
        secrets = _Secrets(record.settings)
        secrets.add(record.hooks)
        logs.configure(secrets.hide, settings.log_format())
        watch = ClockWatch(record.store, record.ingest.meter)
        reconciler = Reconciler(
            record.ingest, first_within=record.settings.reconcile_after, watch=watch
        )
        if forever:
            stop = stop_at(signal.SIGTERM, signal.SIGINT)
            reconciler.current_hooks = record.hooks

            def reload() -> None:
                reconciler.reload()
                secrets.add(reconciler.current_hooks)

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


class _Secrets:
    """What the log must not show: the secrets of the settings, and of the hooks."""

    def __init__(self, chosen: settings.Settings) -> None:
        self._settings = chosen
        self._known: frozenset[str] = frozenset()
        self.add(None)

    def add(self, hooks: CurrentHooks | None) -> None:
        """Hide the secrets of these hooks, too; loggers use `hide` until the process ends."""
        self._known |= known_secrets(self._settings, hooks.entries if hooks else ())
        self._hiding = hiding(self._known)

    def hide(self, text: str) -> str:
        return self._hiding(text)

"""The command `submitter reconcile`, which also runs the poller process."""

from __future__ import annotations

import os
import signal
from collections import Counter

import click

from receiver.config import settings
from receiver.observability import logs
from receiver.observability.logger import Logger
from receiver.processes.clock_watch import ClockWatch
from receiver.processes.current_hooks import CurrentHooks, known_secrets
from receiver.processes.shutdown import delay_hangup, reload_at_hangup, stop_at
from receiver.text.display import hiding
from submitter.cli.group import EXIT_FAILED, print_json
from submitter.cli.options import as_json
from submitter.reconcile import Reconciler
from submitter.session import open_session

log = Logger()


@click.command("reconcile")
@click.option("--forever", is_flag=True, help="Run until SIGTERM: the poller process.")
@as_json
@click.pass_context
def reconcile_(ctx: click.Context, forever: bool, as_json: bool) -> None:
    """Query the providers about tasks whose callbacks are late or cannot be received.

    Without --forever, query every task that is overdue now. The exit status is 1 if a query failed.
    """
    logs.configure(form=settings.log_format())
    if forever:
        delay_hangup()
    with open_session(with_accounts=True, waits=forever) as session:
        secrets = _HiddenSecrets(session.settings, session.hooks)
        logs.configure(secrets.hide, settings.log_format())
        reconciler = Reconciler(
            session.ingest,
            first_within=session.settings.reconcile_after,
            watch=ClockWatch(session.store, session.ingest.meter),
        )
        if forever:
            _run_poller(reconciler, session.hooks, secrets)
            return
        results: Counter[str] = Counter()
        while batch := reconciler.query_overdue():
            results += batch
        reconciler.flush_metrics()
    if as_json:
        print_json(dict(results))
    else:
        counts = ", ".join(f"{number} {result}" for result, number in sorted(results.items()))
        click.echo(f"reconcile: queried {results.total()} tasks{': ' if counts else ''}{counts}")
    ctx.exit(EXIT_FAILED if results["failed"] else 0)


class _HiddenSecrets:
    """The secrets that logs must not contain: those of the settings and of the hooks."""

    def __init__(self, chosen: settings.Settings, hooks: CurrentHooks) -> None:
        self._settings = chosen
        self._secrets: frozenset[str] = frozenset()
        self.add(hooks)

    def add(self, hooks: CurrentHooks | None) -> None:
        """Hide the secrets of these hooks as well. Those of earlier hooks remain hidden."""
        self._secrets |= known_secrets(self._settings, hooks.entries if hooks else ())
        self._hide = hiding(self._secrets)

    def hide(self, text: str) -> str:
        return self._hide(text)


def _run_poller(reconciler: Reconciler, hooks: CurrentHooks, secrets: _HiddenSecrets) -> None:
    stop = stop_at(signal.SIGTERM, signal.SIGINT)
    reconciler.current_hooks = hooks

    def reload() -> None:
        reconciler.reload()
        secrets.add(reconciler.current_hooks)

    reload_at_hangup(reload, stop)
    log.info("poller started", pid=os.getpid())
    reconciler.run(stop)
    log.info("poller stopped")

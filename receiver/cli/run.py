"""The commands that run the processes."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import closing, suppress

import click
import structlog

from receiver import hooks, logs, serve, settings
from receiver.alert import Alert
from receiver.cli.group import REFUSED, store
from receiver.clock import now_ms
from receiver.deliver import Deliver
from receiver.dispatch import Chore, chores, dispatcher
from receiver.errors import StoreUnavailable
from receiver.hooks.base import Alerting
from receiver.hooks_file import HookEntry
from receiver.ingest import hook_entries, known_secrets
from receiver.meter import EVERY, Meter
from receiver.prune import prune
from receiver.redaction import hiding
from receiver.rehearse import Rehearse
from receiver.stop import stop_at
from receiver.stores import Store, open_store

ALERTS_EVERY = 2.0  # seconds
TRIALS_EVERY = 2.0
PRUNE_EVERY = 3600.0

log = structlog.get_logger()


@click.command()
def migrate() -> None:
    """Bring the database up to this release. Safe to run twice, and at once."""
    with closing(open_store(settings.load().database_url)) as record:
        applied = record.migrate()
    click.echo(f"migrate: applied {', '.join(applied)}" if applied else "migrate: up to date")


@click.command("serve")
@click.option("--bind", metavar="HOST:PORT", help="Where to listen. [default: 127.0.0.1:8000]")
def serve_(bind: str | None) -> None:
    """Run web, worker and poller on this machine until SIGTERM."""
    chosen = settings.load()  # a mistake is reported once, here, not by each process
    entries = hook_entries(chosen)
    hooks.build_all(entries, os.environ)
    store(chosen).close()  # the processes open their own
    sys.exit(serve.supervise(serve.commands(bind)))


@click.command()
def worker() -> None:
    """Deliver to the hooks until SIGTERM."""
    chosen = settings.load()
    entries = hook_entries(chosen)
    built = hooks.build_all(entries, os.environ)
    hide = hiding(known_secrets(chosen))
    logs.configure(hide, settings.log_format())
    meter = Meter("worker")
    deliver = Deliver(store(chosen), built, hide=hide, meter=meter, zone=chosen.zone)
    stop = stop_at(signal.SIGTERM, signal.SIGINT)
    log.info("worker started", hooks=[entry.name for entry in entries], pid=os.getpid())
    run = dispatcher(deliver.store, deliver, concurrency=chosen.worker_concurrency).run
    more = [
        Chore("metrics", EVERY, lambda: _hand_over(meter, deliver.store)),
        Chore("trials", TRIALS_EVERY, Rehearse(deliver.store, built, hide).round),
    ]
    with chores([*_chores(deliver.store, entries, built, chosen.retention), *more], stop):
        drained = run(stop)
    with suppress(StoreUnavailable):  # it was logged where it mattered
        _hand_over(meter, deliver.store)
    if not drained:
        log.error("an attempt did not end in time; it is made again when its lease is out")
        os._exit(REFUSED)  # the thread that makes it cannot be ended otherwise
    log.info("worker stopped")


def _chores(
    record: Store,
    entries: tuple[HookEntry, ...],
    built: dict[str, hooks.Hook],
    retention: int | None,
) -> list[Chore]:
    """What the worker does beside deliveries."""
    telling = [
        (entry.name, hook)
        for entry in entries
        if entry.alerts and isinstance(hook := built[entry.name], Alerting)
    ]
    wanted = [Chore("alerts", ALERTS_EVERY, Alert(record, telling).send)]
    if retention is not None:
        wanted.append(Chore("prune", PRUNE_EVERY, lambda: _prune(record, retention)))
    return wanted


def _hand_over(meter: Meter, record: Store) -> None:
    try:
        meter.flush(record.measure)
    except StoreUnavailable:
        meter.store_failed()
        raise


def _prune(record: Store, retention: int) -> None:
    steps = list(prune(record, now_ms() - retention * 1000))
    log.info(
        "pruned",
        callbacks=sum(step.callbacks for step in steps),
        inputs=sum(step.inputs for step in steps),
    )

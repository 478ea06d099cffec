"""The commands that run the processes."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import closing, suppress

import click
import structlog

from receiver import hooks
from receiver.cli.group import REFUSED, store_when_reachable
from receiver.clock import now_ms
from receiver.config import settings
from receiver.config.hooks_file import HookEntry
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.chores import AlertSender, Chore, MissingHooks, run_chores
from receiver.delivery.dispatcher import dispatcher
from receiver.delivery.hook_tests import HookTestSender
from receiver.delivery.loaded_hooks import LoadedHooks
from receiver.errors import NotErased, StoreUnavailable
from receiver.hooks.base import KeepsFiles
from receiver.maintenance.erasures import FinishErasures
from receiver.maintenance.prune import prune
from receiver.observability import logs
from receiver.observability.metrics import FLUSH_INTERVAL, MetricBuffer
from receiver.processes import serve
from receiver.processes.clock_watch import LOOK_EVERY, ClockWatch
from receiver.processes.current_hooks import REPORTS_EVERY, CurrentHooks, ProblemReports, source_of
from receiver.processes.shutdown import delay_hangup, reload_at_hangup, stop_at
from receiver.stores import Store, open_store, when_reachable

ALERTS_EVERY = 2.0  # seconds
TRIALS_EVERY = 2.0
MISSING_EVERY = 10.0
PRUNE_EVERY = 3600.0
LAST_PORT = 65_535
FEW = 4  # migrations, whose names fit on one line
ERASURES_EVERY = 5.0

log = structlog.get_logger()


@click.command()
@click.option("--wait", is_flag=True, help="Wait for a database server that is down.")
def migrate(wait: bool) -> None:
    """Bring the database up to this release. Safe to run twice, even concurrently."""
    with closing(open_store(settings.load().database_url)) as record:
        applied = when_reachable(record.migrate) if wait else record.migrate()
        pooler = record.database.pooler()
    names = ", ".join(applied) if len(applied) < FEW else f"{applied[0]} to {applied[-1]}"
    click.echo(f"migrate: applied {names}" if applied else "migrate: up to date")
    for sentence in pooler or ():
        click.echo(f"migrate: {sentence}", err=True)


def _checked_bind(_: click.Context, __: click.Parameter, text: str | None) -> str | None:
    """Report a mistake here, once, because the web process would be started again and again."""
    from gunicorn.util import parse_address  # noqa: PLC0415 - the worker does not need it

    if text is not None:
        try:
            address = parse_address(text)
        except RuntimeError as error:
            raise click.BadParameter(str(error)) from None
        if isinstance(address, tuple) and not 0 <= address[1] <= LAST_PORT:
            raise click.BadParameter(f"{address[1]} is not a port; use 1 to {LAST_PORT}")
    return text


@click.command("serve")
@click.option(
    "--bind",
    metavar="HOST:PORT",
    callback=_checked_bind,
    help="Where to listen. [default: 127.0.0.1:8000]",
)
def serve_(bind: str | None) -> None:
    """Run web, worker and poller on this machine until SIGTERM."""
    delay_hangup()
    # A mistake is reported once, here, not by each process.
    chosen = settings.load(creates_secret=False)
    current = CurrentHooks.load(source_of(chosen))

    def check(entries: tuple[HookEntry, ...]) -> None:
        hooks.build_all(entries, os.environ)

    check(current.entries)
    store_when_reachable(chosen).close()  # the processes open their own
    sys.exit(serve.supervise(serve.commands(bind), current, check))


@click.command()
def worker() -> None:
    """Deliver to the hooks until SIGTERM."""
    delay_hangup()
    chosen = settings.load(creates_secret=False)
    loaded = LoadedHooks(CurrentHooks.load(source_of(chosen)), os.environ, chosen.secrets)
    logs.configure(loaded.hide, settings.log_format())
    meter = MetricBuffer("worker")
    record = store_when_reachable(chosen)
    deliveries = DeliveryWorker(
        record,
        loaded,
        hide=loaded.hide,
        meter=meter,
        zone=chosen.zone,
        concurrency=chosen.worker_concurrency,
    )
    watch = ClockWatch(record, meter)
    with suppress(StoreUnavailable):  # it is logged when the worker looks again
        watch.look()  # before any heartbeat: after a reboot, it compares with the last ones
    stop = stop_at(signal.SIGTERM, signal.SIGINT)
    reload_at_hangup(loaded.reload, stop)
    log.info("worker started", hooks=list(loaded), pid=os.getpid())
    for problem in hooks.check_installed_types():
        log.warning("a hook type of another package cannot be used", problem=problem)
    if not loaded:
        path = loaded.current.source.path
        problem = "it is empty" if path.exists() else "it does not exist"
        log.warning("there are no hooks: nothing is done", hooks_file=str(path), problem=problem)
    reports = ProblemReports(record, f"{socket.gethostname()}:{os.getpid()}", "worker")
    run = dispatcher(deliveries).run
    more = [
        Chore("clock", LOOK_EVERY, watch.look),
        Chore("metrics", FLUSH_INTERVAL, lambda: _hand_over(meter, record)),
        Chore("trials", TRIALS_EVERY, HookTestSender(record, loaded, loaded.hide).round),
        Chore("hooks file", REPORTS_EVERY, lambda: reports.report(loaded.current.problem)),
        Chore("missing hooks", MISSING_EVERY, MissingHooks(record, loaded).log),
    ]
    with run_chores([*_chores(record, loaded, chosen.retention), *more], stop):
        drained = run(stop)
    with suppress(StoreUnavailable):  # it was logged where it mattered
        _hand_over(meter, record)
        reports.report(None)
    if not drained:
        log.error("an attempt did not end in time; it is made again when its lease is out")
        os._exit(REFUSED)  # the thread that makes it cannot be ended otherwise
    log.info("worker stopped")


def _chores(record: Store, loaded: LoadedHooks, retention: int | None) -> list[Chore]:
    """What the worker does beside deliveries."""
    wanted = [
        Chore("alerts", ALERTS_EVERY, lambda: AlertSender(record, loaded.alerting()).send()),
        Chore("erasures", ERASURES_EVERY, FinishErasures(record).round),
    ]
    if retention is not None:

        def prune_old() -> None:
            _prune(record, retention, hooks.keepers(loaded.values()))

        wanted.append(Chore("prune", PRUNE_EVERY, prune_old))
    return wanted


def _hand_over(meter: MetricBuffer, record: Store) -> None:
    try:
        meter.flush(record.metrics.add)
    except StoreUnavailable:
        meter.store_failed()
        raise


def _prune(record: Store, retention: int, keepers: Sequence[KeepsFiles]) -> None:
    older_than = now_ms() - retention * 1000
    if by := record.clocks.set_forward_since(older_than):
        log.warning("the clock was set forward; data is kept that much longer", by_s=by / 1000)
    steps = []
    try:
        for step in prune(record, older_than, keepers):
            steps.append(step)  # noqa: PERF402 - the last step may raise
    except NotErased as error:
        log.warning("an erasure is not finished", error=str(error))
    log.info(
        "pruned",
        callbacks=sum(step.callbacks for step in steps),
        inputs=sum(step.inputs for step in steps),
    )

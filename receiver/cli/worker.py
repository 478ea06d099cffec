"""The command that runs the worker process."""

from __future__ import annotations

import os
import signal
import socket
from contextlib import suppress
from functools import partial

import click

from receiver import hooks, outgoing
from receiver.cli.database import store_when_reachable
from receiver.cli.group import REFUSED
from receiver.clock import now_ms
from receiver.config import settings
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.chores import AlertSender, Chore, MissingHooks, run_chores
from receiver.delivery.dispatcher import dispatcher
from receiver.delivery.hook_tests import HookTestSender
from receiver.delivery.loaded_hooks import LoadedHooks
from receiver.errors import NotErased, StoreUnavailable
from receiver.maintenance.erasures import FinishErasures
from receiver.maintenance.prune import prune
from receiver.observability import logs
from receiver.observability.logger import Logger
from receiver.observability.metrics import FLUSH_INTERVAL, MetricBuffer
from receiver.processes.clock_watch import LOOK_EVERY, ClockWatch
from receiver.processes.current_hooks import REPORTS_EVERY, ProblemReports, load_configuration
from receiver.processes.shutdown import delay_hangup, reload_at_hangup, stop_at
from receiver.stores import Store

log = Logger()


@click.command()
def worker() -> None:
    """Deliver events to the hooks until SIGTERM."""
    delay_hangup()
    chosen, current = load_configuration(partial(hooks.build_all, environ=os.environ))
    loaded = LoadedHooks(current, os.environ, chosen.secrets)
    logs.configure(loaded.hide, settings.log_format())
    meter = MetricBuffer("worker")
    record = store_when_reachable(chosen)
    deliveries = DeliveryWorker(
        record,
        loaded,
        policies=partial(getattr, loaded, "policies"),  # the new policies after a reload
        filters=partial(getattr, loaded, "filters"),
        limits=partial(getattr, loaded, "limits"),
        hide=loaded.hide,
        meter=meter,
        zone=chosen.zone,
        concurrency=chosen.worker_concurrency,
    )
    watch = ClockWatch(record, meter)
    with suppress(StoreUnavailable):  # a failure is logged at the next check
        watch.look()  # before any heartbeat: after a reboot, it compares with the last ones
    outgoing.prepare()  # so that the first delivery is not late
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
    work = [  # each with the seconds between two runs
        Chore("clock", LOOK_EVERY, watch.look),
        Chore("metrics", FLUSH_INTERVAL, lambda: _flush(meter, record)),
        Chore("test events", 2.0, HookTestSender(record, loaded, loaded.hide).round),
        Chore("hooks file", REPORTS_EVERY, lambda: reports.report(loaded.current.problem)),
        Chore("missing hooks", 10.0, MissingHooks(record, loaded).log),
        Chore("alerts", 2.0, lambda: AlertSender(record, loaded.alerting).send()),
        Chore("erasures", 5.0, FinishErasures(record).round),
    ]
    if (retention := chosen.retention) is not None:
        work.append(Chore("prune", 3600.0, lambda: _prune(record, retention, loaded)))
    with run_chores(work, stop):
        drained = dispatcher(deliveries).run(stop)
    with suppress(StoreUnavailable):  # already logged
        _flush(meter, record)
        reports.report(None)
    if not drained:
        log.error("an attempt did not end in time; it is repeated when its lease expires")
        os._exit(REFUSED)  # the thread of the attempt cannot be ended otherwise
    log.info("worker stopped")


def _flush(meter: MetricBuffer, record: Store) -> None:
    try:
        meter.flush(record.metrics.add)
    except StoreUnavailable:
        meter.store_failed()
        raise


def _prune(record: Store, retention: int, loaded: LoadedHooks) -> None:
    older_than = now_ms() - retention * 1000
    if by := record.clocks.set_forward_since(older_than):
        log.warning("the clock was set forward; data is kept that much longer", by_s=by / 1000)
    steps = []
    try:
        for step in prune(record, older_than, hooks.keepers(loaded.values())):
            steps.append(step)  # noqa: PERF402 - the last step may raise
    except NotErased as error:
        log.warning("an erasure is not finished", error=str(error))
    log.info(
        "pruned",
        callbacks=sum(step.callbacks for step in steps),
        inputs=sum(step.inputs for step in steps),
    )

"""Measures the time from a callback, or from the due time of a delivery, to the hook's request."""

from __future__ import annotations

import http.client
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.disks import Disk
from bench.fill import ENDS, callbacks_of
from bench.load import STATUSES, new_tasks, provider_task
from bench.load import at as at_share
from bench.ours import migrate, our_web, postgres
from bench.peers import Peers
from bench.processes import CannotMeasure, process
from bench.progress import say
from bench.sink import Sink, sink
from bench.site import Site
from bench.worker_rate import WORKER
from receiver.clock import now_ms
from receiver.deliveries import Subscription
from receiver.ingest import Ingest
from receiver.signing.callback_urls import mint
from receiver.stores import open_store
from tests.support.samples import SECRET, body

APART = 0.04  # seconds between two callbacks
DUE_APART = 60  # ms between the due times of two deliveries, so that the worker is idle
DUE_AFTER = 2500  # ms from now to the first one; the worker has started by then
HOOK = """
[[hook]]
name = "shop"
type = "webhook"
url = "{scheme}://localhost:{port}/"
secrets = ["whsec_b2YtdGhlLWJlbmNoLWFsb25lLW9wZW5zLW5vdGhpbmc="]
allow_private = true
"""


def measure(callbacks: int, due: int, place: Path) -> list[dict[str, Any]]:
    """Measure on SQLite and on PostgreSQL, with two web processes and one worker."""
    with postgres(Disk()) as (url, _):
        urls = {"SQLite": f"sqlite:///{place}/hooks.db", "PostgreSQL": url}
        return [
            _one(name, url, callbacks, place / f"hooks-{name}")
            | _due(name, url, due, place / f"due-{name}")
            for name, url in urls.items()
        ]


def _due(database: str, url: str, deliveries: int, folder: Path) -> dict[str, Any]:
    """Measure how long after the due time an idle worker sends a delivery, on a migrated record."""
    folder.mkdir()
    store = open_store(url)
    with sink() as shop:
        (folder / "hooks.toml").write_text(HOOK.format(scheme="http", port=shop.port))
        environment = Site(folder, Disk(), Peers()).environment(
            DATABASE_URL=url, HOOKS_FILE=folder / "hooks.toml"
        )
        with process(WORKER, folder / "worker", environment):
            clock = (
                time.time() - time.perf_counter()
            )  # converts the clock of `shop.came` to seconds since 1970
            first = now_ms() + DUE_AFTER
            due = {}
            for number, task in enumerate(new_tasks(deliveries)):
                at = first + number * DUE_APART
                due[f"{task}:succeeded"] = at / 1000 - clock
                (callback,) = callbacks_of(task, at, STATUSES[-1:])
                Ingest(store, [Subscription(hook="shop", on=ENDS)]).accept(callback)
            store.close()
            _wait(lambda: due.keys() <= shop.came.keys(), 60, lambda: len(due.keys() - shop.came))
    late = sorted((shop.came[name] - at) * 1000 for name, at in due.items())
    say(f"{database}: {len(late)} hooks after their due times")
    return {"due_p50_ms": statistics.median(late), "due_p99_ms": at_share(late, 0.99)}


def over_https(
    url: str, callbacks: int, folder: Path, worker: Sequence[str], roots: Path
) -> dict[str, Any]:
    """Measure with a worker that trusts these root certificates."""
    return _one("SQLite, HTTPS", url, callbacks, folder, worker, tls=True, BENCH_ROOTS=roots)


def _one(
    database: str,
    url: str,
    callbacks: int,
    folder: Path,
    command: Sequence[str] = WORKER,
    *,
    tls: bool = False,
    **settings: object,
) -> dict[str, Any]:
    folder.mkdir()
    migrate(url)
    with sink(tls=tls) as shop:
        scheme = "https" if tls else "http"
        (folder / "hooks.toml").write_text(HOOK.format(scheme=scheme, port=shop.port))
        site = Site(folder, Disk(), Peers())
        environment = site.environment(
            DATABASE_URL=url, HOOKS_FILE=folder / "hooks.toml", **settings
        )
        worker = process(command, folder / "worker", environment)
        with our_web(site, url, 2) as web, worker:
            _send(web.port, shop, new_tasks(10), patience=30)
            took = sorted(_send(web.port, shop, new_tasks(callbacks)))
    say(f"{database}: {len(took)} hooks after their callbacks")
    return {
        "database": database,
        "callbacks": len(took),
        "p50_ms": at_share(took, 0.5),
        "p99_ms": at_share(took, 0.99),
    }


def _send(port: int, shop: Sink, tasks: list[str], patience: float = 10) -> list[float]:
    """Return the milliseconds from each callback's first byte to the first byte of the hook's
    request.
    """
    sent: dict[str, float] = {}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for task in tasks:
        sent[f"{task}:succeeded"] = time.perf_counter()
        path = f"/callbacks/kling/{task}/{mint(SECRET, 'kling', task)}"
        headers = {"Content-Type": "application/json"}
        connection.request("POST", path, body("succeed", provider_task(task)), headers)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise CannotMeasure(f"a callback was answered {answer.status}")
        time.sleep(APART)
    connection.close()
    _wait(lambda: sent.keys() <= shop.came.keys(), patience, lambda: len(sent.keys() - shop.came))
    return [(shop.came[name] - began) * 1000 for name, began in sent.items()]


def _wait(is_so: Callable[[], bool], seconds: float, missing: Callable[[], int]) -> None:
    until = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > until:
            raise CannotMeasure(f"{missing()} hooks were not called within {seconds:g} s")
        time.sleep(0.01)

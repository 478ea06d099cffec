"""Measures the time from a callback to the hook's request."""

from __future__ import annotations

import http.client
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.disks import Disk
from bench.load import at, new_tasks, provider_task
from bench.ours import migrate, our_web, postgres
from bench.peers import Peers
from bench.processes import CannotMeasure, process
from bench.progress import say
from bench.sink import Sink, sink
from bench.site import Site
from bench.worker_rate import WORKER
from receiver.signing.callback_urls import mint
from tests.support.samples import SECRET, body

APART = 0.04  # seconds between two callbacks
HOOK = """
[[hook]]
name = "shop"
type = "webhook"
url = "{scheme}://localhost:{port}/"
secrets = ["whsec_b2YtdGhlLWJlbmNoLWFsb25lLW9wZW5zLW5vdGhpbmc="]
allow_private = true
"""


def measure(callbacks: int, place: Path) -> list[dict[str, Any]]:
    """Measure on SQLite and on PostgreSQL, with two web processes and one worker."""
    found = [_one("SQLite", f"sqlite:///{place}/hooks.db", callbacks, place / "hooks-sqlite")]
    with postgres(Disk()) as (url, _):
        found.append(_one("PostgreSQL", url, callbacks, place / "hooks-postgres"))
    return found


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
        "p50_ms": at(took, 0.5),
        "p99_ms": at(took, 0.99),
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

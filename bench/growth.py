"""Measures inserts, duplicates, pages and lists on records of several sizes, in turn."""

from __future__ import annotations

import random
import re
import statistics
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from bench.disks import Disk
from bench.fill import fill
from bench.load import Load, Traffic, fresh_traffic, new_tasks, send, write_tasks
from bench.ours import API_TOKEN, migrate, our_web
from bench.peers import Peers
from bench.processes import CannotMeasure
from bench.progress import say
from bench.site import Running, Site
from receiver.stores import open_store
from receiver.tasks import Outcome

CONNECTIONS = 64
PASSWORD = "of-the-bench-too"  # noqa: S105 - as above
TOKEN = re.compile(r'name="csrf_token" value="([^"]+)"')
RARE_LISTS = 21
TIMES = 9  # requests for each page in a round
# Each filtered list is empty, so a full search would read the whole record.
LISTS = ("/api/tasks?limit=50", "/api/tasks?status=failed", "/api/deliveries?state=dead")
PAGES = (
    "/dashboard/",
    "/dashboard/tasks",
    "/dashboard/tasks?status=failed",
    "/dashboard/deliveries",
)
TASK_PAGE = "/dashboard/tasks/<id>"
MOST_ASKED = 50_000  # tasks whose last callback is repeated


@dataclass
class Size:
    """The results of a record of one size, round by round."""

    events: int
    megabytes: float = 0.0
    inserts: list[float] = field(default_factory=list)  # per second
    duplicates: list[float] = field(default_factory=list)
    # the list of callbacks with an outcome that none has
    rare_list_ms: list[float] = field(default_factory=list)
    pages_ms: dict[str, list[float]] = field(default_factory=dict)  # until the page was read


@dataclass
class _Record:
    size: Size
    server: Running
    duplicates: Traffic
    visitor: requests.Session
    paths: dict[str, str]  # by name
    url: str


def measure(sizes: list[int], rounds: int, seconds: float, place: Path) -> list[dict[str, Any]]:
    with ExitStack() as stack:
        records = [_opened(stack, place / f"growth-{size}", size) for size in sizes]
        for number in range(-1, rounds):
            for record in records:
                _run(record, seconds, place, counts=number >= 0)
            say(f"records of {sizes} events, round {number + 1}")
    return [vars(record.size) for record in records]


def _opened(stack: ExitStack, folder: Path, events: int) -> _Record:
    """Run one web process on a record of this size."""
    folder.mkdir()
    database = folder / "receiver.db"
    migrate(f"sqlite:///{database}")
    tasks = fill(database, events) if events else []
    size = Size(events, database.stat().st_size / 1e6)
    say(f"filled a record with {events} events, {size.megabytes:.0f} MB")
    site, url = Site(folder, Disk(), Peers()), f"sqlite:///{database}"
    server = stack.enter_context(our_web(site, url, 1, DASHBOARD_PASSWORD=PASSWORD))
    if not tasks:  # on the empty record, the callbacks of the warm-up are repeated
        tasks = new_tasks(100)
    chance = random.Random(7)  # noqa: S311 - no secret
    known = chance.sample(tasks, min(len(tasks), MOST_ASKED))
    asked = Traffic(write_tasks(folder / "known", known), duplicates=True)
    paths = {path: path for path in (*LISTS, *PAGES)}
    if events:
        paths[TASK_PAGE] = TASK_PAGE.replace("<id>", known[0])
    visitor = stack.enter_context(requests.Session())
    _log_in(visitor, server.port)
    return _Record(size, server, asked, visitor, paths, url)


def _log_in(visitor: requests.Session, port: int) -> None:
    url = f"http://127.0.0.1:{port}{PAGES[0]}login"
    found = TOKEN.search(visitor.get(url, timeout=30).text)
    form = {"password": PASSWORD, "csrf_token": found[1] if found else ""}
    visitor.post(url, data=form, timeout=30)
    visitor.headers["Authorization"] = f"Bearer {API_TOKEN}"


def _run(record: _Record, seconds: float, place: Path, *, counts: bool) -> None:
    port, size = record.server.port, record.size
    inserted = _good(send(port, fresh_traffic(place / "tasks", seconds), CONNECTIONS, seconds))
    repeated = _good(send(port, record.duplicates, CONNECTIONS, seconds))
    record.visitor.close()  # the server may close an idle connection just when it is used again
    shown = {name: _page(record.visitor, port, path) for name, path in record.paths.items()}
    rare = _rare_list(record.url)
    if counts:
        size.rare_list_ms.append(rare)
        size.inserts.append(inserted.per_second)
        size.duplicates.append(repeated.per_second)
        for name, ms in shown.items():
            size.pages_ms.setdefault(name, []).append(ms)


def _page(visitor: requests.Session, port: int, path: str) -> float:
    """Return the median time until the page was read, in ms. Raises CannotMeasure."""
    times = []
    for _ in range(TIMES):
        began = time.perf_counter()
        response = visitor.get(f"http://127.0.0.1:{port}{path}", timeout=30, allow_redirects=False)
        times.append(1000 * (time.perf_counter() - began))
        if response.status_code != 200:
            raise CannotMeasure(f"{path}: {response.status_code}")
    return statistics.median(times)


def _rare_list(url: str) -> float:
    """Return the median query time of `receiver callbacks --outcome conflict`, in ms."""
    times = []
    with closing(open_store(url)) as store:
        for _ in range(RARE_LISTS):
            began = time.perf_counter()
            store.lists.page_of_callbacks(before=None, limit=50, outcome=Outcome.CONFLICT)
            times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _good(load: Load) -> Load:
    if load.refused or load.broken or not load.requests:
        raise CannotMeasure(f"{load.refused} refused, {load.broken} broken of {load.requests}")
    return load

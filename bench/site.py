"""The place where a variant runs, and its running server."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from bench.disks import Disk
from bench.peers import Peers
from bench.processes import process, tree
from tests.support.samples import SECRET


@dataclass
class Running:
    """A running server. `roots`: the processes whose trees do its work."""

    port: int
    roots: list[int]
    log: Path
    kept: Callable[[], int] | None = None  # returns the number of recorded events
    prefix: str = ""
    has_workers: bool = True  # the first root only supervises those that respond

    @property
    def workers(self) -> list[int]:
        """Return the processes that respond to requests."""
        return tree(self.roots[0])[1:] if self.has_workers else self.roots[:1]


@dataclass
class Site:
    """The place where one variant runs."""

    folder: Path
    disk: Disk
    peers: Peers

    def environment(self, **more: object) -> dict[str, str]:
        own = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        given = {name: str(value) for name, value in more.items()}
        own["RECEIVER_ENV_FILE"] = os.devnull  # a `.env` in the checkout is not for the bench
        return {**own, "CALLBACK_SECRETS": SECRET, **self.disk.environment, **given}


# a generator that yields once, while the server runs
Start = Callable[["Site"], Iterator["Running"]]


@contextmanager
def serve(
    site: Site, command: Sequence[str | Path], port: int, cwd: Path = ROOT, **environment: object
) -> Iterator[Running]:
    log = site.folder / "log"
    with process(command, log, site.environment(**environment), cwd) as pid:
        yield Running(port, [pid], log)


def gunicorn(config: str, workers: int, port: int, *more: str, python: str = "") -> list[str]:
    command = [python or sys.executable, "-m", "gunicorn", "--config", config]
    return [*command, "--workers", str(workers), "--bind", f"127.0.0.1:{port}", *more]

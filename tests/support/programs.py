"""Finds programs that tests run: on the PATH, otherwise from Debian's packages in a cache.

`python -m tests.support.programs [NAME …]` fetches those that are not on the PATH.
"""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support import debian_packages
from tests.support.debian_packages import unpacked
from tests.support.fetch_cache import WITHIN, UnavailableError

FETCHED_WITHIN = 900.0  # seconds for a package, outside of a test
SYSTEM_PROGRAMS = ("/usr/local/sbin", "/usr/sbin", "/sbin")  # not on an ordinary user's PATH


class Source(NamedTuple):
    """The source of a program."""

    names: tuple[str, ...]  # on the PATH
    package: str
    path: str  # in the package


SOURCES = {
    "nginx": Source(("nginx",), "nginx", "usr/sbin/nginx"),
    "caddy": Source(("caddy",), "caddy", "usr/bin/caddy"),
    "promtool": Source(("promtool",), "prometheus", "usr/bin/promtool"),
    "pgbouncer": Source(("pgbouncer",), "pgbouncer", "usr/sbin/pgbouncer"),
    "redis-server": Source(("redis-server",), "redis-server", "usr/bin/redis-server"),
    "rabbitmq-server": Source(
        ("rabbitmq-server",),
        "rabbitmq-server",
        "usr/lib/rabbitmq/bin/rabbitmq-server",  # not the one in usr/sbin, which changes the user
    ),
    "node": Source(("node", "nodejs"), "nodejs", "usr/bin/node"),
    "php": Source(("php",), "php8.2-cli", "usr/bin/php8.2"),
    # The headless shell has no user interface, which takes half of Chromium's CPU time.
    "chromium": Source(
        (
            *("chromium-headless-shell", "chromium", "chromium-browser"),
            *("google-chrome", "google-chrome-stable"),
        ),
        "chromium-headless-shell",
        "usr/lib/chromium/chromium-headless-shell",  # usr/bin would start the installed one
    ),
}
# What is used where the package of a program cannot be fetched.
SUBSTITUTES = {"chromium": Source((), "chromium", "usr/lib/chromium/chromium")}


@dataclass(frozen=True)
class Program:
    """A program, and the folder of its package unless it is installed."""

    path: Path
    folder: Path | None = None

    def environment(self) -> dict[str, str]:
        """Return the variables that it needs to run."""
        if self.folder is None:
            return {"PATH": _search_path()}
        return debian_packages.environment(self.folder)

    def moved(self, folder: Path) -> Program:
        """Return the same program in another folder, unless it is installed."""
        if self.folder is None:
            return self
        return replace(self, path=folder / self.path.relative_to(self.folder), folder=folder)


def find(name: str, within: float = WITHIN) -> Program:
    """Return the program. Raises UnavailableError."""
    if path := _installed(name):
        return Program(Path(path))
    try:
        return _fetched(SOURCES[name], within)
    except UnavailableError:
        if name not in SUBSTITUTES:
            raise
        return _fetched(SUBSTITUTES[name], within)


def _fetched(source: Source, within: float) -> Program:
    folder = unpacked(source.package, within=within)
    if not (folder / source.path).exists():
        raise UnavailableError(f"the package {source.package} contains no {source.path}")
    return Program(folder / source.path, folder)


def find_or_skip(name: str) -> Program:
    """Return the program, or skip the test if it is not available."""
    try:
        return find(name)
    except UnavailableError as error:
        pytest.skip(f"no {name}: {error}")


def main(names: list[str]) -> int:
    """Fetch programs, and print which tests will be skipped. The exit status is always 0."""
    for name in names or list(SOURCES):
        try:
            package = SOURCES[name].package
            if not _installed(name) and not (debian_packages.CACHE / package).is_dir():
                print(f"Unpacking Debian's {package} for the tests (once)", flush=True)
            find(name, within=FETCHED_WITHIN)
        except UnavailableError as error:
            print(f"No {name}, so the tests that need it are skipped: {error}", file=sys.stderr)
    return 0


def _installed(name: str) -> str | None:
    found = (shutil.which(one, path=_search_path()) for one in SOURCES[name].names)
    return next(filter(None, found), None)


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_PROGRAMS])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

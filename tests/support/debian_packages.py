"""Debian packages, unpacked into a cache beside the tests' interpreter instead of installed.

apt-get resolves and downloads with its own lists in the cache, and dpkg unpacks. Neither needs root
or writes outside the cache, and no script of a package is run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.support import fetch_cache
from tests.support.fetch_cache import (
    WITHIN,
    UnavailableError,
    failure,
    locked,
    raise_if_failed,
    remember_failure,
)

CACHE = fetch_cache.CACHE / "debian"
LISTS_LAST = 3600  # seconds; after that, apt-get fetches newer lists from the mirror
UPDATE = "apt-get-update"  # the name under which its failure is remembered
# A libc beside the loader of another version makes every program crash.
NEVER_UNPACKED = "libc6"
# Commands that the system runs after an update, and indexes of desktop applications and of files.
CLEARED = """\
#clear APT::Update;
#clear Acquire::IndexTargets::deb::Contents-deb;
#clear Acquire::IndexTargets::deb::DEP-11;
#clear Acquire::IndexTargets::deb::DEP-11-icons-small;
#clear Acquire::IndexTargets::deb::DEP-11-icons;
#clear Acquire::IndexTargets::deb::DEP-11-icons-large;
"""
OPTIONS = {
    "Acquire::Languages": "none",
    "Acquire::Retries": "0",
    "Acquire::http::Timeout": "15",
    "Acquire::https::Timeout": "15",
    "APT::Sandbox::User": "root",  # apt's own user may be unable to reach the cache
    "Dir::Cache::pkgcache": "pkgcache.bin",  # container images switch it off, which is slow
}


def unpacked(
    package: str, *, cache: Path = CACHE, options: Sequence[str] = (), within: float = WITHIN
) -> Path:
    """Return the folder with the package and those of its dependencies that are not installed.

    The first call downloads; several processes may call concurrently. Raises UnavailableError
    after at most `within` seconds; later calls in the same test run then fail immediately.
    """
    folder = cache / package
    if not folder.is_dir():
        raise_if_failed(cache, package)
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            raise UnavailableError("it is not on the PATH, and there is no apt-get to fetch it")
        ends_at = time.monotonic() + within
        with locked(cache, ends_at):
            if not folder.is_dir():
                raise_if_failed(cache, package)
                _Apt(cache, options, ends_at).unpack(package, folder)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Return the variables with which programs of an unpacked package find its other files."""
    programs = [folder / name for name in ("usr/sbin", "usr/bin", "sbin", "bin")]
    libraries = {
        library.parent
        for top in ("usr/lib", "lib")
        for library in (folder / top).glob("**/lib*.so*")
        if "glibc-hwcaps" not in library.parts  # the loader finds these by itself
    }
    return {
        "PATH": os.pathsep.join([*map(str, programs), os.environ.get("PATH", os.defpath)]),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, sorted(libraries))),
    }


class _Apt:
    """Calls of apt-get and dpkg with a state of their own, until a point in time."""

    def __init__(self, cache: Path, options: Sequence[str], ends_at: float) -> None:
        self._cache, self._ends_at = cache, ends_at
        self._state = cache / ".apt"
        (self._state / "lists/partial").mkdir(parents=True, exist_ok=True)
        (self._state / "archives/partial").mkdir(parents=True, exist_ok=True)
        (self._state / "apt.conf").write_text(CLEARED)
        own = OPTIONS | {"Dir::State": str(self._state), "Dir::Cache": str(self._state)}
        self._options = [f"-o{name}={value}" for name, value in own.items()]
        self._options += [f"-o{option}" for option in options]

    def unpack(self, package: str, folder: Path) -> None:
        with tempfile.TemporaryDirectory(dir=self._cache, prefix=".new-") as name:
            new = Path(name)
            (new / "root").mkdir()
            try:
                self._update()
                names = self._missing(package)
                self._run("apt-get", *self._options, "-qq", "download", *names, cwd=new)
                for archive in new.glob("*.deb"):
                    self._run("dpkg", "--extract", str(archive), str(new / "root"))
            except UnavailableError as error:
                update = failure(self._cache, UPDATE)
                reason = f"{error} (apt-get update: {update})" if update else str(error)
                remember_failure(self._cache, package, reason)
                raise UnavailableError(reason) from error
            for path in (new / "root").rglob("*"):
                if not path.is_symlink() and path.stat().st_mode & 0o6000:
                    path.chmod(path.stat().st_mode & 0o1777)  # nobody gets more rights
            (new / "root").rename(folder)

    def _update(self) -> None:
        """Fetch the lists if they are old. If a source fails, existing lists are used."""
        stamp = self._state / "updated"
        is_new = stamp.exists() and time.time() - stamp.stat().st_mtime < LISTS_LAST
        if is_new or failure(self._cache, UPDATE):
            return
        configuration = f"-c={self._state / 'apt.conf'}"
        try:
            self._run("apt-get", configuration, *self._options, "--error-on=any", "update")
            stamp.touch()
        except UnavailableError as error:
            remember_failure(self._cache, UPDATE, str(error))

    def _missing(self, package: str) -> list[str]:
        install = ("install", "--simulate", "--no-install-recommends", package)
        shown = self._run("apt-get", *self._options, *install)
        names = re.findall(r"^Inst (\S+)", shown, re.MULTILINE)
        if not names:  # it is installed, but its program is not on the PATH
            names = [package]
        if NEVER_UNPACKED in names:
            raise UnavailableError(f"it needs a {NEVER_UNPACKED} other than the installed one")
        return names

    def _run(self, *command: str, cwd: Path | None = None) -> str:
        """Return what a command prints. Raises UnavailableError with its first error."""
        try:
            done = subprocess.run(
                command,
                cwd=cwd,
                env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=max(1.0, self._ends_at - time.monotonic()),
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UnavailableError(f"{command[0]} took too long") from None
        if done.returncode != 0:
            errors = re.findall(r"^E: (.+)", done.stderr, re.MULTILINE) or done.stderr.splitlines()
            raise UnavailableError(errors[0] if errors else f"{command[0]} failed")
        return done.stdout

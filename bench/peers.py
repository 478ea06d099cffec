"""Installs the peers in bench/.work, and wrk from Debian."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bench import WORK
from bench.processes import CannotMeasure

FASTAPI = ("fastapi", "uvicorn[standard]")
KNOCKER = ("knockerlite", "flask", "gunicorn")
HTTPX = ("httpx",)
GRANIAN = ("granian",)  # it runs our handler, with the packages of this environment
VERSIONS = {"fastapi", "uvicorn", "knockerlite", "httpx", "granian"}  # those that are reported
EXPRESS = ("express", "better-sqlite3")
APT_WITHIN, PIP_WITHIN, NPM_WITHIN = 240.0, 300.0, 420.0  # seconds


@dataclass
class Peers:
    """The location of each peer, and the reasons for those that could not be installed.

    The location is a Python that has the package installed, the program, or the folder with
    node_modules.
    """

    places: dict[str, Path] = field(default_factory=dict)
    why_not: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def place(self, name: str) -> Path:
        """Return the location. Raises CannotMeasure with the reason if it is not installed."""
        if name not in self.places:
            raise CannotMeasure(f"could not be installed: {self.why_not.get(name, 'not tried')}")
        return self.places[name]


def install() -> Peers:
    """Install missing peers, concurrently where possible. Failures are recorded, not raised."""
    WORK.mkdir(exist_ok=True)
    peers = Peers()
    steps: dict[str, Callable[[], Path]] = {
        "fastapi": lambda: _python("fastapi", Path(sys.executable), FASTAPI),
        "knocker": lambda: _python("knocker", _python_312(), KNOCKER),
        "httpx": lambda: _python("httpx", Path(sys.executable), HTTPX),
        "granian": lambda: _python("granian", Path(sys.executable), GRANIAN),
        "express": _express,
    }
    with ThreadPoolExecutor(len(steps)) as pool:
        running = {name: pool.submit(step) for name, step in steps.items()}
        for name, step in {"wrk": _wrk, "webhook": _webhook}.items():  # apt runs one at a time
            _settle(peers, name, step)
        for name, future in running.items():
            _settle(peers, name, future.result)
    _note_versions(peers)
    return peers


def _settle(peers: Peers, name: str, step: Callable[[], Path]) -> None:
    try:
        peers.places[name] = step()
    except (CannotMeasure, OSError) as error:
        peers.why_not[name] = str(error)


def _wrk() -> Path:
    if found := shutil.which("wrk"):
        return Path(found)
    if os.geteuid() != 0:
        raise CannotMeasure("not root; install it with: apt-get install wrk")
    _update_apt()
    apt = ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "wrk")
    _run(apt, APT_WITHIN)
    return Path(shutil.which("wrk") or "")


def _webhook() -> Path:
    """Install Debian's program without its service, which would start automatically."""
    program = WORK / "webhook" / "usr" / "bin" / "webhook"
    if program.exists():
        return program
    if os.geteuid() == 0:
        _update_apt()
    folder = WORK / "webhook"
    folder.mkdir(exist_ok=True)
    _run(("apt-get", "download", "webhook"), APT_WITHIN, folder)
    for package in folder.glob("webhook_*.deb"):
        _run(("dpkg-deb", "--extract", package, folder), 60)
    return program


def _update_apt() -> None:
    if not list(Path("/var/lib/apt/lists").glob("*Packages*")):
        _run(("apt-get", "update", "--quiet"), APT_WITHIN)


def _python(name: str, python: Path, packages: Sequence[str]) -> Path:
    """Create a virtual environment with these packages; return its Python."""
    folder = WORK / name
    installed, its_python = folder / "installed", folder / "bin" / "python"
    if installed.exists() and installed.read_text() == "\n".join(packages):
        return its_python
    shutil.rmtree(folder, ignore_errors=True)
    _run((python, "-m", "venv", folder), PIP_WITHIN)
    quiet = ("--quiet", "--disable-pip-version-check", "--only-binary", ":all:")
    _run((its_python, "-m", "pip", "install", *quiet, *packages), PIP_WITHIN)
    installed.write_text("\n".join(packages))
    return its_python


def _python_312() -> Path:
    """Install Knocker, which has wheels for Python 3.12 only."""
    named = shutil.which("python3.12")
    homes = sorted(Path.home().glob(".pyenv/versions/3.12*/bin/python3.12"))
    for python in [*([Path(named)] if named else []), *homes]:
        tried = subprocess.run([python, "-c", ""], capture_output=True, check=False)
        # a command on the PATH may be a stub that only reports a missing package
        if tried.returncode == 0:
            return python
    raise CannotMeasure("its wheel needs Python 3.12, which is not installed")


def _express() -> Path:
    folder = WORK / "express"
    addon = folder / "node_modules/better-sqlite3/build/Release/better_sqlite3.node"
    if addon.exists():
        return folder
    if not shutil.which("npm"):
        raise CannotMeasure("npm is missing; install it with: apt-get install nodejs npm")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / "package.json").write_text(json.dumps({"name": "peers", "private": True}))
    _run(("npm", "install", "--no-audit", "--no-fund", *EXPRESS), NPM_WITHIN, folder)
    if not addon.exists():
        raise CannotMeasure("npm did not build better-sqlite3; see bench/.work/install.log")
    return folder


def _run(command: Sequence[str | Path], seconds: float, cwd: Path = WORK) -> None:
    """Run a command. Raises CannotMeasure with the last line of its output."""
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words, cwd=cwd, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        raise CannotMeasure(f"{words[0]} took longer than {seconds:g} s") from None
    with (WORK / "install.log").open("a") as log:
        log.write(f"$ {' '.join(words)}\n{done.stdout}{done.stderr}\n")
    if done.returncode:
        lines = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()
        raise CannotMeasure(f"{Path(words[0]).name} failed: {lines[-1][:200]}")


def _note_versions(peers: Peers) -> None:
    for place in peers.places.values():
        if place.name == "python":
            found = json.loads(_said(place, "-m", "pip", "list", "--format", "json") or "[]")
            peers.versions |= {p["name"]: p["version"] for p in found if p["name"] in VERSIONS}
    if express := peers.places.get("express"):
        for name in EXPRESS:
            package = json.loads((express / "node_modules" / name / "package.json").read_text())
            peers.versions[name] = package["version"]
        peers.versions["node"] = _said("node", "--version").lstrip("v")
    if webhook := peers.places.get("webhook"):
        peers.versions["webhook"] = _said(webhook, "-version").rpartition(" ")[2]
    if sqlite := shutil.which("sqlite3"):
        peers.versions["sqlite3 (command)"] = _said(sqlite, "--version").partition(" ")[0]


def _said(*command: str | Path) -> str:
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run(
            command, capture_output=True, text=True, timeout=60, check=False
        ).stdout.strip()
    return ""

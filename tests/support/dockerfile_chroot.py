"""Runs the steps of the Dockerfile in a chroot, where there is no container daemon.

`sudo python -m tests.support.dockerfile_chroot FOLDER` needs root and debootstrap. It makes a
Debian with the image's version of Python in FOLDER unless there is one, runs the steps, starts the
container's command, waits until its health check passes, and stops it.

Not the same as in Docker: the base image is Debian's Python in a virtual environment, the packages
of requirements.txt are downloaded outside of the chroot, and the network is the machine's.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from packaging.markers import Marker

from tests.support.patience import PATIENCE, wait_until
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
SUITES = {"3.13": "trixie"}  # the release of Debian with this version of Python
PACKAGES = "python3,python3-venv,ca-certificates"
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
WHEELS = "/tmp/wheels"  # noqa: S108 - in the chroot


def steps() -> Iterator[tuple[str, str]]:
    """Yield the instructions of the Dockerfile with their arguments."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            instruction, _, arguments = line.partition(" ")
            yield instruction, arguments.strip()


def locked(version: str) -> list[str]:
    """Return the packages of requirements.txt for a version of Python."""
    pins = re.findall(
        r"^([a-z0-9._-]+==\S+)(?: ; (.*?))?(?: \\)?$",
        (ROOT / "requirements.txt").read_text(),
        re.MULTILINE,
    )
    python = {"python_version": version, "python_full_version": f"{version}.0"}
    return [pin for pin, marker in pins if not marker or Marker(marker).evaluate(python)]


class Chroot:
    """A folder in which the instructions of a Dockerfile are carried out."""

    def __init__(self, folder: Path, mirror: str | None) -> None:
        self._base, self._folder, self._mirror = folder / "base", folder / "root", mirror
        self._workdir, self._user = "/", "root"
        self._environment = {"PATH": PATH, "HOME": "/tmp"}  # noqa: S108 - in the chroot
        self.healthcheck = ""
        self.command: list[str] = []

    def carry_out(self, instruction: str, arguments: str) -> None:
        print(f"{instruction} {arguments}", flush=True)
        match instruction:
            case "FROM":
                self._make(arguments.partition(":")[2].partition("-")[0])
            case "WORKDIR":
                self._workdir = arguments
                self._inside(arguments).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(*arguments.split())
            case "RUN":
                self.run(arguments)
            case "USER":
                self._user = arguments
            case "ENV":
                self._environment |= dict(one.split("=", 1) for one in shlex.split(arguments))
            case "HEALTHCHECK":
                self.healthcheck = arguments.partition("CMD ")[2]
            case "CMD":
                self.command = json.loads(arguments)
            case "VOLUME" | "EXPOSE":
                pass  # nothing to do in a chroot
            case _:
                raise SystemExit(f"no step for {instruction}")

    def run(self, line: str) -> None:
        """Run a line as the present user; it must end with status 0."""
        subprocess.run(self._chroot(["/bin/sh", "-c", line]), env=self._environment, check=True)

    def start(self, port: int) -> subprocess.Popen[bytes]:
        """Start the command of the image, as the daemon does."""
        self._environment["PORT"] = str(port)
        return subprocess.Popen(self._chroot(self.command), env=self._environment)

    def is_healthy(self) -> bool:
        command = self._chroot(["/bin/sh", "-c", self.healthcheck])
        done = subprocess.run(command, env=self._environment, capture_output=True, check=False)
        return done.returncode == 0

    def _chroot(self, command: list[str]) -> list[str]:
        user = [] if self._user == "root" else [f"--userspec={self._user}:{self._user}"]
        inside = ["/bin/sh", "-c", 'cd "$0" && exec "$@"', self._workdir, *command]
        return ["chroot", *user, str(self._folder), *inside]

    def _make(self, version: str) -> None:
        if not (self._base / "bin/sh").exists():
            options = ["--variant=minbase", f"--include={PACKAGES}"]
            mirror = [self._mirror] if self._mirror else []
            suite = SUITES[version]
            command = ["debootstrap", *options, suite, str(self._base), *mirror]
            subprocess.run(command, check=True)
        if self._folder.exists():
            shutil.rmtree(self._folder)
        subprocess.run(["cp", "--archive", str(self._base), str(self._folder)], check=True)  # noqa: S607
        self.run("python3 -m venv /usr/local")
        wheels = self._folder / WHEELS.lstrip("/")
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        chosen = ["--only-binary=:all:", "--python-version", version, "--dest", str(wheels)]
        subprocess.run([*pip, *chosen, *locked(version)], check=True)
        self._environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": WHEELS}

    def _copy(self, *names: str) -> None:
        *sources, target = names
        for name in sources:
            source, destination = ROOT / name, self._inside(target)
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, destination, ignore=ignored, dirs_exist_ok=True)
            else:
                shutil.copy(source, destination)

    def _inside(self, path: str) -> Path:
        return self._folder / os.path.normpath(f"{self._workdir}/{path}").lstrip("/")


def main(folder: str, mirror: str | None = None) -> None:
    chroot = Chroot(Path(folder).resolve(), mirror)
    for instruction, arguments in steps():
        chroot.carry_out(instruction, arguments)
    chroot.run("touch /data/hooks.toml")
    process = chroot.start(free_port())
    wait_until(lambda: process.poll() is not None or chroot.is_healthy())
    if process.poll() is not None:
        raise SystemExit(f"the command ended with status {process.returncode}")
    print("The health check passes; SIGTERM", flush=True)
    process.terminate()
    print(f"The command ended with status {process.wait(PATIENCE)}")


if __name__ == "__main__":
    main(*sys.argv[1:])

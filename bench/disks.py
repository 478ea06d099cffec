"""The disk that all variants write to: this machine's, optionally with a slower fsync."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import ROOT
from bench.processes import CannotMeasure

SYNCS = 100
MEASURE = f"""
import os, tempfile, time
with tempfile.TemporaryFile(dir=".") as file:
    for _ in range({SYNCS}):
        os.write(file.fileno(), b"x" * 4096)
        began = time.perf_counter()
        os.fdatasync(file.fileno())
        print((time.perf_counter() - began) * 1000)
"""


@dataclass(frozen=True)
class Disk:
    """A disk. `slower_ms` is added to every fsync of a program that has `environment`."""

    slower_ms: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"fsync +{self.slower_ms} ms" if self.slower_ms else "this disk"


@contextmanager
def folder() -> Iterator[Path]:
    """Return a folder on disk, even if /tmp is in memory.

    Other users may read it: PostgreSQL runs as one.
    """
    if "TMPDIR" not in os.environ and Path("/var/tmp").is_dir():  # noqa: S108 - not to be guessed in
        tempfile.tempdir = "/var/tmp"  # noqa: S108
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def slower(ms: int, place: Path) -> Disk:
    """Compile the shim. Raises CannotMeasure if there is no C compiler."""
    if ms == 0:
        return Disk()
    shim = place / "slow_fsync.so"
    if not shim.exists():
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None:
            raise CannotMeasure("a slower disk needs a C compiler: apt-get install gcc libc6-dev")
        source = str(ROOT / "bench/slow_fsync.c")
        command = [compiler, "-shared", "-fPIC", "-O2", "-o", str(shim), source]
        done = subprocess.run([*command, "-ldl"], capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(f"{compiler}: {done.stderr.strip().splitlines()[-1]}")
    return Disk(ms, {"LD_PRELOAD": str(shim), "BENCH_FSYNC_US": str(ms * 1000)})


def fsync_ms(disk: Disk, place: Path) -> float:
    """Return the median duration of a sync of 4 kB there, which also proves that the shim works."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        env={**os.environ, **disk.environment},
        cwd=place,
        capture_output=True,
        text=True,
        check=True,
    )
    return statistics.median(map(float, done.stdout.split()))


@contextmanager
def under_us(disk: Disk) -> Iterator[None]:
    """Give processes started within the block this disk."""
    before = {name: os.environ.get(name) for name in disk.environment}
    os.environ.update(disk.environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

"""Runs the demo as a user does, and returns its output and its temporary files."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.installation import ROOT
from tests.support.patience import PATIENCE

# A setting that is meant for a real receiver must not affect it.
NOT_FOR_IT = {"DATABASE_URL": "sqlite:////nowhere/real.db", "PUBLIC_URL": "https://shop.example"}


@dataclass(frozen=True)
class Played:
    """The output of a demo; `folder` is where its temporary files were created."""

    folder: Path
    status: int
    printed: str
    complained: str


def play(folder: Path, *more: str) -> Played:
    done = subprocess.run(
        [sys.executable, "-m", "sandbox", "demo", *more],
        cwd=ROOT,
        env={
            "PATH": "/usr/bin:/bin",
            "TMPDIR": str(folder),
            "DEMO_PROGRESS_WITHIN": str(PATIENCE),
            **NOT_FOR_IT,
        },
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE,  # the demo has no limit; pytest-timeout's is 5 * PATIENCE
        check=False,
    )
    return Played(folder, done.returncode, done.stdout, done.stderr)

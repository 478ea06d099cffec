"""The demo as a user runs it, from beginning to end, and what it left behind."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.installation import ROOT
from tests.support.patience import PATIENCE

# A setting meant for a real receiver must not reach it.
NOT_FOR_IT = {"DATABASE_URL": "sqlite:////nowhere/real.db", "PUBLIC_URL": "https://shop.example"}


@dataclass(frozen=True)
class Played:
    """What it printed; `folder` is where its temporary files were made."""

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
        timeout=4 * PATIENCE,  # it has no limit in total; pytest-timeout's is 5 * PATIENCE
        check=False,
    )
    return Played(folder, done.returncode, done.stdout, done.stderr)

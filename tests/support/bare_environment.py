"""Runs programs as on another machine, with nothing of our environment."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.patience import PATIENCE


def run(*command: str, cwd: Path) -> str:
    """Run a command without our environment, and return its output; expects status 0."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TMPDIR": str(cwd)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=3 * PATIENCE,  # some of them take long
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout

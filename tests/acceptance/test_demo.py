"""`make demo` as a user runs it: ends by itself, says what it saw, leaves nothing running."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from installation import ROOT, both_stores


def processes_of(folder: str) -> list[str]:
    """The command lines of running processes that name this folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if folder.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it ended meanwhile, or is not ours
    return found


@both_stores
def test_the_demo(tmp_path: Path, database: str | None) -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sandbox",
            "demo",
            *(["--database-url", database] if database else []),
        ],
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    last = done.stdout.splitlines()[-1]
    assert last == "demo: 3 tasks, 2 succeeded, 1 failed, 8 deliveries delivered, 0 dead"
    assert "Traceback" not in done.stdout + done.stderr
    for told in ("submitted", "callback", "pictures delivered", "mail delivered"):
        assert told in done.stdout
    pictures = [line.split()[-1] for line in done.stdout.splitlines() if "picture  " in line]
    assert len(pictures) == 2
    assert all(Path(picture).is_file() for picture in pictures)
    assert processes_of(str(tmp_path)) == []

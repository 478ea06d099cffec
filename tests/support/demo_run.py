"""Runs the demo as a user does, and checks its output and what it leaves."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.support import processes
from tests.support.patience import PATIENCE

LIMIT = 4 * PATIENCE  # seconds; the demo has no limit; pytest-timeout's is 5 * PATIENCE
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
    """Run the demo of the checkout, whose processes are forked if the run has a fork server."""
    command, env = ["sandbox", "demo", *more], _environment(folder)
    if processes.SERVER in os.environ:
        env[processes.SERVER] = os.environ[processes.SERVER]  # for the processes of the demo
    return _played(folder, processes.run(command, env, timeout=LIMIT))


def play_with(program: Path, folder: Path) -> Played:
    """Run the demo with an installed `sandbox`, as a user runs it."""
    done = subprocess.run(
        [str(program), "demo"],
        cwd=folder,
        env=_environment(folder) | {"HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    return _played(folder, done)


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": "/usr/bin:/bin",
        "TMPDIR": str(folder),
        "DEMO_PROGRESS_WITHIN": str(PATIENCE),
        **NOT_FOR_IT,
    }


def _played(folder: Path, done: subprocess.CompletedProcess[str]) -> Played:
    return Played(folder, done.returncode, done.stdout, done.stderr)


def check_success(demo: Played) -> None:
    """Check what the demo printed, the files that it left, and that it left no process."""
    output = demo.printed + demo.complained
    assert demo.status == 0, output
    lines = demo.printed.splitlines()
    assert lines[-1] == "demo: 3 tasks, 2 succeeded, 1 failed, 7 deliveries delivered, 0 dead"
    assert "Traceback" not in output
    for expected in ("submitted", "callback", "pictures delivered", "mail delivered"):
        assert expected in demo.printed
    found = re.search(r"^These files remain in (.+):$", demo.printed, re.MULTILINE)
    assert found
    names = [
        line.split()[-1] for line in lines if re.match("  (picture|e-mail|Slack|events|log) ", line)
    ]
    assert len(names) == 6  # two of them are pictures
    assert all(any(file.is_file() for file in Path(found[1]).glob(name)) for name in names)
    _check_recorded_times(demo.printed)
    assert processes_of(str(demo.folder)) == []


def _check_recorded_times(printed: str) -> None:
    """Check that the events of the first task have the same times as in its timeline."""
    lines = printed.splitlines()
    shown = [re.fullmatch(r" *(\d+\.\d) s  DEMO-1 +(\w.*)", line) for line in lines]
    what = r"created|submitted|processing|succeeded|\w+ delivered"
    recorded = [re.match(rf" *\+(\d+\.\d{{3}}) s +({what})\b", line) for line in lines]
    expected = [(f"{float(one[1]):.1f}", one[2]) for one in recorded if one]
    assert sorted((one[1], " ".join(one[2].split())) for one in shown if one) == sorted(expected)
    assert len(expected) == 7


def processes_of(folder: str) -> list[str]:
    """Return the command lines of running processes of the demo in this folder.

    Their environment names the folder, unless they were forked; their output goes to a file there.
    """
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            files = [str(path.readlink()) for path in (process / "fd").iterdir()]
            names_it = folder.encode() in (process / "environ").read_bytes()
            if names_it or any(file.startswith(f"{folder}/") for file in files):
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended, or belongs to another user
    return found

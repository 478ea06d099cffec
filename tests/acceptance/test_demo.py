"""`make demo` as a user runs it: ends by itself, says what it saw, leaves nothing running."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.support.demo_run import Played, play


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


def test_the_demo(demo: Played) -> None:
    ends_well(demo)


def test_the_demo_on_postgresql(tmp_path: Path, fresh: Callable[[], str]) -> None:
    ends_well(play(tmp_path, "--database-url", fresh()))


def ends_well(demo: Played) -> None:
    said = demo.printed + demo.complained
    assert demo.status == 0, said
    lines = demo.printed.splitlines()
    assert lines[-1] == "demo: 3 tasks, 2 succeeded, 1 failed, 8 deliveries delivered, 0 dead"
    assert "Traceback" not in said
    for told in ("submitted", "callback", "pictures delivered", "mail delivered"):
        assert told in demo.printed
    pictures = [line.split()[-1] for line in lines if "picture  " in line]
    assert len(pictures) == 2
    assert all(Path(picture).is_file() for picture in pictures)
    assert processes_of(str(demo.folder)) == []

"""`make demo` as a user runs it: it ends by itself, prints the events, and leaves no process."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.support.demo_run import Played, play


def processes_of(folder: str) -> list[str]:
    """Return the command lines of running processes that name this folder in their environment."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if folder.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue  # it has ended, or belongs to another user
    return found


def test_the_demo_succeeds(demo: Played) -> None:
    check_success(demo)


def test_the_demo_succeeds_on_postgresql(tmp_path: Path, fresh: Callable[[], str]) -> None:
    check_success(play(tmp_path, "--database-url", fresh()))


def check_success(demo: Played) -> None:
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
    check_recorded_times(demo.printed)
    assert processes_of(str(demo.folder)) == []


def check_recorded_times(printed: str) -> None:
    """Check that the events of the first task have the same times as in its timeline."""
    lines = printed.splitlines()
    shown = [re.fullmatch(r" *(\d+\.\d) s  DEMO-1 +(\w.*)", line) for line in lines]
    what = r"created|submitted|processing|succeeded|\w+ delivered"
    recorded = [re.match(rf" *\+(\d+\.\d{{3}}) s +({what})\b", line) for line in lines]
    expected = [(f"{float(one[1]):.1f}", one[2]) for one in recorded if one]
    assert sorted((one[1], " ".join(one[2].split())) for one in shown if one) == sorted(expected)
    assert len(expected) == 7


def test_no_line_of_the_demo_is_wider_than_80_columns(demo: Played) -> None:
    """The timeline is excluded, which `receiver tasks show` prints."""
    printed = demo.printed.replace(str(demo.folder), "/tmp")  # noqa: S108 - the usual folder
    lines = [line for line in printed.splitlines() if not re.match(r" *\+\d+\.\d{3} s ", line)]
    assert len(lines) > 30
    assert [line for line in lines if len(line) > 80] == []

"""The command hook with real processes: their input, their end, and their remains."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from receiver.deliveries import File
from receiver.errors import (
    ContentFailure,
    PermanentFailure,
    SettingsError,
    TemporaryFailure,
    TimedOut,
)
from receiver.events import Media
from receiver.hooks import command as command_hook
from receiver.hooks.command import MAX_OUTPUT, Command
from tests.support.hook_servers import notice
from tests.support.patience import PATIENCE, wait_until

FOR_EVER = min(10 * PATIENCE, 3600)  # seconds; a failing test fails earlier than this


def command(script: str, *arguments: str, **more: Any) -> Command:
    options = {"command": [sys.executable, "-c", script, *arguments], **more}
    return Command("shop", options)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().split()[2] == "Z"


def test_the_event_is_passed_on_standard_input(tmp_path: Path) -> None:
    script = "import sys, pathlib; pathlib.Path(sys.argv[1]).write_bytes(sys.stdin.buffer.read())"
    told = notice(media=(Media("image", "https://cdn.example/0.png"),))
    done = command(script, str(tmp_path / "event")).send(told)
    assert json.loads((tmp_path / "event").read_text()) == told.as_json()
    assert done.answer == "exit status 0"


def test_its_environment_has_the_essentials_and_none_of_our_settings(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CALLBACK_SECRETS", "a-secret-for-the-tests-only")
    monkeypatch.setenv("KLING_API_KEY", "another")
    file = File("0", "/data/0.png", "ab" * 32, 3, "image/png")
    told = notice(media=(Media("image", "https://cdn.example/0.png"),)).with_files((file,))
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    answer = command(script, env={"SHOP_KEY": "for the command"}).send(told).answer
    found = json.loads(answer.partition(": ")[2])
    assert {name: text for name, text in found.items() if name.startswith("CALLBACK_")} == {
        "CALLBACK_EVENT_ID": "0199f1a2:succeeded",
        "CALLBACK_EVENT_TYPE": "task.succeeded",
        "CALLBACK_TASK_ID": "0199f1a2",
        "CALLBACK_PROVIDER": "kling",
        "CALLBACK_STATUS": "succeeded",
        "CALLBACK_REFERENCE": "ORDER-7",
        "CALLBACK_FILE": "/data/0.png",
    }
    assert found["SHOP_KEY"] == "for the command"
    assert "KLING_API_KEY" not in found
    assert "PATH" in found


def test_arguments_are_not_interpreted_by_a_shell(tmp_path: Path) -> None:
    script = "import sys; print(sys.argv[1])"
    argument = f"$(touch {tmp_path}/harm); `id` > {tmp_path}/harm"
    assert argument in command(script, argument).send(notice()).answer
    assert list(tmp_path.iterdir()) == []


ENDS = [
    ("import sys; sys.exit(69)", TemporaryFailure, "exit status 69"),
    ("import sys; sys.exit(75)", TemporaryFailure, "exit status 75"),
    ("import sys; sys.exit(1)", ContentFailure, "exit status 1"),
    ("import sys; sys.exit(255)", ContentFailure, "exit status 255"),
    ("import sys; sys.exit(65)", PermanentFailure, "exit status 65"),
    ("import sys; sys.exit('no such order')", ContentFailure, "exit status 1: no such order"),
    ("import os; os.kill(os.getpid(), 9)", TemporaryFailure, "killed by SIGKILL"),
    ("import os; os.kill(os.getpid(), 15)", TemporaryFailure, "killed by SIGTERM"),
]


@pytest.mark.parametrize(("script", "family", "says"), ENDS)
def test_the_exit_status_decides(script: str, family: type[Exception], says: str) -> None:
    with pytest.raises(family) as caught:
        command(script).send(notice())
    assert type(caught.value) is family
    assert str(caught.value) == says


@pytest.mark.parametrize("program", ["/nowhere/at-all", "/etc/passwd", "/"])
def test_a_command_that_cannot_be_started_is_retried(program: str) -> None:
    with pytest.raises(TemporaryFailure, match=program):
        Command("shop", {"command": [program]}).send(notice())


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(TemporaryFailure, match="/nowhere"):
        command("", cwd="/nowhere").send(notice())


def test_a_command_that_does_not_end_is_killed_with_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time limit is reached once the command has started a child and reported it."""
    script = (
        "import os, pathlib, signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "path = pathlib.Path(sys.argv[1]) / 'draft'\n"
        "path.write_text(f'{os.getpid()} {child.pid}')\n"
        "path.rename(path.with_name('pids'))\n"
        "print('began', flush=True)\n"
        "signal.pause()"
    )
    clock = SimpleNamespace(monotonic=lambda: 2.0 * (tmp_path / "pids").exists())
    monkeypatch.setattr(command_hook, "time", clock)
    with pytest.raises(TimedOut, match=r"did not end within 1\.5 s, and was killed"):
        command(script, str(tmp_path), deadline=1.5).send(notice())
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: all(map(gone, pids)))


def test_a_child_left_running_does_not_delay_the_attempt(tmp_path: Path) -> None:
    """The command ends immediately, but its child keeps the output open."""
    script = (
        "import pathlib, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "pathlib.Path(sys.argv[1]).write_text(str(child.pid))\n"
        "print('done')"
    )
    done = command(script, str(tmp_path / "pid"), deadline=FOR_EVER).send(notice())
    assert done.answer == "exit status 0: done"
    pid = int((tmp_path / "pid").read_text())
    wait_until(lambda: gone(pid))


def test_gigabytes_of_output_are_truncated(tmp_path: Path) -> None:
    script = "import os\nfor _ in range(400): os.write(1, b'x' * 1_000_000)"
    answer = command(script).send(notice()).answer
    assert len(answer) < MAX_OUTPUT + 100
    assert list(tmp_path.iterdir()) == []


def test_a_command_need_not_read_its_input() -> None:
    told = notice(reason="x" * 1_000_000)  # more than the buffer of a pipe
    assert command("").send(told).answer == "exit status 0"


def test_output_that_is_not_utf8_is_kept_as_far_as_possible() -> None:
    answer = command("import os; os.write(1, b'\\xff\\x00 ok \\x1b[2J')").send(notice()).answer
    assert "ok" in answer
    assert answer.isprintable()


def test_a_reference_with_a_nul_does_not_prevent_the_command() -> None:
    script = "import os; print(os.environ['CALLBACK_REFERENCE'])"
    assert command(script).send(notice(reference="a\0b")).answer == "exit status 0: ab"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "command"),
        ({"command": []}, "is empty"),
        ({"command": "rm -rf /"}, "command"),
        ({"command": [7]}, "command"),
        ({"command": ["a\0b"]}, "NUL"),
        ({"command": ["a"], "env": {"A=B": "c"}}, "is not a variable's name"),
        ({"command": ["a"], "env": {"A": 7}}, "env"),
        ({"command": ["a"], "deadline": 0}, "deadline"),
    ],
)
def test_an_invalid_option_is_named(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        Command("shop", options)
    assert says in str(caught.value)


def test_an_object_on_standard_output_becomes_the_output() -> None:
    script = """
import json, sys
print("cutting", file=sys.stderr, flush=True)
print(json.dumps({"url": "https://cdn.example/cut.png", "event": json.load(sys.stdin)["id"]}))
"""
    done = command(script).send(notice())
    assert done.output == {"url": "https://cdn.example/cut.png", "event": notice().id}
    assert done.answer.startswith("exit status 0: cutting")


def test_an_object_on_standard_error_is_not_returned() -> None:
    script = "import sys; print('{}', file=sys.stderr); print('done')"
    done = command(script).send(notice())
    assert done.output == {}
    assert "done" in done.answer


def test_what_an_endless_command_prints_is_limited() -> None:
    script = "import sys\nfor _ in range(3000): sys.stdout.write('{' + 'x' * 999)"
    done = command(script).send(notice())
    assert done.output == {}
    assert "more than" in done.answer

"""What the demo starts it also ends, and what goes wrong there is a named step."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandbox.demo import processes
from sandbox.demo.processes import Commands, Deadline, Program, StepError
from tests.support.sandbox_client import wait_for

STUBBORN = "import signal,time;signal.signal(15,signal.SIG_IGN);print('up');time.sleep(60)"


def timed(code: str) -> tuple[str, ...]:
    """The arguments that make `python -m` run a line of code once."""
    return ("timeit", "-n", "1", "-r", "1", code)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_command_gives_what_it_printed() -> None:
    commands = Commands({"DEMO_SETTING": "x"}, Deadline(20))
    assert commands.run(*timed("import os; print(os.environ['DEMO_SETTING'])")).startswith("x\n")


def test_settings_of_a_real_receiver_do_not_reach_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KLING_API_KEY", "a real one")
    assert "KLING_API_KEY" not in processes.environment({})
    assert processes.environment({})["PATH"] == os.environ["PATH"]


def test_a_failing_command_is_a_step_with_its_output() -> None:
    with pytest.raises(StepError, match=r"ended with status 1(.|\n)*No module named no_such"):
        Commands({}, Deadline(20)).run("no_such")


def test_a_command_past_the_deadline_is_ended() -> None:
    began = time.monotonic()
    with pytest.raises(StepError, match="did not end in time"):
        Commands({}, Deadline(0.3)).run(*timed("import time; time.sleep(60)"))
    assert time.monotonic() - began < 10


def test_a_program_runs_until_the_end_of_the_with(tmp_path: Path) -> None:
    with Program(tmp_path / "log", {}, "http.server", "0", "--bind", "127.0.0.1") as program:
        wait_for(lambda: "Serving HTTP" in program.tail())
        program.check()
        pid = program.pid
        assert is_alive(pid)
    assert not is_alive(pid)


def test_a_program_that_ended_by_itself_is_noticed(tmp_path: Path) -> None:
    def has_ended() -> bool:
        try:
            program.check()
        except StepError as ended:
            return "`no_such` ended by itself with status 1" in str(ended)
        return False

    with Program(tmp_path / "log", {}, "no_such") as program:
        wait_for(has_ended)
    assert "No module named no_such" in program.tail()


def test_a_program_deaf_to_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PATIENCE", 0.2)
    with Program(tmp_path / "log", {}, *timed(STUBBORN)) as program:
        wait_for(lambda: "up" in program.tail())
        pid = program.pid
    assert not is_alive(pid)

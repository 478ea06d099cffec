"""The demo stops everything that it starts, and reports failures as named steps."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from sandbox.demo import processes
from sandbox.demo.processes import Commands, Program
from sandbox.demo.progress_deadline import StepError
from sandbox.demo.setup import reserve_port
from tests.support.patience import PATIENCE, wait_until

WAITS = "import threading;threading.Event().wait()"
STUBBORN = f"import signal;signal.signal(15,signal.SIG_IGN);print('up');{WAITS}"
LIMIT = 3600  # seconds
STEPS = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1])
for step in range(4):
    print(step, flush=True)
    (folder / f"printed-{step}").touch()
    while not (folder / f"go-on-{step}").exists():
        time.sleep(0.01)
"""


def timed(code: str) -> tuple[str, ...]:
    """Return the arguments that make `python -m` run a line of code once."""
    return ("timeit", "-n", "1", "-r", "1", code)


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_command_returns_its_output() -> None:
    commands = Commands({"DEMO_SETTING": "x"}, PATIENCE)
    assert commands.run(*timed("import os; print(os.environ['DEMO_SETTING'])")).startswith("x\n")


def test_settings_of_a_real_receiver_do_not_affect_the_demo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("KLING_API_KEY", "a real one")
    assert "KLING_API_KEY" not in processes.environment({})
    assert processes.environment({})["PATH"] == os.environ["PATH"]


def test_a_failing_command_is_a_step_with_its_output() -> None:
    with pytest.raises(StepError, match=r"ended with status 1(.|\n)*No module named no_such"):
        Commands({}, PATIENCE).run("no_such")


def test_a_command_without_new_output_is_killed_at_the_limit(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"import os;print('at work',flush=True);open({str(file)!r},'w').write(str(os.getpid()))"
    looks = 0

    def clock() -> float:
        """Let an hour pass with each check, once the output of the command has been read."""
        nonlocal looks
        looks += file.exists() and file.read_text() != ""
        return LIMIT * max(0, looks - 4)

    with pytest.raises(StepError, match="neither ended nor printed anything for 3600 s") as raised:
        Commands({}, LIMIT, clock).run(*timed(f"{code};{WAITS}"))
    assert "    at work" in str(raised.value)
    assert "--progress-within" in str(raised.value)
    assert not is_alive(int(file.read_text()))


def test_a_command_that_continues_to_print_has_no_total_limit(tmp_path: Path) -> None:
    (tmp_path / "steps.py").write_text(STEPS)
    now = looks = step = 0

    def clock() -> float:
        """Let nearly an hour pass after each step; the next step begins after a check."""
        nonlocal now, looks, step
        looks += (tmp_path / f"printed-{step}").exists()
        if looks == 1:
            now += LIMIT - 1
        if looks == 4:
            (tmp_path / f"go-on-{step}").touch()
            looks, step = 0, step + 1
        return now

    settings = {"PYTHONPATH": str(tmp_path)}
    assert Commands(settings, LIMIT, clock).run("steps", str(tmp_path)) == "0\n1\n2\n3\n"
    assert now > 3 * LIMIT


def test_a_program_runs_until_the_end_of_the_block(tmp_path: Path) -> None:
    with Program(tmp_path / "log", {}, "http.server", "0", "--bind", "127.0.0.1") as program:
        wait_until(lambda: "Serving HTTP" in program.tail(), program.tail)
        program.check()
        pid = program.pid
        assert is_alive(pid)
    assert not is_alive(pid)


def test_a_program_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    def has_ended() -> bool:
        try:
            program.check()
        except StepError as ended:
            said = f"`no_such` ended by itself with status 1; its output is in {tmp_path / 'log'}"
            return str(ended) == said
        return False

    with Program(tmp_path / "log", {}, "no_such") as program:
        wait_until(has_ended, program.tail)
    assert "No module named no_such" in program.tail()


def test_a_program_that_ignores_sigterm_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "STOPPED_WITHIN", 0.2)
    with Program(tmp_path / "log", {}, *timed(STUBBORN)) as program:
        wait_until(lambda: "up" in program.tail(), program.tail)
        pid = program.pid
    assert not is_alive(pid)


def test_no_other_program_gets_the_reserved_port() -> None:
    with (
        reserve_port() as reserved,
        socket.socket() as other,
        pytest.raises(OSError, match="in use"),
    ):
        other.bind(reserved.getsockname())


def test_the_receiver_gets_each_connection_to_the_reserved_port() -> None:
    with reserve_port() as reserved:
        address = reserved.getsockname()
        with socket.create_server(address, reuse_port=True) as server:
            for _ in range(50):
                with socket.create_connection(address, timeout=PATIENCE) as client:
                    accepted, peer = server.accept()
                    accepted.close()
                    assert peer == client.getsockname()


def test_the_port_is_released_at_the_end() -> None:
    with reserve_port() as reserved:
        address = reserved.getsockname()
    with socket.create_server(address) as server:
        assert server.getsockname() == address

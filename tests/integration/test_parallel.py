"""Each test runs once in one of the processes, and the end of a process is noticed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import parallel
from tests.support.patience import PATIENCE

PLUGINS = ("-p", "tests.support.parallel", "-p", "no:cacheprovider")
TESTS = """
import os, pathlib, pytest

@pytest.fixture(scope="session", autouse=True)
def session(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    yield
    print("torn down", os.environ["TEST_PROCESS"], folder, file=open(os.environ["TORN_DOWN"], "a"))

@pytest.mark.parametrize("number", range(20))
def test_passes(number, tmp_path):
    print(os.environ["TEST_PROCESS"], number, file=open(os.environ["RAN"], "a"))

def test_fails(capsys):
    print("printed by it")
    assert [1, 2] == [1, 3]

def test_is_skipped():
    pytest.skip("no such thing")

@pytest.fixture
def broken():
    raise ValueError("no fixture")

def test_has_no_fixture(broken):
    pass
"""
KILLED = """
import os, pytest, signal

@pytest.mark.parametrize("number", range(3))
def test_kills_its_process(number):
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
"""
WAITS = """
import os, pytest, signal

@pytest.fixture(scope="module")
def server():
    yield
    print("stopped", file=open(os.environ["TORN_DOWN"], "a"))

def test_waits(server):
    print(f"\\n{os.getppid()}", file=open(1, "w", closefd=False), flush=True)
    while True:
        signal.sigtimedwait([], 1)
"""
INTERRUPTED = """
import os, signal

fork = os.fork

def fork_and_interrupt():
    pid = fork()
    if pid == 0:
        os.kill(os.getpid(), signal.SIGTERM)
    return pid

os.fork = fork_and_interrupt
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("RAN", "TORN_DOWN"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTEST_DEBUG_TEMPROOT", str(tmp_path))
    # Other plugins, with which every run of all tests uses this one, take half the time.
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    return tmp_path


def command(project: Path, *options: str) -> list[str]:
    folder = ("--rootdir", str(project), "--confcutdir", str(project), str(project))
    return [sys.executable, "-m", "pytest", *PLUGINS, *folder, "-c", os.devnull, *options]


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(project, *options), capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def test_each_test_runs_once_and_is_reported(project: Path) -> None:
    (project / "test_results.py").write_text(TESTS)
    done = run(project, "--processes", "3")
    assert "1 failed, 20 passed, 1 skipped, 1 error" in done.stdout
    assert "printed by it" in done.stdout
    assert "At index 1 diff: 2 != 3" in done.stdout
    assert "ValueError: no fixture" in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED
    ran = [line.split() for line in (project / "RAN").read_text().splitlines()]
    assert sorted(int(number) for _, number in ran) == list(range(20))
    torn_down = [line.split() for line in (project / "TORN_DOWN").read_text().splitlines()]
    assert {process for _, _, process, _ in torn_down} >= {process for process, _ in ran}
    assert len({folder for *_, folder in torn_down}) == len(torn_down)


def test_a_test_that_ends_its_process_fails_and_the_others_run(project: Path) -> None:
    (project / "tests/unit").mkdir(parents=True)
    (project / "tests/unit/test_killed.py").write_text(KILLED)
    done = run(project, "--processes", "1")
    assert "1 failed, 2 passed" in done.stdout
    assert "test_killed.py::test_kills_its_process[1]" in done.stdout
    assert f"ended with {-signal.SIGKILL} while it ran this test" in done.stdout


def test_the_tests_of_other_units_run_after_a_process_has_ended(project: Path) -> None:
    (project / "test_killed.py").write_text(KILLED)  # each of its tests is a unit
    (project / "test_results.py").write_text(TESTS)
    done = run(project, "--processes", "1")
    assert "2 failed, 22 passed, 1 skipped, 1 error" in done.stdout


def test_a_run_stops_at_the_first_failure_if_told_to(project: Path) -> None:
    (project / "test_results.py").write_text(TESTS.replace("range(20)", "range(200)"))
    (project / "test_aaa.py").write_text("def test_fails_first():\n    assert False\n")
    done = run(project, "--processes", "1", "-x")
    assert "1 failed" in done.stdout
    assert "200 passed" not in done.stdout
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_an_interrupted_test_has_started_is_stopped(project: Path, number: int) -> None:
    (project / "test_waits.py").write_text(WAITS)
    with subprocess.Popen(
        command(project, "-s", "--processes", "2"),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        next(line for line in process.stdout if line.strip() == str(process.pid))
        process.send_signal(number)
        process.stdout.read()
        assert process.wait(PATIENCE) == pytest.ExitCode.INTERRUPTED
    assert (project / "TORN_DOWN").read_text() == "stopped\n"


def test_a_process_that_is_interrupted_before_its_tests_leaves_the_others_alone(
    project: Path,
) -> None:
    (project / "conftest.py").write_text(INTERRUPTED)
    (project / "test_passes.py").write_text("def test_passes():\n    pass\n")
    done = run(project, "--processes", "1")
    assert "process-0 ended with 1 when its tests had ended" in done.stdout
    assert done.stdout.count("no tests ran") == 1  # it did not go on as the process that forked it


def test_parameters_of_a_quick_test_and_modules_of_a_group_stay_together() -> None:
    group = [name for name, of in parallel.TOGETHER.items() if of == "one broker of each kind"]
    assert len(group) > 1
    nodeids = [
        "tests/unit/test_tasks.py::test_one[a]",
        "tests/unit/test_tasks.py::test_one[b]",
        "tests/unit/test_tasks.py::test_two",
        *(f"{module}::test_one[{module}]" for module in group),
        "tests/acceptance/test_kill.py::test_one[a]",
        "tests/acceptance/test_kill.py::test_one[b]",
    ]
    together = list(range(3, 3 + len(group)))
    last = together[-1]
    assert parallel.units(nodeids) == [[0, 1], [2], together, [last + 1], [last + 2]]

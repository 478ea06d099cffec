"""A process that the fork server starts looks like one that an interpreter starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import processes
from tests.support.apps.interpreter import AFTER_IMPORTS
from tests.support.patience import PATIENCE, wait_until

PROBE = "tests.support.apps.interpreter"
PARENT = "tests.support.apps.parent"
HAS_SERVER_START = "has the server start"
ENDS = ("", "3", "is killed", "is interrupted", "names a problem", "cannot print")
UTF8_MODE = 14  # in sys.flags
PLAIN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
ENVIRONMENTS: dict[str, dict[str, str]] = {
    "of an installation": PLAIN | {"PYTHONUNBUFFERED": "1", "SETTING": "ä"},
    "with buffers and in another time zone": PLAIN | {"TZ": "Asia/Kolkata"},
}


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    """The server of the run, or one of this module if the run has none."""
    if processes.SERVER in os.environ:
        yield
    else:
        with processes.fork_server():
            yield


def executed(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m …` in a new interpreter."""
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=env,
        cwd=processes.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        start_new_session=True,
    )


def forked(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m …` in a forked process."""
    assert processes.can_be_forked(arguments, env)
    return processes.run(arguments, env)


def seen(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """Return what the process has seen of its interpreter, and how it ended."""
    found = json.loads(done.stdout)
    del found["executed_as"]
    return {"status": done.returncode, "errors": done.stderr, **found}


@cache
def seen_by_executed(environment: str) -> dict[str, Any]:
    """Return what a new interpreter with the imports of the fork server sees.

    The imports take 1 s of CPU time.
    """
    return seen(executed(ENVIRONMENTS[environment], PROBE, "0", AFTER_IMPORTS))


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_a_forked_process_sees_what_an_executed_one_sees(environment: str) -> None:
    ours = seen(forked(ENVIRONMENTS[environment], PROBE, "0", AFTER_IMPORTS))
    assert ours == seen_by_executed(environment)


@pytest.mark.parametrize("end", ENDS)
def test_a_forked_process_ends_as_an_executed_one(end: str) -> None:
    env = ENVIRONMENTS["with buffers and in another time zone"]
    ours, theirs = (one(env, PROBE, *([end] * bool(end))) for one in (forked, executed))
    assert ours.returncode == theirs.returncode
    assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:]


def test_a_child_that_a_forked_process_forks_sees_what_an_executed_one_sees() -> None:
    """The child inherits no handler, descriptor or session from its parent."""
    env = ENVIRONMENTS["of an installation"]
    ours, theirs = (
        seen(one(env, PARENT, "starts", PROBE, "0", AFTER_IMPORTS)) for one in (forked, executed)
    )
    for found in (ours, theirs):
        del found["environment"]["PASSED"]  # the number of the descriptor
        del found["flags"][UTF8_MODE]  # on only in a process that has set LC_CTYPE itself
    assert ours == theirs


def test_a_child_that_the_server_forks_for_a_process_sees_what_an_executed_one_sees() -> None:
    server = {processes.SERVER: os.environ[processes.SERVER]}
    env = ENVIRONMENTS["of an installation"] | server
    done = forked(env, PARENT, HAS_SERVER_START, PROBE, "0", AFTER_IMPORTS)
    assert "tests.support.fork_server" in json.loads(done.stdout)["executed_as"]
    ours = seen(done)
    assert server.items() <= ours["environment"].items()
    del ours["environment"][processes.SERVER]
    assert ours == seen_by_executed("of an installation")


@pytest.mark.parametrize("end", ["3", "fails"])
def test_a_child_that_a_forked_process_forks_ends_as_an_executed_one(end: str) -> None:
    env = ENVIRONMENTS["of an installation"]
    ours, theirs = (one(env, PARENT, "starts", PROBE, end) for one in (forked, executed))
    assert ours.returncode == theirs.returncode
    assert ours.stderr.splitlines()[-1:] == theirs.stderr.splitlines()[-1:]


@pytest.mark.parametrize("end", ["3", "fails"])
def test_a_child_that_the_server_forks_for_a_process_ends_as_an_executed_one(end: str) -> None:
    server = {processes.SERVER: os.environ[processes.SERVER]}
    env = ENVIRONMENTS["of an installation"] | server
    done = forked(env, PARENT, HAS_SERVER_START, PROBE, end)
    assert done.returncode == (3 if end == "3" else 1)
    assert done.stderr.splitlines()[-1:] == ["ZeroDivisionError: fails"][: end == "fails"]


def test_a_forked_process_prints_its_traceback() -> None:
    done = forked(PLAIN | {"PYTHONUNBUFFERED": "1"}, PROBE, "fails")
    assert done.returncode == 1
    assert done.stderr.endswith("ZeroDivisionError: fails\n")


def test_a_variable_that_the_interpreter_reads_at_its_start_needs_an_exec() -> None:
    assert processes.can_be_forked([PROBE], PLAIN)
    for name in ("PYTHONPATH", "PYTHONWARNINGS", "LANG", "LC_ALL", *processes.EXECUTED):
        assert not processes.can_be_forked([PROBE], PLAIN | {name: ""}), name


def test_a_module_that_replaces_a_function_before_its_import_needs_an_exec() -> None:
    for module in processes.REPLACE_BEFORE_IMPORT:
        assert find_spec(module)
        assert not processes.can_be_forked([module, "receiver", "worker"], PLAIN)


def test_a_forked_process_is_controlled_like_any_other(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with log.open("ab") as file:
        process = processes.start([PROBE, "waits"], PLAIN, file)
    wait_until(log.read_text)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0)
    assert process.poll() is None
    process.terminate()
    assert process.wait(PATIENCE) == process.poll() == -signal.SIGTERM
    process.kill()  # to a process that has ended, no signal is sent


def test_a_process_that_has_ended_is_not_reaped_before_its_end_was_seen(tmp_path: Path) -> None:
    """Otherwise a signal could reach another process, which got the same number."""
    with (tmp_path / "log").open("ab") as file:
        process = processes.start([PROBE], PLAIN, file)
    state = Path(f"/proc/{process.pid}/stat")
    wait_until(lambda: state.read_text().rpartition(")")[2].split()[0] == "Z")
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(PATIENCE) == 0
    wait_until(lambda: not state.exists())


def test_nothing_that_processes_must_not_share_is_imported_before_the_fork() -> None:
    """Such as the memory in which gunicorn's processes record that they have booted."""
    found = seen_by_executed("of an installation")
    assert found["threads"] == 1
    assert found["stateful"] == []


def test_a_wait_whose_time_is_over_only_looks(tmp_path: Path) -> None:
    """`subprocess` passes the rest of a time, which is negative when the time is over."""
    with (tmp_path / "log").open("wb") as log:
        process = processes.start([PROBE, "waits"], ENVIRONMENTS["of an installation"], log)
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(-1)
    finally:
        process.kill()
    assert process.wait(PATIENCE) == -signal.SIGKILL

"""A process that the fork server starts looks like one that an interpreter starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.support import fork_server, processes
from tests.support.apps.interpreter import BARE
from tests.support.patience import PATIENCE, wait_until

PROBE = "tests.support.apps.interpreter"
PARENT = "tests.support.apps.parent"
UTF8_MODE = 14  # in sys.flags
PLAIN = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
ENVIRONMENTS: dict[str, Mapping[str, str]] = {
    "of an installation": PLAIN | {"PYTHONUNBUFFERED": "1", "SETTING": "ä"},
    "with buffers": PLAIN,
    "in another time zone": PLAIN | {"TZ": "Asia/Kolkata"},
}


@pytest.fixture(scope="module", autouse=True)
def _server() -> Iterator[None]:
    """The server of the run, or one of this module if the run has none."""
    if processes.SERVER in os.environ:
        yield
    else:
        with processes.fork_server():
            yield


def executed(env: Mapping[str, str], cwd: Path, *arguments: str) -> dict[str, Any]:
    """What the process of a new interpreter sees."""
    words = [sys.executable, "-m", PROBE, *arguments]
    done = subprocess.run(
        words,
        env=env,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
        start_new_session=True,
    )
    return {"status": done.returncode, "errors": done.stderr, **json.loads(done.stdout)}


def forked(env: Mapping[str, str], cwd: Path, *arguments: str) -> dict[str, Any]:
    """What a forked process sees."""
    assert processes.can_be_forked([PROBE], env)
    done = processes.run([PROBE, *arguments], env, cwd=cwd)
    return {"status": done.returncode, "errors": done.stderr, **json.loads(done.stdout)}


@pytest.mark.parametrize("env", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_a_forked_process_sees_what_an_executed_one_sees(env: Mapping[str, str]) -> None:
    cwd = processes.ROOT
    assert forked(env, cwd, "0", "two words") == executed(env, cwd, "0", "two words")


@pytest.mark.parametrize("end", ["", "3", "says why", "is killed", "is interrupted"])
def test_a_forked_process_ends_as_an_executed_one(end: str) -> None:
    env = ENVIRONMENTS["of an installation"]
    ours, theirs = (one(env, processes.ROOT, end, BARE) for one in (forked, executed))
    assert ours["status"] == theirs["status"]
    assert ours["errors"].splitlines()[-2:] == theirs["errors"].splitlines()[-2:]


@pytest.mark.parametrize("end", ["0", "3", "fails"])
def test_a_child_that_a_forked_process_forks_sees_what_an_executed_one_sees(end: str) -> None:
    """The child inherits no handler, descriptor or session from its parent."""
    env = ENVIRONMENTS["of an installation"]
    forked = processes.run([PARENT, "starts", PROBE, end], env)
    executed = subprocess.run(
        [sys.executable, "-m", PARENT, "starts", PROBE, end],
        env=env,
        cwd=processes.ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert forked.returncode == executed.returncode
    assert forked.stderr.splitlines()[-1:] == executed.stderr.splitlines()[-1:]
    ours, theirs = (json.loads(done.stdout) for done in (forked, executed))
    for seen in (ours, theirs):
        del seen["environment"]["PASSED"]  # the number of the descriptor
        del seen["flags"][UTF8_MODE]  # on only in a process that has set LC_CTYPE itself
    assert ours == theirs


def test_a_forked_process_prints_its_traceback() -> None:
    found = forked(PLAIN | {"PYTHONUNBUFFERED": "1"}, processes.ROOT, "fails")
    assert found["status"] == 1
    assert found["errors"].endswith("ZeroDivisionError: fails\n")


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
    code = (
        "import sys, threading, importlib\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "assert threading.active_count() == 1\n"
        "print(*sys.modules)\n"
    )
    words = [sys.executable, "-c", code, *fork_server.PRELOADED]
    done = subprocess.run(words, cwd=processes.ROOT, capture_output=True, text=True, check=True)
    stateful = {"wsgi", "receiver.web.gunicorn", "receiver.web.server.booting"}
    assert not stateful & set(done.stdout.split())

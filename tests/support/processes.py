"""Starts `python -m …` for a test: in a run of several processes by a fork, otherwise by an exec.

A test that is about the start of the interpreter, or about an installation, starts one itself.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from tests.support.patience import PATIENCE

ROOT = Path(__file__).parents[2]
SERVER = "FORK_SERVER"  # the variable with the path of the server's socket
# The interpreter and the C library read these variables when they start; the server handles one of
# them, PYTHONUNBUFFERED.
READ_AT_START = ("PYTHON", "LANG", "LC_", "LD_", "MALLOC_")
# These modules replace functions before other modules import them; the server has imported those.
REPLACE_BEFORE_IMPORT = ("tests.support.apps.settable_clock", "tests.support.apps.stops_visibly")
NOTHING = -1  # instead of a descriptor: the null device
EXECUTED = {"PYTHONNODEBUGRANGES": ""}  # it has no effect, except that the process is not forked


@contextmanager
def fork_server() -> Iterator[None]:
    """Run a server, which `start` and `run` use in this process and in those that it starts."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        address = str(Path(folder) / "socket")
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
            listening.bind(address)
            listening.listen(128)  # clients wait until the server has imported everything
            stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-m", "tests.support.fork_server", str(listening.fileno())],
                    stdin=subprocess.PIPE,  # the server ends with it
                    cwd=ROOT,
                    env={name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ},
                    pass_fds=[listening.fileno()],
                    start_new_session=True,
                )
            )
        os.environ[SERVER] = address
        stack.callback(os.environ.pop, SERVER)
        yield


def start(
    command: Sequence[str], env: Mapping[str, str], log: IO[bytes], *, cwd: Path = ROOT
) -> subprocess.Popen[bytes] | ForkedProcess:
    """Start `python -m <command>` in a process group of its own; its output goes to `log`."""
    if can_be_forked(command, env):
        return ForkedProcess(command, env, (NOTHING, log.fileno(), log.fileno()), cwd)
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=cwd,
        env=env,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def run(
    command: Sequence[str],
    env: Mapping[str, str],
    *,
    cwd: Path = ROOT,
    timeout: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <command>` to its end; return its output and its exit status."""
    if not can_be_forked(command, env):
        words = [sys.executable, "-m", *command]
        return subprocess.run(
            words, cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout, check=False
        )
    with ThreadPoolExecutor(2) as readers:
        ends = [os.pipe(), os.pipe()]
        process = ForkedProcess(command, env, (NOTHING, ends[0][1], ends[1][1]), cwd)
        for _, written in ends:
            os.close(written)
        texts = [readers.submit(_read, read) for read, _ in ends]
        try:
            status = process.wait(timeout)
        except BaseException:
            process.kill()
            raise
    stdout, stderr = (text.result() for text in texts)
    return subprocess.CompletedProcess(list(command), status, stdout, stderr)


def _read(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as file:
        return file.read()


def forkable(env: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without variables that prevent a fork."""
    return {name: value for name, value in env.items() if not name.startswith(READ_AT_START)}


def can_be_forked(command: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return whether the server of this run can fork a process for this command."""
    if command[0] in REPLACE_BEFORE_IMPORT or SERVER not in os.environ:
        return False
    return not any(name.startswith(READ_AT_START) and name != "PYTHONUNBUFFERED" for name in env)


class ForkedProcess:
    """A process that the fork server starts, with the methods of `subprocess.Popen`.

    `streams` are the descriptors of its standard streams.
    """

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], streams: Sequence[int], cwd: Path
    ) -> None:
        self.args = command
        self.returncode: int | None = None
        self._server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._server.connect(os.environ[SERVER])
        request = {
            "command": command,
            "cwd": str(cwd),
            "env": dict(env),
            "limit": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        with Path(os.devnull).open("rb") as nothing:
            passed = [nothing.fileno() if stream == NOTHING else stream for stream in streams]
            socket.send_fds(self._server, [json.dumps(request).encode()], passed)
            self.pid = int(self._server.recv(100))

    def poll(self) -> int | None:
        """Return the exit status, or None while the process runs."""
        with suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status; -N if signal N ended the process."""
        if self.returncode is None:
            # `subprocess` passes a negative time if it is over.
            self._server.settimeout(None if timeout is None else max(timeout, 0))
            try:
                self.returncode = int(self._server.recv(100))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self.args, timeout or 0) from None
            self._server.close()  # the server now reaps the process
        return self.returncode

    def send_signal(self, sig: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

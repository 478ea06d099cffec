"""Starts `python -m …` as our programs do, and ends with its exit status.

Its first argument is followed by those of the child. With `starts`, it starts the child as
`receiver serve` does, and with `has the server start`, as the demo of the sandbox does.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path


def start(command: list[str]) -> int:
    signal.signal(signal.SIGTERM, lambda *_: None)  # a child that is executed has no such handler
    logging.getLogger().addHandler(logging.NullHandler())
    with Path(os.devnull).open("rb") as inherited, Path(os.devnull).open("rb"):
        child = subprocess.Popen(
            command,
            start_new_session=True,
            pass_fds=[inherited.fileno()],
            env={**os.environ, "PASSED": str(inherited.fileno())},
        )
        return child.wait()


def have_the_server_start(command: list[str]) -> int:
    # The interpreter has set LC_CTYPE, which the demo does not pass on.
    env = {name: value for name, value in os.environ.items() if name != "LC_CTYPE"}
    with subprocess.Popen(
        command,
        start_new_session=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=env,
        text=True,
    ) as child:
        output, errors = child.communicate()
    print(output, end="")
    print(errors, end="", file=sys.stderr)
    assert child.poll() == child.returncode
    return child.returncode


how = {"starts": start, "has the server start": have_the_server_start}[sys.argv[1]]
sys.exit(how([sys.executable, "-m", *sys.argv[2:]]))

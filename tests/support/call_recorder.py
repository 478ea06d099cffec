"""Runs a Python module as a program and records which functions of `receiver/` it calls.

`python -m tests.support.call_recorder FILE MODULE [ARGUMENT …]` appends a line to FILE for each
call, in any thread and any child process: the time in nanoseconds, the source file, the function
and the thread.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time
from pathlib import Path
from types import FrameType

PRODUCT = f"{Path(__file__).parents[2] / 'receiver'}{os.sep}"
NOT_FUNCTIONS = ("<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")
PERIODIC = "on_tick"  # uvicorn calls it ten times a second, even without requests


def is_counted(frame: FrameType) -> bool:
    """Return whether the frame runs a function of the receiver that serves a request."""
    code = frame.f_code
    if not code.co_filename.startswith(PRODUCT) or code.co_name in NOT_FUNCTIONS:
        return False
    caller: FrameType | None = frame
    while caller is not None and caller.f_code.co_name != PERIODIC:
        caller = caller.f_back
    return caller is None


def main(file: str, module: str, *arguments: str) -> None:
    """Run the module with the arguments and record its calls in the file."""
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def record(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and is_counted(frame):
            code = frame.f_code
            source = code.co_filename.removeprefix(PRODUCT)
            thread = threading.current_thread().name
            line = f"{time.monotonic_ns()}\t{source}\t{code.co_qualname}\t{thread}\n"
            os.write(descriptor, line.encode())

    sys.argv = [module, *arguments]
    threading.setprofile(record)
    sys.setprofile(record)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

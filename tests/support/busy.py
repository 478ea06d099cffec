"""`python -m tests.support.busy N COMMAND …` runs a command beside N loops that only use the CPU.

It shows whether the tests pass on a machine that is busy with other work.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from tests.support.orphans import run_to_its_end

# Each loop ends by itself when this process is gone, whatever ended it.
LOOP = "import os, sys\nparent = int(sys.argv[1])\nwhile os.getppid() == parent:\n    pass"


def main(count: int, command: list[str]) -> int:
    """Run the command, and return its exit status."""
    with ExitStack() as loops:
        for _ in range(count):
            loop = subprocess.Popen([sys.executable, "-c", LOOP, str(os.getpid())])
            loops.callback(loop.wait)
            loops.callback(loop.kill)
        print(f"busy: {count} loops run beside the command", flush=True)
        return run_to_its_end(command)


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[1].isdecimal():
        sys.exit("busy: the first argument is the number of loops, as in make test BUSY=8")
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

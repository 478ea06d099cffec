"""Starts `python -m …` as `receiver serve` starts its processes, and ends with its exit status.

Its own argument, `starts`, is followed by those of the child.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: None)  # a child that is executed has no such handler
logging.getLogger().addHandler(logging.NullHandler())
with Path(os.devnull).open("rb") as inherited, Path(os.devnull).open("rb"):
    child = subprocess.Popen(
        [sys.executable, "-m", *sys.argv[2:]],
        start_new_session=True,
        pass_fds=[inherited.fileno()],
        env={**os.environ, "PASSED": str(inherited.fileno())},
    )
    sys.exit(child.wait())

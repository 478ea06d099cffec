"""Measures `receiver copy` from SQLite to PostgreSQL."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.disks import Disk
from bench.fill import fill
from bench.ours import migrate, postgres
from bench.peers import Peers
from bench.processes import CannotMeasure
from bench.progress import say
from bench.site import Site

COPIED = re.compile(r"\w+: (\d+)")  # in the last line: each table, and its number of rows
WITHIN = 300.0  # seconds


def measure(tasks: int, place: Path) -> dict[str, Any]:
    """Copy a record of this size, and return how long the command took."""
    folder = place / "copy"
    folder.mkdir()
    source = f"sqlite:///{folder}/receiver.db"
    migrate(source)
    fill(folder / "receiver.db", tasks)
    with postgres(Disk()) as (url, _):
        command = (sys.executable, "-m", "receiver", "copy", "--from", source, "--to", url)
        environment = Site(folder, Disk(), Peers()).environment(DATABASE_URL=source)
        began = time.perf_counter()
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=WITHIN, check=False
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        raise CannotMeasure(done.stderr.strip().splitlines()[-1][:200])
    rows = sum(map(int, COPIED.findall(done.stdout.removeprefix("copy: "))))
    say(f"copied {rows} rows to PostgreSQL")
    return {"tasks": tasks, "rows": rows, "seconds": seconds, "rows_per_second": rows / seconds}

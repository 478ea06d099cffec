"""Prints as JSON what a program can see of its interpreter and its process; ends as it is told."""

from __future__ import annotations

import gc
import json
import locale
import logging
import os
import signal
import sys
import threading
import time
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.support.fork_server import PRELOADED

AFTER_IMPORTS = "after the imports"  # the second argument, for a process whose values are compared
OWN_SIGNALS = (1 << 31) - 1  # without 32 and 33, which belong to the C library

# Modules whose import creates something that processes must not share, or reads the settings.
STATEFUL = {"wsgi", "receiver.web.gunicorn", "receiver.web.server.booting"}


def stream(name: str) -> dict[str, Any]:
    found = getattr(sys, name)
    assert found is getattr(sys, f"__{name}__")
    names = ("encoding", "errors", "line_buffering", "write_through", "newlines", "name", "mode")
    shown = {attribute: getattr(found, attribute) for attribute in names}
    return shown | {"buffer": type(found.buffer).__name__, "descriptor": found.fileno()}


def seen() -> dict[str, Any]:
    status = Path("/proc/self/status").read_text().splitlines()
    # Not the blocked signals: a new process inherits those of the test.
    kept = ("Umask", "Threads", "Uid", "Gid", "NoNewPrivs")
    descriptors = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    return {
        "argv": sys.argv,
        "path": sys.path,
        "module": __name__,
        "main": sys.modules["__main__"].__dict__.get("seen") is seen,
        "executable": sys.executable,
        "flags": list(sys.flags),
        "warn": list(map(repr, warnings.filters)),
        "environment": dict(os.environ),
        "cwd": str(Path.cwd()),
        "locale": locale.setlocale(locale.LC_ALL),
        "zone": time.tzname,
        "handlers": repr(logging.root.handlers) + repr(logging.lastResort),
        "levels": [logging.root.level, logging.root.manager.disable],
        "sigint": repr(signal.getsignal(signal.SIGINT)),
        "executed_as": Path("/proc/self/cmdline").read_text().split("\0"),
        "process": [line for line in status if line.startswith(kept)],
        "signals": {
            name: int(value, 16) & OWN_SIGNALS
            for name, value in (line.split(":") for line in status if line.startswith("Sig"))
            if name in ("SigIgn", "SigCgt")
        },
        "files": len(descriptors & set(range(64))),
        "leads_session": os.getsid(0) == os.getpid(),
        "leads_group": os.getpgid(0) == os.getpid(),
        "stateful": sorted(STATEFUL & set(sys.modules)),
        "threads": threading.active_count(),
        "collects": [gc.isenabled(), gc.get_threshold()],
        "streams": [stream(name) for name in ("stdin", "stdout", "stderr")],
    }


def main() -> None:
    if sys.argv[2:] == [AFTER_IMPORTS]:
        for module in PRELOADED:  # what an import changes is not a difference
            import_module(module)
    print(json.dumps(seen()), flush=True)
    end = sys.argv[1] if len(sys.argv) > 1 else ""
    if end == "names a problem":
        sys.exit(end)
    if end == "cannot print":
        print(end)
        os.close(sys.stdout.fileno())
        return
    if end == "fails":
        raise ZeroDivisionError(end)
    if end == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if end == "is interrupted":
        signal.raise_signal(signal.SIGINT)
    if end == "waits":
        sys.stdout.flush()
        signal.pause()
    sys.exit(int(end) if end else None)


if __name__ == "__main__":
    main()

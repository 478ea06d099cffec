"""gunicorn's settings, with their reasons; `gunicorn.conf.py` and `receiver serve` read them."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path

from receiver import settings
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.ingest import hook_entries
from receiver.stores import open_store

# Hosts that route to a port say which in PORT; elsewhere only this machine is served.
bind = f"0.0.0.0:{os.environ['PORT']}" if "PORT" in os.environ else "127.0.0.1:8000"

# uvicorn takes callbacks in its event loop. A slow client costs a connection for 20 s at most, and
# no thread (protocol.py). With gthread, Flask serves everything, and slow clients hold threads.
worker_class = "receiver.web.server.worker.Worker"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))

# For what Flask serves: the API, the dashboard, refusals. A callback needs none while it waits.
threads = 16

# With files and database it stays below 1,024 descriptors, which many systems allow a process.
# Who comes when all are taken is served: the connection that waits longest is closed for it.
worker_connections = 512

# A callback's line has 150 bytes, a list's with every filter 2,000; a proxy adds a dozen headers.
# All headers together may have 32 kB (protocol.py).
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190

# The writer thread and the connections belong to the process that made them.
preload_app = False

timeout = 60
graceful_timeout = 25  # hosts kill 30 s after SIGTERM; a request that still arrives gets 2 s
keepalive = 5

# No proxy may say which part of the path is ours: a request could be taken apart by it. This and
# the next count for gthread; the worker class above believes no proxy.
forwarder_headers = ""

# Nor whether it came by TLS: whom to believe, TRUSTED_PROXIES says, not where a request comes from.
secure_scheme_headers: dict[str, str] = {}

# A request line holds a token: ours logs the route instead.
accesslog = None
errorlog = "-"
logger_class = "receiver.web.server.gunicornlog.RedactedLogger"
loglevel = "info"  # where it listens, and which processes come and go

# The control socket lies in the home directory, where a second instance would share it.
control_socket_disable = True

# A heartbeat file on a slow disk can look like a stuck worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108


def on_starting(_: object) -> None:
    """Tell a mistake once, before anything listens. Left to the workers, each would tell it."""
    try:
        chosen = settings.load()
        hook_entries(chosen)
        store = open_store(chosen.database_url)
        store.check_schema()
        store.close()  # no connection may cross the fork
    except CallbackReceiverError as error:
        lines = error.problems if isinstance(error, SettingsError) else (str(error),)
        sys.exit("\n".join(f"receiver: {line}" for line in lines))


def post_worker_init(_: object) -> None:
    """Let no search for garbage go through all that was imported: it stops every callback.

    A full one took 12 to 34 ms here, and the slowest hundredth of callbacks 58 ms at 64 clients;
    without it that was 42, and 37 with a search of what requests leave behind after every 5,000
    objects that stay, not 700 (two cores, `bench`, 2026-11-21).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)

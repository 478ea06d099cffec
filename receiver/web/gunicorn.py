"""gunicorn's settings, with their reasons; `gunicorn.conf.py` and `receiver serve` read them."""

from __future__ import annotations

import os
from pathlib import Path

# Hosts that route to a port say which in PORT; elsewhere only this machine is served.
bind = f"0.0.0.0:{os.environ['PORT']}" if "PORT" in os.environ else "127.0.0.1:8000"

# A thread waits while its callback's batch is committed: more threads make bigger batches.
worker_class = "gthread"
workers = int(os.environ.get("WEB_CONCURRENCY", "2"))
threads = 16

# The writer thread and the connections belong to the process that made them.
preload_app = False

timeout = 60
graceful_timeout = 25  # hosts kill 30 s after SIGTERM
keepalive = 5

# No proxy may say which part of the path is ours: a request could be taken apart by it.
forwarder_headers = ""

# A request line holds a token: ours logs the route instead.
accesslog = None
errorlog = "-"
loglevel = "info"  # where it listens, and which processes come and go

# The control socket lies in the home directory, where a second instance would share it.
control_socket_disable = True

# A heartbeat file on a slow disk can look like a stuck worker.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108

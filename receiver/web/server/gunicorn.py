"""The gunicorn settings and their reasons, for `gunicorn.conf.py` and `receiver serve`."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

from receiver.config import env_file, settings, table, values
from receiver.environment import Environment
from receiver.errors import CallbackReceiverError, SettingsError
from receiver.observability import logs
from receiver.processes import current_hooks, listening
from receiver.processes.shutdown import CANNOT_LISTEN, accept_hangup, delay_hangup
from receiver.stores import check_schema_when_reachable, open_store
from receiver.text import limits

_unreadable: SettingsError | None = None
try:
    env_file.load()
except SettingsError as _error:  # `on_starting` reports it
    _unreadable = _error

bind = values.default_bind(Environment().value(table.PORT))  # `on_starting` reports a wrong value

# uvicorn handles callbacks in its event loop. A slow client occupies a connection for at most 20 s,
# but no thread (protocol.py). With gthread, Flask serves everything, and slow clients use threads.
worker_class = "receiver.web.server.worker.Worker"
workers = Environment().value(table.WEB_CONCURRENCY)

# Flask uses these threads for the API, the dashboard and error responses. A callback in the event
# loop uses no thread while it waits for its commit.
threads = limits.MAX_THREADS

# When all connections are in use, a new one replaces the connection that has waited longest for its
# client.
worker_connections = limits.MAX_CONNECTIONS

limit_request_line = limits.MAX_REQUEST_LINE
limit_request_fields = limits.MAX_HEADERS
limit_request_field_size = limits.MAX_HEADER

# The writer thread and the database connections cannot be shared with a forked process.
preload_app = False

timeout = limits.WORKER_TIMEOUT
graceful_timeout = limits.SHUTDOWN_TIMEOUT
keepalive = limits.KEEP_ALIVE

# No header may set SCRIPT_NAME or PATH_INFO, since a client could use it to change the path that is
# served. This setting and the next apply to gthread; the worker class above ignores such headers.
forwarder_headers = ""

# No header may claim that a request came over TLS: TRUSTED_PROXIES decides which proxies to trust,
# not the address of the client.
secure_scheme_headers: dict[str, str] = {}

# A request line contains a token, so the application logs the route instead.
accesslog = None
errorlog = "-"
logger_class = "receiver.web.server.gunicornlog.RedactedLogger"
loglevel = "info"  # the listening address, and which processes start and stop

# The control socket is in the home directory, so two instances would share it.
control_socket_disable = True

# A heartbeat file on a slow disk can look like a stuck worker.
worker_tmp_dir = "/dev/shm" if os.access("/dev/shm", os.W_OK | os.X_OK) else None  # noqa: S108


def on_starting(server: Any) -> None:
    """Report a configuration error once, before listening; otherwise every worker would report it.

    All workers use the hooks file as it is now, until SIGHUP. If PostgreSQL is down, wait for it
    before listening at the port.
    """
    delay_hangup()
    try:
        if _unreadable:
            raise _unreadable
        chosen, current = current_hooks.load_configuration(with_accounts=True)
        logs.configure(form=settings.log_format())
        current_hooks.use(current)
        store = open_store(chosen.database_url)
        check_schema_when_reachable(store)
        store.close()  # no connection may cross the fork
    except CallbackReceiverError as error:
        lines = error.problems if isinstance(error, SettingsError) else (str(error),)
        sys.exit("\n".join(f"receiver: {line}" for line in lines))
    if _inherits_sockets(server) or server.cfg.reuse_port:
        return
    checked = map(listening.problem_with, server.cfg.address)
    problems = [problem for problem in checked if problem]
    if problems:
        sys.stderr.write("".join(f"receiver: {problem}\n" for problem in problems))
        sys.exit(CANNOT_LISTEN)


def when_ready(_: object) -> None:
    """Accept SIGHUP, now that the arbiter can handle it."""
    accept_hangup()


def on_reload(server: Any) -> None:
    """Read the hooks file again at SIGHUP; the workers that are started next use it."""
    current = current_hooks.in_use()
    if current is None:
        return
    reloaded = current.reloaded()
    current_hooks.use(reloaded)
    if reloaded.problem is not None:
        server.log.error("%s (process web): %s", current_hooks.REJECTED, reloaded.problem)
    else:
        names = [entry.name for entry in reloaded.entries]
        shown = ", ".join(names) or "no hooks"
        server.log.info("%s (process web): %s", current_hooks.RELOADED, shown)


def _inherits_sockets(server: Any) -> bool:
    """Return whether systemd or another arbiter (SIGUSR2) passes its sockets to this one."""
    return bool(server.master_pid or os.environ.get("LISTEN_FDS"))


def post_worker_init(worker: Any) -> None:
    """Prepare the worker: live events end when it stops, and garbage collection is set up."""
    feed = getattr(worker.wsgi, "extensions", {}).get("live")
    if feed is not None:
        feed.is_serving = lambda: worker.alive
    _exclude_imported_objects()


def _exclude_imported_objects() -> None:
    """Exclude imported objects from garbage collection, which pauses all callbacks while it runs.

    A full collection took 12 to 34 ms, and the p99 of callbacks was 58 ms with 64 clients. Freezing
    the imported objects reduced it to 42 ms, and a generation 0 threshold of 5,000 instead of 700
    reduced it to 37 ms (two cores, `bench`, 2026-11-21).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(5_000)

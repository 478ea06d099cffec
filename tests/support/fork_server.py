"""A process that has imported the product, and forks for each `python -m …` that a test starts.

To start an interpreter and to import the product takes 0.3 to 0.5 s of CPU time, and a web process
of gunicorn three times as much; to fork takes a few milliseconds. The forked process is a process
of its own, and its start looks like that of an interpreter: see `become`. The server does not reap
it before its client has seen the end of it, so that a signal never reaches another process.

`tests.support.processes` starts `python -m tests.support.fork_server DESCRIPTOR` with a socket that
listens, and is its client. The server ends with its standard input.
"""

from __future__ import annotations

import gc
import io
import json
import os
import resource
import selectors
import socket
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from tests.support import forked_children, lazy_routes

# What the processes import. No module may be here whose import reads the environment, or creates
# something that processes must not share, such as memory, a thread or a socket: `receiver.web.
# server.booting` creates shared memory, and `wsgi` reads the settings.
PRELOADED = (
    "PIL.BmpImagePlugin",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PngImagePlugin",
    "PIL.PpmImagePlugin",
    "email._header_value_parser",
    "encodings.utf_8_sig",
    "fsspec.implementations.local",
    "gunicorn.app.wsgiapp",
    "gunicorn.arbiter",
    "gunicorn.http.wsgi",
    "gunicorn.workers.workertmp",
    "procrastinate.worker",
    "receiver.cli.migrate",
    "receiver.cli.serve",
    "receiver.cli.worker",
    "receiver.console.records",
    "receiver.delivery.procrastinate",
    "receiver.doctor.reach",
    "receiver.hooks",
    "receiver.hooks.download",
    "receiver.hooks.email",
    "receiver.hooks.mime_message",
    "receiver.hooks.slack",
    "receiver.hooks.smtp",
    "receiver.hooks.webhook",
    "receiver.stores.postgres",
    "receiver.stores.sql.echoes",
    "receiver.stores.sql.erasure",
    "receiver.stores.sql.polling",
    "receiver.web",
    "receiver.web.server.flask_bridge",
    "receiver.web.server.gunicornlog",
    "receiver.web.server.protocol",
    "sandbox.cli.commands",
    "sandbox.demo",
    "sqlite_utils",
    "submitter.accounts",
    "submitter.api",
    "submitter.cli.reconcile",
    "submitter.cli.submit",
    "submitter.cli.tasks",
    "submitter.providers.appypie",
    "submitter.providers.kling",
    "submitter.providers.modellix",
    "uvicorn.lifespan.off",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.httptools_impl",
    "uvicorn.server",
    "uvicorn_worker",
    "uvloop",
)
LONGEST = 1 << 17  # bytes of a request
STREAMS = (0, 1, 2)


def main() -> None:
    """Serve until standard input ends; in a forked process, run what it was forked for."""
    listening = socket.socket(fileno=int(sys.argv[1]))
    gc.disable()
    for module in PRELOADED:
        import_module(module)
    lazy_routes.install()
    # The objects stay frozen: a garbage collection in a forked process would copy all their memory,
    # which takes longer than everything else at its start.
    gc.freeze()
    gc.enable()
    command = Server(listening).serve()
    if command:
        forked_children.run_to_the_end(command, lambda: forked_children.install(command))


class Server:
    """Forks for its clients, and sends each the number of its process and then the wait status."""

    def __init__(self, listening: socket.socket) -> None:
        self._listening = listening
        self._selector = selectors.DefaultSelector()

    def serve(self) -> list[str] | None:
        """Return the command in a forked process, and None in this one when it has to end."""
        self._selector.register(sys.stdin, selectors.EVENT_READ)
        self._selector.register(self._listening, selectors.EVENT_READ, self._accept)
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return None
                command = key.data()
                if command:
                    return command  # type: ignore[no-any-return]

    def _accept(self) -> list[str] | None:
        client, _ = self._listening.accept()
        message, streams, _, _ = socket.recv_fds(client, LONGEST, len(STREAMS))
        if not message:
            client.close()
            return None
        request = json.loads(message)
        pid = os.fork()
        if pid == 0:
            self._selector.close()
            self._listening.close()
            client.close()
            become(request, streams)
            return list(request["command"])
        for stream in streams:
            os.close(stream)
        with suppress(OSError):  # the client may have ended
            client.send(str(pid).encode())
        self._watch(pid, client)
        return None

    def _watch(self, pid: int, client: socket.socket) -> None:
        process = os.pidfd_open(pid)

        def report() -> None:
            self._selector.unregister(process)
            os.close(process)
            ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
            assert ended is not None
            exited = ended.si_code == os.CLD_EXITED
            with suppress(OSError):
                client.send(str(ended.si_status if exited else -ended.si_status).encode())
            self._selector.register(client, selectors.EVENT_READ, reap)

        def reap() -> None:
            """Reap the process, now that its client has closed the connection."""
            self._selector.unregister(client)
            client.close()
            os.waitpid(pid, 0)

        self._selector.register(process, selectors.EVENT_READ, report)


def become(request: Mapping[str, Any], streams: list[int]) -> None:
    """Turn this forked process into one that looks as if its interpreter had just started."""
    for stream, number in zip(streams, STREAMS, strict=True):
        os.dup2(stream, number)
    os.closerange(STREAMS[-1] + 1, os.sysconf("SC_OPEN_MAX"))
    os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, request["limit"])
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    # What the interpreter sets at its start, where no variable names a locale (PEP 538).
    coerced = {"LC_CTYPE": os.environ["LC_CTYPE"]} if "LC_CTYPE" in os.environ else {}
    os.environ.clear()
    os.environ.update(coerced | request["env"])
    time.tzset()
    for name, number in zip(("stdin", "stdout", "stderr"), STREAMS, strict=True):
        reopen(name, number, is_buffered="PYTHONUNBUFFERED" not in os.environ)


def reopen(name: str, number: int, *, is_buffered: bool) -> None:
    """Open a standard stream as the interpreter does."""
    old, mode = getattr(sys, name), "r" if name == "stdin" else "w"
    raw: Any = io.FileIO(number, mode, closefd=False)
    raw.name = f"<{name}>"
    if name == "stdin":
        binary: Any = io.BufferedReader(raw)
    else:
        binary = io.BufferedWriter(raw) if is_buffered else raw
    new: Any = io.TextIOWrapper(
        binary,
        old.encoding,
        old.errors,
        line_buffering=is_buffered and (name == "stderr" or os.isatty(number)),
        write_through=not is_buffered,
    )
    new.mode = mode
    setattr(sys, name, new)
    setattr(sys, f"__{name}__", new)


if __name__ == "__main__":
    main()

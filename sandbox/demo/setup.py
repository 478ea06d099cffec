"""Creates the folders, settings and hooks file of the demo."""

from __future__ import annotations

import secrets
import socket
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.server import Sandbox

HOOKS = """\
[[hook]]
name = "pictures"
type = "download"
on = ["succeeded"]
to = "file://{pictures}"
allow_private = true

[[hook]]
name = "mail"
type = "email"
host = "{SANDBOX_SMTP_HOST}"
port = {SANDBOX_SMTP_PORT}
starttls = "never"
deadline = {deadline}
from = "Callback Receiver <callbacks@shop.example>"
to = ["orders@shop.example"]
subject = "{subject}"

[[hook]]
name = "slack"
type = "slack"
where = {{ media.kind = "image" }}
url = "{SANDBOX_SLACK_URL}"
deadline = {deadline}
allow_private = true
"""
# A template, which the receiver renders for each event.
SUBJECT = "{{ task.reference }} {{ 'is ready' if task.status == 'succeeded' else task.status }}"
# Seconds that an attempt may take. If an attempt timed out on a slow machine after its message had
# arrived, it would be repeated, but the demo expects each message exactly once.
ATTEMPT_WITHIN = 120
# The setting that bounds the seconds until the poller queries a provider about a task. Tasks of
# providers with callbacks are submitted without it, so that the result does not depend on whether
# the callback or the query comes first.
QUERY_AFTER = "RECONCILE_AFTER"


@dataclass(frozen=True)
class DemoSetup:
    """The files and settings of the demo. Only `folder` remains afterwards; the rest is erased."""

    folder: Path
    human: Path
    cloth: Path
    bind: str
    settings: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://{self.bind}"

    @property
    def pictures(self) -> Path:
        return self.folder / "pictures"

    @property
    def log(self) -> Path:
        return self.folder / "receiver.log"

    @property
    def activity(self) -> Path:
        return self.folder / "activity.log"


def folder_that_stays() -> Path:
    return Path(tempfile.mkdtemp(prefix=f"demo-{time.strftime('%Y%m%d-%H%M%S')}-"))


def reserve_port() -> socket.socket:
    """Return a socket that keeps a free port of 127.0.0.1 for a server with `--reuse-port`.

    The socket is bound but does not listen, so that all connections go to the server. Until it is
    closed, no other program is given the port, even before the server has started.
    """
    reserved = socket.socket()
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reserved.bind(("127.0.0.1", 0))
    except OSError:
        reserved.close()
        raise
    return reserved


def lay_out(
    folder: Path, data: Path, sandbox: Sandbox, reserved: socket.socket, database_url: str | None
) -> DemoSetup:
    """Write the settings and the hooks file; `reserved` is the socket that keeps the receiver's
    port.
    """
    bind = "{}:{}".format(*reserved.getsockname())
    stage = DemoSetup(
        folder=folder,
        human=_copied("person.jpg", data),
        cloth=_copied("garment.png", data),
        bind=bind,
        settings={
            **sandbox.env(),
            "PUBLIC_URL": f"http://{bind}",
            "DATABASE_URL": database_url or f"sqlite:///{data / 'receiver.db'}",
            "HOOKS_FILE": str(data / "hooks.toml"),
            "CALLBACK_SECRETS": secrets.token_urlsafe(32),
            "DASHBOARD_PASSWORD": secrets.token_urlsafe(9),
            QUERY_AFTER: "2.5",  # the sandbox is faster than any provider
            "GUNICORN_CMD_ARGS": "--reuse-port",
        },
    )
    stage.pictures.mkdir()
    names = {"pictures": stage.pictures, "deadline": ATTEMPT_WITHIN, "subject": SUBJECT}
    hooks = HOOKS.format(**names, **sandbox.env())
    (data / "hooks.toml").write_text(hooks, encoding="utf-8")
    return stage


def _copied(name: str, folder: Path) -> Path:
    copy = folder / name
    copy.write_bytes((resources.files("sandbox") / "images" / name).read_bytes())
    return copy

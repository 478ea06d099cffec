"""Lays out what the demo needs: folders, settings and the hooks file."""

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
from = "Callback Receiver <callbacks@shop.example>"
to = ["orders@shop.example"]

[[hook]]
name = "slack"
type = "slack"
url = "{SANDBOX_SLACK_URL}"
allow_private = true
"""


@dataclass(frozen=True)
class Stage:
    """`folder` stays for whoever wants to look; the rest goes with the demo."""

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


def folder_that_stays() -> Path:
    return Path(tempfile.mkdtemp(prefix=f"demo-{time.strftime('%Y%m%d-%H%M%S')}-"))


def lay_out(folder: Path, data: Path, sandbox: Sandbox, database_url: str | None) -> Stage:
    bind = f"127.0.0.1:{_free_port()}"
    stage = Stage(
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
            "RECONCILE_AFTER": "2.5",  # seconds: the sandbox is quicker than any provider
        },
    )
    stage.pictures.mkdir()
    hooks = HOOKS.format(pictures=stage.pictures, **sandbox.env())
    (data / "hooks.toml").write_text(hooks, encoding="utf-8")
    return stage


def _copied(name: str, folder: Path) -> Path:
    copy = folder / name
    copy.write_bytes((resources.files("sandbox") / "images" / name).read_bytes())
    return copy


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
    return port

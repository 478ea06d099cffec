"""The command that writes `.env` and `hooks.toml` into the working directory."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import click

from receiver.config import env_example, private_files
from receiver.config.env_file import DEFAULT as ENV
from receiver.config.settings import secret_path, sqlite_path
from receiver.config.table import DEFAULT_DATABASE_URL
from receiver.processes.serve import python_module
from receiver.signing import standard_webhooks

HOOKS = Path("hooks.toml")
SANDBOX_ANSWERS_WITHIN = 60  # seconds
PUBLIC_URL = "http://127.0.0.1:8000"  # at which a local sandbox reaches the receiver
SANDBOX_URL = "SANDBOX_SLACK_URL"  # one of the sandbox's settings, which begins with its address
NEXT = """\
Next steps:
  1. Edit .env: set the key of your provider, and PUBLIC_URL.
  2. Create the database:              receiver migrate
  3. Start web, worker and poller:     receiver serve
  4. Check it in another terminal:     receiver doctor
The password of the dashboard is DASHBOARD_PASSWORD in .env."""
NEXT_WITH_SANDBOX = """\
Next steps:
  1. Start the sandbox:                sandbox serve
  2. In another terminal, create the database, and start web, worker and poller:
     {start}
  3. In a third terminal, create a task:
     submitter submit \\
       --human {pictures}/person.jpg \\
       --cloth {pictures}/garment.png \\
       --reference ORDER-1 --wait
  4. Show its timeline:                receiver tasks show ORDER-1
The dashboard is at {public}/dashboard; its password is
DASHBOARD_PASSWORD in .env."""
IMAGES = Path("sandbox", "images")  # in a clone of the repository


@click.command()
@click.option("--sandbox", is_flag=True, help="Use the sandbox on this machine as the provider.")
def init(sandbox: bool) -> None:
    """Write .env, with generated secrets, and hooks.toml into the working directory.

    An existing file is never changed, so it is safe to run this again.
    """
    given = _of_sandbox() if sandbox else {}
    env = env_example.text(given | _generated())
    hooks = resources.files("receiver.cli") / "templates"
    hooks = hooks / ("hooks-sandbox.toml" if sandbox else "hooks.toml")
    if sandbox and ENV.exists() and SANDBOX_URL not in _read(ENV):
        problem = f"{ENV} is not for the sandbox; run this in another directory, or remove {ENV}"
        raise click.ClickException(problem)
    _write(ENV, env, "settings and generated secrets; only you can read it")
    _write(HOOKS, hooks.read_text(encoding="utf-8"), "what happens when a task changes")
    click.echo("\n" + (_next_with_sandbox(given) if sandbox else NEXT))


def _next_with_sandbox(given: Mapping[str, str]) -> str:
    """Return the next steps: in a clone, those of the README; elsewhere, commands without it."""
    is_clone = IMAGES.is_dir()
    url = given[SANDBOX_URL].partition("/_sandbox/")[0]
    return NEXT_WITH_SANDBOX.format(
        start="make run" if is_clone else "receiver migrate && receiver serve",
        pictures=IMAGES.as_posix() if is_clone else f"{url}/_sandbox/images",
        public=PUBLIC_URL,
    )


def _generated() -> dict[str, str]:
    """Return new secrets, but no callback secret if `receiver migrate` has created one here."""
    values = {
        "API_TOKEN": secrets.token_urlsafe(32),
        "DASHBOARD_PASSWORD": secrets.token_urlsafe(12),
        "SECRET_KEY": secrets.token_urlsafe(32),
        "WEBHOOK_SECRET": standard_webhooks.new_secret(),
    }
    if not secret_path(sqlite_path(DEFAULT_DATABASE_URL)).exists():
        values["CALLBACK_SECRETS"] = secrets.token_urlsafe(32)
    return values


def _of_sandbox() -> dict[str, str]:
    """Return the settings of the running sandbox, or else those for its usual ports."""
    done = subprocess.run(
        [*python_module(), "sandbox", "env"],
        capture_output=True,
        text=True,
        timeout=SANDBOX_ANSWERS_WITHIN,
        check=False,
    )
    if done.returncode != 0:
        raise click.ClickException(f"`sandbox env` failed: {done.stderr.strip()}")
    lines = (line.partition("=") for line in done.stdout.splitlines() if not line.startswith("#"))
    return {"PUBLIC_URL": PUBLIC_URL} | {name: value for name, _, value in lines}


def _write(path: Path, text: str, content: str) -> None:
    """Create the file unless it exists."""
    try:
        is_new = private_files.create_with(path, text)
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error.strerror}") from None
    click.echo(f"wrote {path}: {content}" if is_new else f"{path} exists and was not changed")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""

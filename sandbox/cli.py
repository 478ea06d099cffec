"""The commands: serve a sandbox, print the settings for it, run the demo."""

from __future__ import annotations

import signal
import threading
from urllib.parse import urlsplit

import click
import requests

from sandbox import environment
from sandbox.callbacks import Persistence
from sandbox.server import Behaviour, Sandbox
from sandbox.standard_webhooks import SecretError, Signer

SECONDS = click.FloatRange(min=0)
PORT = click.IntRange(0, 65535)


def _checked_secret(_: click.Context, __: click.Parameter, secret: str | None) -> str | None:
    try:
        if secret is not None:
            Signer(secret)
    except SecretError as fault:
        raise click.BadParameter(str(fault)) from None
    return secret


@click.group(context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
def main() -> None:
    """A provider that runs on your machine, calls back, and shows what arrived."""


@main.command()
@click.option("--port", type=PORT, default=environment.PORT, help="0 takes a free one.")
@click.option("--smtp-port", type=PORT, default=environment.SMTP_PORT, help="0 takes a free one.")
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--pace", type=SECONDS, default=1.0, help="Seconds between two moves; a task takes two paces."
)
@click.option(
    "--max-running", type=click.IntRange(min=1), default=20, help="Tasks that may run at once."
)
@click.option(
    "--callback-retries",
    type=click.IntRange(min=0),
    default=5,
    help="How often a callback that got no 2xx is sent again. The sandbox's own choice: what"
    " the real providers do is not known.",
)
@click.option(
    "--callback-retry-after", type=SECONDS, default=1.0, help="Seconds before each repetition."
)
@click.option("--callback-timeout", type=SECONDS, default=10.0, help="Seconds a callback may take.")
@click.option("--callbacks/--no-callbacks", default=True, help="Whether any provider calls back.")
@click.option(
    "--webhook-secret",
    metavar="whsec_…",
    callback=_checked_secret,
    help="Sign Kling's callbacks with it.",
)
def serve(
    port: int,
    smtp_port: int,
    host: str,
    pace: float,
    max_running: int,
    callback_retries: int,
    callback_retry_after: float,
    callback_timeout: float,
    callbacks: bool,
    webhook_secret: str | None,
) -> None:
    """Serve the providers' APIs, the inboxes and the pages until SIGTERM or Ctrl-C."""
    persistence = Persistence(callback_retries, callback_retry_after, callback_timeout)
    behaviour = Behaviour(
        pace=pace,
        max_running=max_running,
        callbacks=callbacks,
        webhook_secret=webhook_secret,
        persistence=persistence,
    )
    stopped = _stopped_by_signal()
    try:
        sandbox = Sandbox(host, port, smtp_port, behaviour=behaviour)
    except OSError as fault:
        raise click.ClickException(
            f"cannot listen on {host}, ports {port} and {smtp_port}: {fault.strerror}"
        ) from None
    with sandbox:
        click.echo(f"sandbox: API and pages at {sandbox.url}/, mail to {host}:{sandbox.smtp_port}")
        stopped.wait()


@main.command()
@click.option("--port", type=PORT, default=environment.PORT, help="Where the sandbox listens.")
@click.option("--url", help="Where the sandbox listens, in full; instead of --port.")
def env(port: int, url: str | None) -> None:
    """Print the settings that point the receiver and the submitter at a sandbox.

    A running sandbox is asked; without one the default mail port is assumed.
    """
    base = (url or f"http://127.0.0.1:{port}").rstrip("/")
    host = urlsplit(base).hostname
    if not base.startswith(("http://", "https://")) or host is None:
        raise click.BadParameter("must be an http or https URL", param_hint="--url")
    values = _asked(base) or environment.settings(base, host, environment.SMTP_PORT)
    for line in environment.lines(values):
        click.echo(line)


def _asked(base: str) -> dict[str, str] | None:
    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"{base}/_sandbox/env.json", timeout=2)
            values = answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None
    return values if isinstance(values, dict) else None


def _stopped_by_signal() -> threading.Event:
    stopped = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopped.set())
    return stopped


@main.command()
@click.option("--keep", is_flag=True, help="Leave it running at the end, until Ctrl-C.")
def demo(keep: bool) -> None:
    """Run receiver and submitter against a sandbox, from submission to delivered hooks."""
    from sandbox import demo as play  # noqa: PLC0415 - the other commands do without its imports

    try:
        play.tell(keep=keep)
    except play.StepError as missing:
        raise click.ClickException(f"demo: a step is missing: {missing}") from None

"""The commands of the `sandbox` program. Each imports the servers and clients that it needs."""

# ruff: noqa: PLC0415 - these imports take longer than `trigger --list`

from __future__ import annotations

import json
import re
import signal
import textwrap
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from sandbox import environment
from sandbox.providers.standard_webhooks import Signer
from sandbox.scenarios.chaos import shares
from sandbox.scenarios.scenario import PROVIDERS, SCENARIOS, UnknownScenarioError, triggerable

if TYPE_CHECKING:
    from sandbox.ledger import LedgerEntry
    from sandbox.trigger import Range

ANSWER_WITHIN = 30.0  # seconds; a port without a sandbox refuses immediately
NAME_WIDTH, LINE_WIDTH = 22, 80  # characters in `trigger --list`
PROGRESS_WITHIN = 180.0  # seconds without anything new after which the demo stops
# the operating system's message inside a longer one
ERRNO = re.compile(r"\[Errno -?\d+\] ([^')\"]+)")


class WholeNumber(click.IntRange):
    """A whole number in a range. click calls this type "integer range" in errors and in help."""

    name = "whole number"


class Seconds(click.FloatRange):
    """A number of seconds in a range, as above."""

    name = "number"


SECONDS = Seconds(min=0)
PORT = WholeNumber(0, 65535)


def _parsed_by(parse: Callable[[str], Any]) -> Callable[..., Any]:
    """Return the callback of an option whose text `parse` converts; it raises ValueError."""

    def callback(_: click.Context, __: click.Parameter, text: str | None) -> Any:
        try:
            return None if text is None else parse(text)
        except ValueError as fault:
            raise click.BadParameter(str(fault)) from None

    return callback


def _webhook_secret(text: str) -> str:
    Signer(text)  # raises SecretError
    return text


def _public_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise ValueError("must be an http or https URL without a path")
    return text.rstrip("/")


webhook_secret = click.option(
    "--webhook-secret",
    metavar="whsec_…",
    callback=_parsed_by(_webhook_secret),
    help="Secret that signs Kling's callbacks.",
)


@click.command()
@click.option(
    "--port", type=PORT, metavar="PORT", default=environment.PORT, help="0 chooses a free one."
)
@click.option(
    "--smtp-port",
    type=PORT,
    metavar="PORT",
    default=environment.SMTP_PORT,
    help="0 chooses a free one.",
)
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option(
    "--pace",
    type=SECONDS,
    metavar="SECONDS",
    default=1.0,
    help="Seconds between two status changes; a task takes two paces.",
)
@click.option(
    "--max-running",
    type=WholeNumber(min=1),
    metavar="N",
    default=20,
    help="Maximum number of tasks that each provider runs at the same time.",
)
@click.option(
    "--callback-retries",
    type=WholeNumber(min=0),
    metavar="N",
    default=5,
    help="Maximum number of retries of a callback that got no 2xx; the providers document none.",
)
@click.option(
    "--callback-retry-after",
    type=SECONDS,
    metavar="SECONDS",
    default=1.0,
    help="Seconds before each retry.",
)
@click.option(
    "--callback-timeout",
    type=SECONDS,
    metavar="SECONDS",
    default=10.0,
    help="Timeout of a callback, in seconds.",
)
@click.option("--callbacks/--no-callbacks", default=True, help="Whether providers send callbacks.")
@click.option(
    "--allow-private",
    is_flag=True,
    help="Fetch picture URLs from private and loopback addresses of other hosts, too.",
)
@click.option(
    "--url",
    callback=_parsed_by(_public_url),
    help="URL at which clients reach the sandbox, if it is not http://HOST:PORT. Result URLs begin"
    " with it.",
)
@webhook_secret
@click.option(
    "--chaos",
    metavar="NAME[=PERCENT],…",
    callback=_parsed_by(shares),
    help="Scenarios for tasks without one of their own, in percent (dropped=20,failed=10), "
    "or `all`. See: sandbox trigger --list.",
)
@click.option(
    "--chaos-seed",
    type=int,
    metavar="N",
    help="Seed of --chaos; the same seed draws the same scenarios.",
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
    allow_private: bool,
    url: str | None,
    webhook_secret: str | None,
    chaos: dict[str, float] | None,
    chaos_seed: int | None,
) -> None:
    """Serve the providers' APIs, the inboxes and the pages until Ctrl-C or SIGTERM."""
    from sandbox.callback_sender import Persistence
    from sandbox.server import Behaviour, Sandbox

    for name in chaos or ():
        if SCENARIOS[name].signs and not webhook_secret and len(chaos or ()) < len(SCENARIOS):
            raise click.UsageError(f"--chaos: {name} needs --webhook-secret")
    persistence = Persistence(callback_retries, callback_retry_after, callback_timeout)
    behaviour = Behaviour(
        pace=pace,
        max_running=max_running,
        callbacks=callbacks,
        webhook_secret=webhook_secret,
        persistence=persistence,
        chaos=chaos,
        chaos_seed=chaos_seed,
        allow_private=allow_private,
        url=url,
    )
    stopped = _stopped_by_signal()
    try:
        sandbox = Sandbox(host, port, smtp_port, behaviour=behaviour)
    except OSError as fault:
        raise click.ClickException(
            f"cannot listen on {host}, ports {port} and {smtp_port}: "
            f"{(fault.strerror or str(fault)).partition(' (while')[0]}"
        ) from None
    with sandbox:
        click.echo(f"sandbox: API and pages at {sandbox.url}/, mail to {host}:{sandbox.smtp_port}")
        while not stopped:
            time.sleep(0.1)


@click.command()
@click.argument("scenario", required=False)
@click.option("--to", "url", metavar="URL", help="Callback URL.")
@click.option("--list", "wants_list", is_flag=True, help="List the scenarios and exit.")
@click.option(
    "--provider",
    type=click.Choice(PROVIDERS),
    help="[default: taken from the URL's path, else kling]",
)
@click.option("--external-id", help="Your own id of the task. [default: taken from the URL's path]")
@webhook_secret
@click.option(
    "--pace",
    type=SECONDS,
    metavar="SECONDS",
    default=0.2,
    help="Seconds between two status changes.",
)
@click.option(
    "--retries",
    type=WholeNumber(min=0),
    metavar="N",
    default=3,
    help="How often a callback that got no 2xx is sent again.",
)
@click.option(
    "--linger",
    type=SECONDS,
    metavar="SECONDS",
    default=0.0,
    help="Seconds for which the result picture stays available afterwards.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def trigger(
    scenario: str | None,
    url: str | None,
    wants_list: bool,
    provider: str | None,
    external_id: str | None,
    webhook_secret: str | None,
    pace: float,
    retries: int,
    linger: float,
    as_json: bool,
) -> None:
    """Send the callbacks of a scenario to any receiver.

    The URL of the result picture works while the command runs. The exit status is 0 if every
    callback that should be acknowledged was.
    """
    if wants_list:
        click.echo("\n".join(_listed()))
        return
    if scenario is None or url is None:
        raise click.UsageError("name a scenario and a --to URL; `--list` prints the scenarios")
    from sandbox.trigger import Range, TriggerError, TriggerOptions

    shot = TriggerOptions(scenario, url, provider, external_id, webhook_secret, pace, retries)
    try:
        with Range(shot) as fired:
            entries = list(_reported(fired, as_json))
            missing = fired.missing()
            if as_json:
                shown = [entry.as_json() for entry in entries]
                click.echo(json.dumps({"callbacks": shown, "missing": missing}, indent=2))
            else:
                acknowledged = sum(entry.acknowledged for entry in entries)
                click.echo(f"trigger: {len(entries)} sent, {acknowledged} acknowledged")
            time.sleep(linger)
    except (TriggerError, UnknownScenarioError, OSError) as fault:
        raise click.UsageError(str(fault)) from None
    if missing:
        raise click.ClickException(f"not acknowledged: {', '.join(missing)}")


def _listed() -> Iterator[str]:
    """Yield the lines of `--list`, beginning with the scenarios that can be triggered."""
    can_be_triggered = triggerable()
    others = [name for name in SCENARIOS if name not in can_be_triggered]
    yield from _described(can_be_triggered)
    yield ""
    yield "Only in a running sandbox, with POST /_sandbox/next or `sandbox serve --chaos`:"
    yield from _described(others)


def _described(names: list[str]) -> Iterator[str]:
    indented = " " * (NAME_WIDTH + 1)
    for name in names:
        first, *more = textwrap.wrap(
            SCENARIOS[name].summary, LINE_WIDTH - len(indented), break_on_hyphens=False
        )
        yield f"{name:<{NAME_WIDTH}} {first}"
        yield from (indented + line for line in more)


def _reported(fired: Range, quietly: bool) -> Iterator[LedgerEntry]:
    for entry in fired.fire():
        if not quietly:
            reason = ERRNO.search(entry.error or "")
            text = reason[1] if reason else entry.error or entry.answer or ""
            lines = text.strip().splitlines()
            took = (entry.answered_at or entry.sent_at) - entry.sent_at
            status = entry.http_status or "no answer"
            answer = lines[0][:120] if lines else ""
            click.echo(f"  {entry.status:<11} {status}  {took:>5} ms  {answer}")
        yield entry


@click.command()
@click.option(
    "--port", type=PORT, metavar="PORT", default=environment.PORT, help="Port of the sandbox."
)
@click.option("--url", help="URL of the sandbox; replaces --port.")
def env(port: int, url: str | None) -> None:
    """Print the settings that point the receiver and the submitter at a sandbox.

    They come from the running sandbox; without one, the default mail port is assumed.
    """
    base = (url or f"http://127.0.0.1:{port}").rstrip("/")
    host = urlsplit(base).hostname
    if not base.startswith(("http://", "https://")) or host is None:
        raise click.BadParameter("must be an http or https URL", param_hint="--url")
    values = _running_environment(base) or environment.settings(base, host, environment.SMTP_PORT)
    for line in environment.lines(values):
        click.echo(line)


def _running_environment(base: str) -> dict[str, str] | None:
    import requests

    with requests.Session() as session:
        session.trust_env = False
        try:
            answer = session.get(f"{base}/_sandbox/env.json", timeout=ANSWER_WITHIN)
            values = answer.json() if answer.ok else None
        except (requests.RequestException, ValueError):
            return None
    return values if isinstance(values, dict) else None


def _stopped_by_signal() -> list[int]:
    """Return a list to which received signals are appended: setting an event in a handler can
    deadlock.
    """
    received: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: received.append(number))
    return received


@click.command()
@click.option("--keep", is_flag=True, help="Keep everything running at the end, until Ctrl-C.")
@click.option(
    "--database-url",
    metavar="URL",
    help="URL of an empty database. [default: a temporary SQLite file]",
)
@click.option(
    "--progress-within",
    type=Seconds(min=0, min_open=True),
    metavar="SECONDS",
    default=PROGRESS_WITHIN,
    envvar="DEMO_PROGRESS_WITHIN",
    show_envvar=True,
    help="Stop when nothing new happens for this long. The total time has no limit.",
)
def demo(keep: bool, database_url: str | None, progress_within: float) -> None:
    """Run receiver and submitter against a sandbox, from submission to delivered hooks."""
    from sandbox import demo as play

    try:
        play.tell(keep=keep, database_url=database_url, progress_within=progress_within)
    except play.StepError as missing:
        raise click.ClickException(f"the demo stopped: {missing}") from None

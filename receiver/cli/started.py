"""Prints one block when `receiver serve` has started: addresses, features and hooks.

In a log of JSON lines, it is one line.

`receiver serve` runs this module as a separate process, because checking whether callbacks can
arrive may take seconds.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress

import click
from gunicorn.util import parse_address

from receiver import __version__
from receiver.config import env_file, settings
from receiver.config.settings import Settings
from receiver.console import output
from receiver.doctor import reach
from receiver.doctor.findings import Verdict
from receiver.errors import CallbackReceiverError, DeliveryFailure
from receiver.observability import logger, logs
from receiver.outgoing import http
from receiver.processes.current_hooks import CurrentHooks, known_secrets, load_configuration
from receiver.processes.listening import configured_bind
from receiver.stores import open_store
from receiver.text.display import hiding_values

Address = tuple[str, int] | str  # a host and a port, or the path of a socket
LOOK_EVERY = 0.1  # seconds
ANSWERS_WITHIN = 30.0  # seconds; a server that speaks TLS accepts connections, but never answers
# The address at which this machine reaches a server that listens on all addresses.
REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
NAME_WIDTH = 12  # characters


def report(bind: str) -> None:
    """Wait until the web process serves, then print the block. `bind` is the option of `serve`."""
    env_file.load()
    chosen, hooks = load_configuration()
    hide = hiding_values(known_secrets(chosen, hooks.entries))
    output.hide_secrets(hide)
    address: Address = parse_address(bind or configured_bind())
    wait_until_served(address)
    facts = dict(_facts(chosen, hooks, address))
    if is_among_json_lines():
        logs.configure(hide, logger.JSON)
        named = {name.lower().replace(" ", "_"): fact for name, fact in facts.items()}
        logger.Logger().info("receiver serve has started", **named)
        return
    lines = [f"Callback Receiver {__version__} has started."]
    lines += [f"  {name:<{NAME_WIDTH}}{fact}" for name, fact in facts.items()]
    output.print_lines(lines, indent=NAME_WIDTH + 2)


def is_among_json_lines() -> bool:
    """Return whether the output is a log of JSON lines, which the block would break."""
    form = settings.log_format()
    if form != logger.AUTO:
        return form == logger.JSON
    try:
        is_one_file = os.path.sameopenfile(sys.stdout.fileno(), sys.stderr.fileno())
    except (OSError, ValueError):  # not files of the system
        return False
    return is_one_file and not sys.stderr.isatty()


def wait_until_served(address: Address) -> None:
    """Return when the web process accepts connections, and has answered a request, if possible."""
    if isinstance(address, tuple) and address[1] == 0:
        return  # only the log shows the port
    while not _accepts(address):
        time.sleep(LOOK_EVERY)
    until = time.monotonic() + ANSWERS_WITHIN
    while isinstance(address, tuple) and time.monotonic() < until:
        with suppress(DeliveryFailure):
            url = f"{_url(_reached(address))}/healthz"
            with http.stream(url, deadline=1.0, max_bytes=10_000, allow_private=True):
                return
        time.sleep(LOOK_EVERY)


def _accepts(address: Address) -> bool:
    try:
        if isinstance(address, tuple):
            socket.create_connection(_reached(address), timeout=1.0).close()
        else:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(address)
    except OSError:
        return False
    return True


def _reached(address: tuple[str, int]) -> tuple[str, int]:
    host, port = address
    return REACHED_AT.get(host, host), port


def _url(address: Address) -> str:
    if isinstance(address, str):
        return f"unix:{address}"
    host, port = address
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _facts(chosen: Settings, hooks: CurrentHooks, address: Address) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of the lines."""
    shown, base = _url(address), _url(address)
    if isinstance(address, tuple):
        base = _url(_reached(address))
        if base != shown:
            shown += ", on every address of this machine"
        if address[1] == 0:
            shown = f"{address[0]}, at a free port that the log states"
    yield "address", shown
    yield "dashboard", _switch(chosen.dashboard_password, f"{base}/dashboard", "DASHBOARD_PASSWORD")
    yield "API", _switch(chosen.api_token, f"{base}/api", "API_TOKEN")
    names = ", ".join(entry.name for entry in hooks.entries)
    path = hooks.source.path
    yield "hooks", f"{names} ({path})" if names else f"none; add some to {path}: docs/hooks.md"
    yield "reload", f"kill -HUP {os.getppid()} makes all processes read the hooks file again"
    yield "public URL", chosen.public_url or "none; set PUBLIC_URL"
    yield "callbacks", _arrival(chosen, base)


def _switch(value: str | None, url: str, setting: str) -> str:
    return f"{url} ({setting} is set)" if value else f"disabled; set {setting} to enable it"


def _arrival(chosen: Settings, base: str) -> str:
    """Return whether callbacks can arrive. `base` is our own address, for this machine."""
    if chosen.public_url is None:
        return "cannot arrive without PUBLIC_URL; the poller fetches the results instead"
    if http.origin(chosen.public_url) == base:
        return "can arrive from this machine (such as from the sandbox), and from no other"
    with closing(open_store(chosen.database_url)) as store:
        finding = reach.check(chosen, store)
    if finding.verdict is Verdict.OK:
        return f"can arrive: {finding.said}"
    verb = "may not arrive" if finding.verdict is Verdict.WARNING else "cannot arrive"
    return f"{verb}: {finding.said}" + (f"; {finding.todo}" if finding.todo else "")


def main(arguments: Sequence[str]) -> None:
    try:
        report(*arguments)
    except CallbackReceiverError as error:  # the processes report it too
        click.echo(f"receiver: {error}", err=True)


if __name__ == "__main__":
    main(sys.argv[1:])

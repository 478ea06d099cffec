"""Prints one block when `receiver serve` has started: addresses, what is enabled, and the hooks.

`receiver serve` runs this module as a process of its own, because the check whether callbacks can
arrive may take seconds.
"""

from __future__ import annotations

import shlex
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import click
from gunicorn.config import Config
from gunicorn.util import parse_address

from receiver import __version__
from receiver.config import env_file, table
from receiver.config.settings import Settings
from receiver.config.values import default_bind
from receiver.console import output
from receiver.doctor import reach
from receiver.doctor.findings import Finding, Verdict
from receiver.environment import Environment
from receiver.errors import CallbackReceiverError, DeliveryFailure
from receiver.ingest import known_secrets
from receiver.outgoing import http
from receiver.processes.current_hooks import CurrentHooks, load_configuration
from receiver.stores import open_store
from receiver.text.display import hiding_values

Address = tuple[str, int] | str  # a host and a port, or the path of a socket
LOOK_EVERY = 0.1  # seconds
ANSWERS_WITHIN = 30.0  # seconds; a server that accepts connections but speaks TLS never does
# The address at which this machine reaches a server that listens on all addresses.
REACHED_AT = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - not bound here
WITHOUT_PUBLIC_URL = "cannot arrive without PUBLIC_URL; the poller fetches the results instead"
NAME_WIDTH = 12  # characters


def report(bind: str) -> None:
    """Wait until the web process serves, then print the block. `bind` is the option of `serve`."""
    env_file.load()
    chosen, hooks = load_configuration()
    output.hide_secrets(hiding_values(known_secrets(chosen, hooks.entries)))
    address: Address = parse_address(bind or configured_bind())
    wait_until_served(address)
    with closing(open_store(chosen.database_url)) as store:
        arrival = reach.check(chosen, store)
    facts = dict(_facts(chosen, hooks, address, arrival))
    lines = [f"Callback Receiver {__version__} has started."]
    lines += [f"  {name:<{NAME_WIDTH}}{fact}" for name, fact in facts.items()]
    output.print_lines(lines, indent=NAME_WIDTH + 2)


def configured_bind() -> str:
    """Return the address that gunicorn takes from the settings."""
    environment = Environment()
    if arguments := environment.value(table.GUNICORN_CMD_ARGS):
        given: Any = Config().parser().parse_args(shlex.split(arguments)).bind
        if given:
            return str(given[0])
    return default_bind(environment.value(table.PORT))


def wait_until_served(address: Address) -> None:
    """Return when the web process accepts connections, and has answered a request, if possible."""
    if isinstance(address, tuple) and address[1] == 0:
        return  # only the log says which port it is
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


def _facts(
    chosen: Settings, hooks: CurrentHooks, address: Address, arrival: Finding
) -> Iterator[tuple[str, str]]:
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
    yield "public URL", chosen.public_url or "none; set PUBLIC_URL"
    yield "callbacks", _arrival(arrival) if chosen.public_url else WITHOUT_PUBLIC_URL


def _switch(value: str | None, url: str, setting: str) -> str:
    return f"{url} ({setting} is set)" if value else f"disabled; set {setting} to enable it"


def _arrival(finding: Finding) -> str:
    """Return whether callbacks can arrive."""
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

"""Checks that the web process can listen at its addresses, before gunicorn tries to.

`receiver serve` also checks this before it starts any process.
"""

from __future__ import annotations

import errno
import os
import shlex
import socket
import stat
from pathlib import Path
from typing import Any

from receiver.config import table
from receiver.config.values import default_bind
from receiver.environment import Environment

BUSY = "another process uses it; stop that process, or choose another address"
REASONS = {
    errno.EADDRINUSE: BUSY,
    errno.EADDRNOTAVAIL: "this machine does not have this address",
    errno.EACCES: "this user may not listen there; ports below 1024 need a privilege",
    errno.EPERM: "this user may not listen there",
    errno.EAFNOSUPPORT: "this machine does not support this kind of address",
    errno.ENOENT: "its directory does not exist",
}
ADVICE = "set the address with --bind or PORT"
Address = tuple[str, int] | str | int  # TCP, a Unix socket, or an inherited descriptor


def configured_bind() -> str:
    """Return the address that gunicorn takes from the settings."""
    given = _gunicorn_arguments()
    if given is not None and given.bind:
        return str(given.bind[0])
    return default_bind(Environment().value(table.PORT))


def problem_before_start(bind: str | None) -> str | None:
    """Return why the web process will not be able to listen; None if nothing is known against it.

    `bind` is the option of `receiver serve`. An inherited or shared address is not checked.
    """
    from gunicorn.util import parse_address  # noqa: PLC0415 - gunicorn imports this module

    given = _gunicorn_arguments()
    if os.environ.get("LISTEN_FDS") or (given is not None and given.reuse_port):
        return None
    try:
        return problem_with(parse_address(bind or configured_bind()))
    except RuntimeError:  # gunicorn reports an address that it does not understand
        return None


def _gunicorn_arguments() -> Any:
    """Return the parsed GUNICORN_CMD_ARGS; None if the setting is unset."""
    arguments = Environment().value(table.GUNICORN_CMD_ARGS)
    if not arguments:
        return None
    from gunicorn.config import Config  # noqa: PLC0415 - rarely set

    return Config().parser().parse_args(shlex.split(arguments))


def problem_with(address: Address) -> str | None:
    """Return one sentence that states why we cannot listen at this address; None if we can."""
    if isinstance(address, int):
        return None
    try:
        if isinstance(address, str):
            reason = _problem_of_unix(address)
        else:
            reason = None
            _bind(address)
    except (OSError, UnicodeError, OverflowError) as error:
        number = getattr(error, "errno", None)
        reason = REASONS.get(number or 0) or str(getattr(error, "strerror", None) or error)
    return f"cannot listen at {shown(address)}: {reason} ({ADVICE})" if reason else None


def shown(address: Address) -> str:
    """Return the address as it is written in settings."""
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return f"unix:{address}"


def _bind(address: tuple[str, int]) -> None:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)
        probe.listen(1)


def _problem_of_unix(path: str) -> str | None:
    """Return why we cannot listen at a Unix socket; None if we can.

    gunicorn would replace a socket that another process uses.
    """
    if path.startswith("\0"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.bind(path)
        return None
    try:
        is_socket = stat.S_ISSOCK(Path(path).stat().st_mode)
    except FileNotFoundError:
        folder = Path(path).parent
        if not folder.is_dir():
            return REASONS[errno.ENOENT]
        return None if os.access(folder, os.W_OK) else "this user may not write to its directory"
    if not is_socket:
        return "a file that is not a socket has this name; remove it or choose another name"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return None  # its process has ended
        except TimeoutError:
            pass  # its queue of connections is full
    return BUSY

"""Keeps libraries that open connections of their own from internal addresses.

They do not come by the guarded session. Python tells its audit hooks the very address that a socket
is about to connect to, after every name was resolved and every redirect followed: there it is
refused. Only code within `public_only` is looked at, on its own thread.
"""

from __future__ import annotations

import ipaddress
import sys
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from receiver.outgoing.ssrf_guard import is_public

EVENTS = frozenset({"socket.connect", "socket.sendto", "socket.sendmsg"})

_here = threading.local()


class AddressRefused(OSError):
    """The address is not a public one."""


@contextmanager
def public_only() -> Iterator[list[str]]:
    """Within the block this thread reaches public addresses only; the others raise Refused.

    What was refused is noted in the list: libraries tend to swallow the error.
    """
    _install()
    _here.refused = refused = list[str]()
    try:
        yield refused
    finally:
        _here.refused = None


@cache
def _install() -> None:
    sys.addaudithook(_look)  # for ever: a hook cannot be taken away


# At the end of the interpreter the names of a module are None, and hooks are still called.
def _look(event: str, args: tuple[Any, ...], events: Collection[str] = EVENTS) -> None:
    if event not in events:
        return
    refused: list[str] | None = getattr(_here, "refused", None)
    if refused is not None and not _may_be_reached(args[-1]):
        refused.append(str(args[-1]))
        raise AddressRefused(0, "that is not a public address")


def _may_be_reached(address: Any) -> bool:
    """Names are refused as well: whoever resolves one first connects to an address."""
    try:
        return is_public(ipaddress.ip_address(address[0]))
    except (ValueError, TypeError, IndexError):
        return False

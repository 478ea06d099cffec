"""Prevents libraries that open their own connections from reaching internal addresses.

Such libraries do not use the guarded session. Python calls its audit hooks with the address that a
socket is about to connect to, after all names were resolved and all redirects were followed. An
audit hook refuses the address, but only on a thread that is inside `public_only`.
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
    """The address is not public."""


@contextmanager
def public_only() -> Iterator[list[str]]:
    """Let this thread connect only to public addresses; any other raises AddressRefused.

    Yields a list of the refused addresses, because libraries tend to swallow the error.
    """
    _install()
    _here.refused = refused = list[str]()
    try:
        yield refused
    finally:
        _here.refused = None


@cache
def _install() -> None:
    sys.addaudithook(_audit)  # an audit hook cannot be removed


# At interpreter shutdown hooks are still called, but the names of modules are None.
def _audit(event: str, args: tuple[Any, ...], events: Collection[str] = EVENTS) -> None:
    if event not in events:
        return
    refused: list[str] | None = getattr(_here, "refused", None)
    if refused is not None and not _is_allowed(args[-1]):
        refused.append(str(args[-1]))
        raise AddressRefused(0, "that is not a public address")


def _is_allowed(address: Any) -> bool:
    """Return whether this is a public IP address.

    A host name is not: libraries resolve it first.
    """
    try:
        return is_public(ipaddress.ip_address(address[0]))
    except (ValueError, TypeError, IndexError):
        return False

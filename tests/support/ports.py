"""Ports for servers that a test starts on loopback."""

from __future__ import annotations

import random
import socket

# Below the range that Linux draws from for outgoing connections (32768 to 60999), so that no
# connection of another test takes a port between the choice and the start of the server.
FROM, TO = 12_000, 32_000


def free_port() -> int:
    """Return a free port that no other call returns while this process lives.

    This holds across processes: several test runs, each with several processes, choose at the same
    time. The reservation is an abstract Unix socket (Linux only), which the kernel releases when
    the process ends.
    """
    while True:
        port = random.randrange(FROM, TO)  # noqa: S311 - any port will do
        if _reserve(port) and _is_free(port):
            return port


def _reserve(port: int) -> bool:
    reservation = socket.socket(socket.AF_UNIX)
    try:
        reservation.bind(f"\0callback-receiver-tests-{port}")
    except OSError:
        reservation.close()
        return False
    reservation.detach()  # it stays open until the process ends
    return True


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True

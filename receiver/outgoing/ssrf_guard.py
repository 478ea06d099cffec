"""A `requests` session that reaches only public addresses, within a deadline.

Built on requests-hardened, which resolves the name once, checks the address and connects to that
address.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import partial
from typing import Any, cast

import requests
from requests.adapters import HTTPAdapter
from requests_hardened import Config, HTTPSession
from requests_hardened.ip_filter import InvalidIPAddress
from requests_hardened.ip_filter_adapter import IPFilterAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from receiver.outgoing.deadline import Deadline

# IPv6 addresses outside of this network are not routed publicly, although Python 3.11 considers
# some of them global: `::127.0.0.1` and `fec0::1`.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
NotPublic = InvalidIPAddress  # a requests.RequestException


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether the address is routed on the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


class GuardedSession(HTTPSession):  # type: ignore[misc]
    """A session for one exchange; all its connections are closed at the deadline."""

    def __init__(self, clock: Deadline, allow_private: bool) -> None:
        super().__init__(
            Config(
                ip_filter_enable=not allow_private,
                ip_filter_allow_loopback_ips=False,
                never_redirect=True,
                default_timeout=(clock.seconds, clock.seconds),
                user_agent_override="callback-receiver",
            )
        )
        self.trust_env = False
        self.headers["Accept-Encoding"] = "identity"
        for scheme in ("http", "https"):
            adapter = _AnyAddress() if allow_private else _PublicOnly(scheme == "https")
            adapter.clock = clock
            self.mount(f"{scheme}://", adapter)

    def get_redirect_target(self, resp: requests.Response) -> None:  # noqa: ARG002
        """Return None; otherwise requests reads the whole body of a redirect, however large."""
        return


class _AnyAddress(HTTPAdapter):
    """Connects to any address, within the deadline."""

    clock: Deadline

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        pool = cast("HTTPConnectionPool", super().get_connection_with_tls_context(*args, **kwargs))
        kind = _HttpsInTime if isinstance(pool, HTTPSConnectionPool) else _HttpInTime
        # Per pool, because each exchange has its own deadline.
        pool.ConnectionCls = partial(kind, clock=self.clock)  # type: ignore[assignment]
        return pool


class _PublicOnly(_AnyAddress, IPFilterAdapter):  # type: ignore[misc]
    """Connects only to public addresses; stricter than requests-hardened, see GLOBAL_UNICAST."""

    def build_connection_pool_key_attributes(self, *args: Any, **kwargs: Any) -> Any:
        checked = super().build_connection_pool_key_attributes
        host, pool = self.clock.run(lambda: checked(*args, **kwargs))  # it resolves the name
        address = ipaddress.ip_address(host["host"].strip("[]"))
        if not is_public(address):
            raise NotPublic(address)
        return host, pool


class _HttpInTime(HTTPConnection):
    """A connection that is shut down at the deadline."""

    def __init__(self, *args: Any, clock: Deadline, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._clock = clock

    def _new_conn(self) -> socket.socket:
        connection = self._clock.connect(self._dns_host.strip("[]"), self.port)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection


class _HttpsInTime(_HttpInTime, HTTPSConnection):
    """A connection with TLS that is shut down at the deadline."""

"""Decides which addresses may be reached: those that are routed on the public internet."""

from __future__ import annotations

import ipaddress

from requests_hardened.ip_filter import InvalidIPAddress, get_ip_address

# IPv6 addresses outside of this network are not routed publicly, although Python 3.11 considers
# some of them global: `::127.0.0.1` and `fec0::1`.
GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
NotPublic = InvalidIPAddress  # a requests.RequestException


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether the address is routed on the public internet."""
    if isinstance(address, ipaddress.IPv6Address) and address not in GLOBAL_UNICAST:
        return False
    return address.is_global and not (address.is_multicast or address.is_reserved)


def public_address(host: str, port: int) -> str:
    """Resolve the name once, and return its address.

    Raises NotPublic, OSError if the name cannot be resolved, or ValueError if it is invalid. The
    address is checked twice, because requests-hardened and Python know different networks.
    """
    address, _ = get_ip_address(host, port, allow_loopback=False)
    if not is_public(address):
        raise NotPublic(address)
    return str(address)

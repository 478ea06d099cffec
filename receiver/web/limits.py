"""How many refusals an address gets before it has to wait; who is not refused is never limited."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from threading import Lock

BURST = 60  # refusals at once: a day's wrong callbacks of one misconfigured task
PER_SECOND = 1.0  # and then so many
MOST_ADDRESSES = 10_000  # the one that was quiet longest is forgotten first


class Limits:
    """A bucket for each address, in this process only. `now`: seconds of a monotonic clock."""

    def __init__(
        self, burst: int = BURST, per_second: float = PER_SECOND, most: int = MOST_ADDRESSES
    ) -> None:
        self._burst, self._per_second, self._most = burst, per_second, most
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # left, seen at
        self._lock = Lock()

    def wait(self, address: str, now: float) -> float | None:
        """Take one refusal for this address; seconds to wait if none is left, None if one was."""
        sender = network(address)
        with self._lock:
            left, seen_at = self._buckets.pop(sender, (float(self._burst), now))
            left = min(self._burst, left + (now - seen_at) * self._per_second)
            has_one = left >= 1
            self._buckets[sender] = (left - 1 if has_one else left, now)
            if len(self._buckets) > self._most:
                self._buckets.popitem(last=False)
        return None if has_one else (1 - left) / self._per_second


def network(address: str) -> str:
    """What counts as one sender: an IPv4 address; of IPv6 the /64, which one customer has."""
    text = address.rpartition(":")[0] if address.count(":") == 1 else address  # without a port
    try:
        found = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped:
        return str(found.ipv4_mapped)
    return str(ipaddress.ip_network((found, 64), strict=False))

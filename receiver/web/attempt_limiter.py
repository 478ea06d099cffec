"""Limits how many wrong passwords and tokens a sender may try. Correct tokens are never limited."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Sequence
from threading import Lock
from typing import Protocol

import structlog

from receiver.clock import now_ms
from receiver.errors import StoreError
from receiver.stores.sql.sessions import SLOTS, Allowance, Usage
from receiver.text import limits
from receiver.web.debounce import Debouncer

MAX_SENDERS = 10_000  # senders in memory; the one that was inactive longest is dropped first
MAX_MERGED = 200  # senders in one merge; any others are only counted in this process
MERGE_INTERVAL = 1.0  # seconds, at least, between two merges, and between two reads
RETRY_INTERVAL = 10.0  # seconds without a read after a read that failed
log = structlog.get_logger()


class AttemptStore(Protocol):
    """The part of the store that `AttemptLimiter` uses; see `store.sessions`."""

    def add_refused_attempts(
        self, allowance: Allowance, usages: Sequence[Usage], now: int
    ) -> list[Usage]: ...

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]: ...


class AttemptLimiter:
    """Counts the attempts of each sender in memory, and merges them with those of other processes.

    With a `store`, `merge` runs on its own thread, at most once per second, and only after
    attempts. `wait` never writes, and reads the store at most once per second. While the store is
    unavailable, each process counts alone, and its counts are merged later. `key` makes the digests
    of networks unpredictable. `now`: seconds of the monotonic clock.
    """

    def __init__(
        self,
        burst: int = limits.MAX_REJECTED_AT_ONCE,
        per_second: float = limits.MAX_REJECTED_PER_SECOND,
        max_senders: int = MAX_SENDERS,
        kind: str = "token",
        store: AttemptStore | None = None,
        key: str = "",
    ) -> None:
        self._allowance, self._max_senders = Allowance(kind, burst, per_second), max_senders
        self._store, self._key = store, hashlib.sha256(key.encode()).digest()
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # used, and the time
        self._unmerged: dict[str, tuple[float, float]] = {}
        self._lock = Lock()
        self._store_access = Lock()  # held during a merge or a read
        self._read_again_at = float("-inf")
        self._debouncer = Debouncer(self.merge, MERGE_INTERVAL) if store else None
        self._is_merge_failing = False

    def wait(self, address: str, now: float) -> float | None:
        """Count one attempt. If none is left, count nothing and return the seconds to wait.

        Returns None if the attempt is within the limit.
        """
        sender = self._digest(network(address))
        self._read(now)
        with self._lock:
            used = self._as_of(self._used.get(sender, (0.0, now)), now)
            is_allowed = used <= self._allowance.burst - 1
            self._put(sender, used + is_allowed, now)
            if is_allowed and self._store:
                self._count_for_merge(sender, 1.0, now)
        if not is_allowed:
            return (used + 1 - self._allowance.burst) / self._allowance.per_second
        if self._debouncer:
            self._debouncer.schedule()
        return None

    def merge(self, now: float | None = None) -> None:
        """Add the counted attempts to the store, and read those of other processes."""
        assert self._store is not None  # noqa: S101 - otherwise nothing schedules a merge
        with self._store_access:
            now = time.monotonic() if now is None else now
            with self._lock:
                counted, self._unmerged = self._unmerged, {}
            if not counted:
                return
            at = now_ms()
            usages = [
                Usage(int(sender[:8], 16) % SLOTS, sender, self._as_of(bucket, now), at)
                for sender, bucket in counted.items()
            ]
            try:
                self._adopt(self._store.add_refused_attempts(self._allowance, usages, at), now)
                self._is_merge_failing = False
            except StoreError as error:
                self._put_back(counted, now)
                if not self._is_merge_failing:
                    log.warning(
                        "wrong attempts are counted by each process alone", error=str(error)
                    )
                self._is_merge_failing = True

    def close(self) -> None:
        """Cancel the merge that is due."""
        if self._debouncer:
            self._debouncer.close()

    def _read(self, now: float) -> None:
        """Read the attempts counted by other processes, unless they were just read."""
        if self._store is None or now < self._read_again_at:
            return
        if not self._store_access.acquire(blocking=False):
            return  # another thread reads the store: this one does not wait
        try:
            self._read_again_at = now + MERGE_INTERVAL
            self._adopt(self._store.refused_attempts(self._allowance, now_ms()), now)
        except StoreError:
            self._read_again_at = now + RETRY_INTERVAL
        finally:
            self._store_access.release()

    def _adopt(self, usages: Sequence[Usage], now: float) -> None:
        """Use the attempts on record where they exceed those in memory."""
        with self._lock:
            for usage in usages:
                unmerged = self._as_of(self._unmerged.get(usage.sender, (0.0, now)), now)
                used = self._as_of(self._used.get(usage.sender, (0.0, now)), now)
                self._put(usage.sender, max(used, usage.used + unmerged), now)

    def _put_back(self, counted: dict[str, tuple[float, float]], now: float) -> None:
        """Add the attempts that could not be merged to the next merge."""
        with self._lock:
            for sender, bucket in counted.items():
                self._count_for_merge(sender, self._as_of(bucket, now), now)
        if self._debouncer:
            self._debouncer.schedule()

    def _count_for_merge(self, sender: str, attempts: float, now: float) -> None:
        if sender in self._unmerged or len(self._unmerged) < MAX_MERGED:
            used = self._as_of(self._unmerged.get(sender, (0.0, now)), now)
            self._unmerged[sender] = (used + attempts, now)

    def _put(self, sender: str, used: float, now: float) -> None:
        self._used[sender] = (used, now)
        self._used.move_to_end(sender)
        if len(self._used) > self._max_senders:
            self._used.popitem(last=False)

    def _as_of(self, bucket: tuple[float, float], now: float) -> float:
        used, at = bucket
        return self._allowance.after(used, now - at)

    def _digest(self, sender: str) -> str:
        text = sender.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()


def network(address: str) -> str:
    """Return the key of one sender: an IPv4 address, or the /64 network of an IPv6 address.

    A provider usually assigns a whole /64 network to one customer.
    """
    text = address.rpartition(":")[0] if address.count(":") == 1 else address  # without a port
    try:
        ip = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(ip, ipaddress.IPv4Address):
        return str(ip)
    if ip.ipv4_mapped:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))

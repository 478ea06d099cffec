"""Limits how many wrong passwords and tokens a sender may try; correct tokens are never limited."""

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
from receiver.stores.access import SLOTS, Allowance, Usage
from receiver.web.debounce import Debouncer

BURST = 60  # refusals at once: a day's wrong callbacks of one misconfigured task
PER_SECOND = 1.0  # and then so many
MOST_ADDRESSES = 10_000  # the one that was quiet longest is forgotten first
MOST_MERGED = 200  # senders in one merge; those of others are only counted in this process
MERGE_INTERVAL = 1.0  # seconds between two merges, and between two reads, at the least
RETRY_INTERVAL = 10.0  # seconds without a read after a read that failed
log = structlog.get_logger()


class AttemptStore(Protocol):
    """The part of the store that `Limits` uses; see `stores.access.Access`."""

    def add_refused_attempts(
        self, allowance: Allowance, found: Sequence[Usage], now: int
    ) -> list[Usage]: ...

    def refused_attempts(self, allowance: Allowance, now: int) -> list[Usage]: ...


class AttemptLimiter:
    """Counts the attempts of each sender in memory, and merges them with those of other processes.

    With a `store`, `merge` runs on its own thread, at most once per second, and only after
    attempts. `wait` never writes, and reads the store at most once per second. While the store is
    unavailable, each process counts alone, and what it counted is merged later. `key` makes the
    digests of networks unpredictable. `now`: seconds of the monotonic clock.
    """

    def __init__(
        self,
        burst: int = BURST,
        per_second: float = PER_SECOND,
        most: int = MOST_ADDRESSES,
        kind: str = "token",
        store: AttemptStore | None = None,
        key: str = "",
    ) -> None:
        self._allowance, self._most = Allowance(kind, burst, per_second), most
        self._store, self._key = store, hashlib.sha256(key.encode()).digest()
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()  # used, as of
        self._unmerged: dict[str, tuple[float, float]] = {}
        self._lock = Lock()
        self._exchange = Lock()  # held during a merge or a read
        self._read_again_at = float("-inf")
        self._later = Debouncer(self.merge, MERGE_INTERVAL) if store else None
        self._is_merge_failing = False

    def wait(self, address: str, now: float) -> float | None:
        """Count one attempt. Returns the seconds to wait if none is left, and then counts nothing.

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
        if self._later:
            self._later.ask()
        return None

    def merge(self, now: float | None = None) -> None:
        """Add what was counted to the store, and take over what other processes have added."""
        assert self._store is not None  # noqa: S101 - only then `Later` calls it
        with self._exchange:
            now = time.monotonic() if now is None else now
            with self._lock:
                counted, self._unmerged = self._unmerged, {}
            if not counted:
                return
            at = now_ms()
            found = [
                Usage(_slot(sender), sender, self._as_of(bucket, now), at)
                for sender, bucket in counted.items()
            ]
            try:
                self._take_over(self._store.add_refused_attempts(self._allowance, found, at), now)
            except StoreError as error:
                self._put_back(counted, now)
                if not self._is_merge_failing:
                    log.warning("wrong attempts are counted by each process", error=str(error))
                self._is_merge_failing = True
            else:
                self._is_merge_failing = False

    def close(self) -> None:
        """Cancel the merge that is due."""
        if self._later:
            self._later.close()

    def _read(self, now: float) -> None:
        """Take over what other processes have added, unless that was done a moment ago."""
        if self._store is None or now < self._read_again_at:
            return
        if not self._exchange.acquire(blocking=False):
            return  # another thread reads the store: this one does not wait
        try:
            self._read_again_at = now + MERGE_INTERVAL
            self._take_over(self._store.refused_attempts(self._allowance, now_ms()), now)
        except StoreError:
            self._read_again_at = now + RETRY_INTERVAL
        finally:
            self._exchange.release()

    def _take_over(self, found: Sequence[Usage], now: float) -> None:
        with self._lock:
            for usage in found:
                unmerged = self._as_of(self._unmerged.get(usage.sender, (0.0, now)), now)
                used = self._as_of(self._used.get(usage.sender, (0.0, now)), now)
                self._put(usage.sender, max(used, usage.used + unmerged), now)

    def _put_back(self, counted: dict[str, tuple[float, float]], now: float) -> None:
        """Keep what could not be merged for the next merge."""
        with self._lock:
            for sender, bucket in counted.items():
                self._count_for_merge(sender, self._as_of(bucket, now), now)
        if self._later:
            self._later.ask()

    def _count_for_merge(self, sender: str, more: float, now: float) -> None:
        if sender in self._unmerged or len(self._unmerged) < MOST_MERGED:
            used = self._as_of(self._unmerged.get(sender, (0.0, now)), now)
            self._unmerged[sender] = (used + more, now)

    def _put(self, sender: str, used: float, now: float) -> None:
        self._used[sender] = (used, now)
        self._used.move_to_end(sender)
        if len(self._used) > self._most:
            self._used.popitem(last=False)

    def _as_of(self, bucket: tuple[float, float], now: float) -> float:
        used, at = bucket
        return self._allowance.after(used, now - at)

    def _digest(self, sender: str) -> str:
        text = sender.encode("utf-8", "surrogatepass")
        return hashlib.blake2b(text, key=self._key, digest_size=16).hexdigest()


def _slot(digest: str) -> int:
    return int(digest[:8], 16) % SLOTS


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

"""The slots of one worker process: how many attempts run at a time, and for which hooks.

If an endpoint hangs, each attempt occupies a slot until the deadline of its hook. To delay only the
deliveries of that hook, no hook may occupy every slot (see docs/adr/0014-worker-slots.md):

- A hook that is missing from the hooks file has no slot: its deliveries wait until it is back.
- A hook without a running attempt may use any free slot.
- A hook whose last attempt timed out may use one slot.
- A hook that delivered something in the last 5 seconds may use all slots but one.
- Any other hook may begin another attempt while its running attempts are fewer than the free slots.

A delivery whose last attempt was abandoned may have killed its worker. Such deliveries begin one
after another, so that one of them cannot interrupt the attempts of the others again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Self

from receiver.endpoints import Limits
from receiver.stores.sql.hook_queues import Candidate

PROMPT_FOR = 5.0  # seconds after a success during which a hook counts as prompt
WATCHED_FOR = 10.0  # seconds after which a delivery has probably not killed its worker


class WorkerSlots:
    """Assigns the slots of this process to hooks; see `hook_queues.Admission`. Thread-safe.

    `clock` is in seconds; `is_known` returns whether a hook is in the hooks file. `limits` returns
    the hooks with limits for all workers together, which the store applies.
    """

    def __init__(
        self,
        count: int,
        clock: Callable[[], float] = time.monotonic,
        is_known: Callable[[str], bool] = lambda _: True,
        limits: Callable[[], Mapping[str, Limits]] = dict,
    ) -> None:
        self._count = count
        self._clock = clock
        self._is_known = is_known
        self._limits = limits
        self._running: dict[int, tuple[Candidate, float]] = {}  # by delivery; when it began
        self._delivered_at: dict[str, float] = {}
        self._lock = threading.RLock()

    @property
    def limits(self) -> Mapping[str, Limits]:
        return self._limits()

    @property
    def free(self) -> int:
        """The number of slots without a running attempt."""
        return self._count - len(self._running)

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        """Return whether another delivery of this hook may begin now."""
        return self.available_for(hook, timed_out=timed_out) > 0

    def available_for(self, hook: str, *, timed_out: bool = False) -> int:
        """Return how many more deliveries of this hook may begin now."""
        if not self._is_known(hook):
            return 0
        with self._lock:
            running = sum(candidate.hook == hook for candidate, _ in self._running.values())
            free = self.free
            delivered_at = self._delivered_at.get(hook)
            is_prompt = delivered_at is not None and self._clock() - delivered_at < PROMPT_FOR
            more = 0
            while free > more:
                begun = running + more
                most = 1 if timed_out else self._count - 1 if is_prompt else free - more
                if begun and begun >= most:
                    break
                more += 1
            return more

    @property
    def takes_abandoned(self) -> bool:
        """Whether a delivery whose last attempt was abandoned may begin now."""
        began_after = self._clock() - WATCHED_FOR
        with self._lock:
            return not any(
                candidate.abandoned and began_at > began_after
                for candidate, began_at in self._running.values()
            )

    def begin(self, candidate: Candidate) -> bool:
        """Reserve a slot for this delivery until `end`; return False if none is available."""
        with self._lock:
            if (
                candidate.id in self._running
                or not self.has_slot(candidate.hook, timed_out=candidate.timed_out)
                or (candidate.abandoned and not self.takes_abandoned)
            ):
                return False
            self._running[candidate.id] = candidate, self._clock()
            return True

    def end(self, delivery_id: int, *, delivered: bool = False) -> None:
        """Free the slot of this delivery, if it has one."""
        with self._lock:
            ended = self._running.pop(delivery_id, None)
            if ended is not None and delivered:
                self._delivered_at[ended[0].hook] = self._clock()


@dataclass(slots=True)
class Reservation:
    """Reserves slots for one claim; frees those that were not kept at the end of the block.

    A transaction may still run after that, if its caller has stopped waiting for the commit. It
    gets no slots, because they would never be freed.
    """

    slots: WorkerSlots
    # The hooks that had no slot, and whether the last attempt of each timed out.
    refused: dict[str, bool] = field(default_factory=dict)
    _begun: set[int] = field(default_factory=set)
    _has_ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def limits(self) -> Mapping[str, Limits]:
        return self.slots.limits

    def has_slot(self, hook: str, *, timed_out: bool) -> bool:
        if self.slots.available_for(hook, timed_out=timed_out):
            return True
        self.refused[hook] = timed_out
        return False

    @property
    def takes_abandoned(self) -> bool:
        return self.slots.takes_abandoned

    def begin(self, candidate: Candidate) -> bool:
        with self._lock:
            if self._has_ended:
                return False
            if candidate.id not in self._begun and self.slots.begin(candidate):
                self._begun.add(candidate.id)
            return candidate.id in self._begun

    def keep(self, delivery_ids: Collection[int]) -> None:
        """Keep the slots of claimed deliveries until `WorkerSlots.end`."""
        self._begun.difference_update(delivery_ids)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._has_ended = True
        for delivery_id in self._begun:
            self.slots.end(delivery_id)

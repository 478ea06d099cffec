"""The rest of the contract of a store whose deliveries a job queue hands out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

from receiver.deliveries import Delivery
from receiver.stores.admission import UNLIMITED, Admission
from receiver.stores.base import Store

QUEUE = "deliveries"
TASK = "attempt"  # the job's task; its only argument is `delivery_id`


@runtime_checkable
class Announcing(Protocol):
    """Whatever makes a delivery due announces it as a job, in the same commit.

    Jobs may be lost, doubled or late: the delivery row alone says what is to be done.
    """

    def queue(self) -> Any:
        """A `procrastinate.App` on this database; the caller opens it."""
        ...

    def is_pooled(self) -> bool:
        """Whether a pooler changes servers between transactions, so that LISTEN has no effect.

        Raises StoreUnavailable.
        """
        ...

    def take(
        self,
        delivery_id: int,
        worker: str,
        now: int,
        lease_until: int,
        admission: Admission = UNLIMITED,
    ) -> Delivery | None:
        """Claim this delivery, as `Outbox.claim` does; None if it cannot be attempted now.

        If its hook has no slot, all due jobs of the hook are removed, so that they do not delay
        other hooks. The caller then announces the hook's next deliveries once it has a slot. If
        None is returned, a later job, the sweep or the worker with the claim attempts the delivery.
        """
        ...

    def announce_next(self, hook: str, now: int, limit: int) -> bool:
        """Announce the hook's oldest due deliveries, up to `limit`, that have no job.

        Returns False if none of the hook's deliveries can be attempted now.
        """
        ...

    def announce_missing(self, now: int, without_slot: Collection[str] = ()) -> int:
        """Announce deliveries without a job that are due, or whose worker is gone; return how many.

        Skips due deliveries of hooks in `without_slot`; see `take`.
        """
        ...


class AnnouncingStore(Store, Announcing, Protocol):
    """The whole contract of such a store."""

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

    def take(
        self,
        delivery_id: int,
        worker: str,
        now: int,
        lease_until: int,
        admission: Admission = UNLIMITED,
    ) -> Delivery | None:
        """Claim this delivery, as `Outbox.claim` does; None if it is not to be attempted now.

        If its hook has no slot, the jobs of the hook that are due are removed, so that they delay
        no other hook: the caller announces the hook's next deliveries once it has a slot. Nothing
        is lost with None: a later job, the sweep, or the worker that holds the delivery goes on.
        """
        ...

    def announce_next(self, hook: str, now: int, limit: int) -> bool:
        """Announce the hook's oldest due deliveries, up to `limit`, that have no job.

        Returns False if none of the hook's deliveries can be attempted now.
        """
        ...

    def announce_missing(self, now: int, without_slot: Collection[str] = ()) -> int:
        """Announce what is due, or held by a worker that is gone, and has no job; how many.

        Due deliveries of hooks `without_slot` are left out: see `take`.
        """
        ...


class AnnouncingStore(Store, Announcing, Protocol):
    """The whole contract of such a store."""

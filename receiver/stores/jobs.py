"""The rest of the contract of a store whose deliveries a job queue hands out."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from receiver.deliveries import Delivery
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
        self, delivery_id: int, worker: str, now: int, lease_until: int, places: int
    ) -> Delivery | None:
        """Claim this delivery, as `Outbox.claim` does; None if it is not to be attempted now.

        `places`: how many the worker attempts at the same time. While another hook has something
        due, no hook gets the last of them. Nothing is lost with None: a later job, the sweep, or
        whoever holds it goes on.
        """
        ...

    def announce_missing(self, now: int) -> int:
        """Announce what is due, or held by a worker that is gone, and has no job; how many."""
        ...


class AnnouncingStore(Store, Announcing, Protocol):
    """The whole contract of such a store."""

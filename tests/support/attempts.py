"""Single attempts at claimed deliveries, without a dispatcher."""

from __future__ import annotations

from threading import Event

from receiver.deliveries import Delivery, Notice, State
from receiver.delivery.attempt import DeliveryWorker
from receiver.delivery.worker_slots import Reservation
from receiver.stores.base import Store
from receiver.stores.sql.claims import ClaimedDelivery, NoticeSource, load_claims


def make_attempt(worker: DeliveryWorker, delivery: ClaimedDelivery) -> State:
    """Make the attempt that began with the claim; return the state of the delivery on record."""
    (ready,) = worker.keep([delivery], Reservation(worker.slots))
    stop = Event()
    stop.set()  # nothing else is claimed
    assert worker.run(ready, stop) is None
    return worker.store.queries.delivery(delivery.id).state


def current_notice(worker: DeliveryWorker, delivery: Delivery) -> Notice:
    """Return what the hook would receive now."""
    return worker.notice(_as_claimed(worker.store, delivery), {})


def notice_source(store: Store, delivery: Delivery) -> NoticeSource:
    """Return what the notice would be made from now."""
    return _as_claimed(store, delivery).source


def _as_claimed(store: Store, delivery: Delivery) -> ClaimedDelivery:
    with store.database.reading() as session:
        (found,) = load_claims(session, [delivery.id])
    return found

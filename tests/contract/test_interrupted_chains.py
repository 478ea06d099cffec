"""A chain is forgotten, pruned, dropped or copied after its first hook has returned its output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from receiver.deliveries import Attempt, State
from receiver.ingest import Ingest
from receiver.maintenance.copy import copy
from receiver.maintenance.forget import forget
from receiver.maintenance.prune import prune
from receiver.stores.base import Store
from receiver.stores.postgres import PostgresStore
from receiver.stores.sql.claims import ClaimedDelivery
from receiver.stores.sqlite import SqliteStore
from tests.support.samples import callback, subscription

LATER = 2_000_000_000_000
LEASE = 10_000
DAY = 86_400_000
OUTPUT = {"url": "https://cdn.example/anna.png"}
CHAIN = (
    subscription("cutout"),
    subscription("shop", after="cutout"),
    subscription("mail", after="shop"),
)


def claim(store: Store, now: int = LATER) -> ClaimedDelivery:
    """Claim the only delivery that is due."""
    (delivery,) = store.outbox.claim("w", now, now + LEASE, 9)
    return delivery


def end(
    store: Store, delivery: ClaimedDelivery, state: State = State.DELIVERED, at: int = LATER
) -> None:
    outcome = "delivered" if state is State.DELIVERED else "failed"
    attempt = Attempt(delivery.attempts, at, at, outcome, "")
    due_at = at if state is State.PENDING else None
    output = OUTPUT if delivery.hook == "cutout" else None
    assert store.outbox.settle(delivery, attempt, state, due_at, output=output)


def begin(store: Store, step: str) -> ClaimedDelivery | None:
    """Run the chain up to a step; return the running delivery, if there is one."""
    Ingest(store, CHAIN).accept(callback())
    end(store, claim(store))
    if step == "waiting":
        return None
    running = claim(store)
    if step == "running":
        return running
    end(store, running, State.PENDING)
    return None


def outputs(store: Store) -> dict[str, object]:
    return {one.hook: one.output for one in store.lists.deliveries() if one.output}


STEPS = ("waiting", "running", "retrying")


@pytest.mark.parametrize("step", STEPS)
def test_forgetting_ends_the_chain_and_erases_the_output(store: Store, step: str) -> None:
    running = begin(store, step)
    store.erasures.close_task("task-1", LATER)
    if running is not None:
        assert running.source.notice.outputs == {"cutout": OUTPUT}  # read before
        end(store, running)
    assert store.outbox.claim("w", LATER + DAY, LATER + 2 * DAY, 9) == []
    forget(store, "task-1")
    assert outputs(store) == {}
    states = {one.hook: one.state for one in store.lists.deliveries()}
    shop = State.DEAD if running is None else State.DELIVERED
    assert states == {"cutout": State.DELIVERED, "shop": shop, "mail": State.DEAD}


@pytest.mark.parametrize("step", STEPS)
def test_pruning_keeps_the_output_while_a_hook_needs_it(store: Store, step: str) -> None:
    running = begin(store, step)
    for _ in range(2):
        list(prune(store, LATER + DAY))
        assert outputs(store) == {"cutout": OUTPUT}
        running = running or claim(store)
        assert running.source.notice.outputs == {"cutout": OUTPUT}
        end(store, running, State.PENDING)
        running = None
    end(store, claim(store))
    end(store, claim(store))
    list(prune(store, LATER + DAY))
    assert outputs(store) == {}


def test_dropping_the_deliveries_of_one_hook_releases_the_next(store: Store) -> None:
    begin(store, "waiting")
    assert store.repair.drop("shop", LATER) == 1
    last = claim(store)
    assert (last.hook, last.source.notice.outputs) == ("mail", {"cutout": OUTPUT})


@pytest.mark.parametrize("step", STEPS)
def test_a_chain_continues_in_the_copy(
    tmp_path: Path,
    fresh: Callable[[], str],
    migrated: Callable[[Path], SqliteStore],
    step: str,
) -> None:
    source, url = migrated(tmp_path / "receiver.db"), fresh()
    running = begin(source, step)
    source.close()
    list(copy(f"sqlite:///{tmp_path / 'receiver.db'}", url))
    target = PostgresStore(url)
    if running is not None:  # its worker has stopped, so its lease expires
        (lost,) = target.outbox.expired(LATER + LEASE)
        attempt = Attempt(lost.attempts, LATER, LATER + LEASE, "abandoned", "")
        assert target.outbox.settle(lost, attempt, State.PENDING, LATER)
    shop = claim(target)
    assert (shop.hook, shop.source.notice.outputs) == ("shop", {"cutout": OUTPUT})
    end(target, shop)
    assert claim(target).hook == "mail"
    target.close()

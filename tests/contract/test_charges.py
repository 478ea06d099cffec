"""Every store records the prices that providers report, and returns them page by page."""

from __future__ import annotations

import json
from typing import Any

import pytest

from receiver.ingest import Ingest
from receiver.stores.base import Store
from receiver.stores.sql.rows import ALWAYS, TimeRange
from receiver.tasks import Status, Task
from submitter.cli import costs
from tests.support.samples import body, callback

NOW = 1_765_519_851_000
UNITS: dict[str, Any] = {"final_unit_deduction": "1.5"}


def end(store: Store, task: str, at: int = NOW, account: str = "default", **more: Any) -> None:
    new_task = Task(task, "kling", Status.CREATED, at, at, account, reference=f"ORDER-{task}")
    store.inbox.create_task(new_task)
    Ingest(store).accept(callback(body(task_id=f"at-{task}", **more), task, received_at=at))


def billed(store: Store, task: str, *billing: dict[str, str]) -> None:
    """Return the callback for a task of Kling's new dialect, with this price."""
    output = [{"type": "image", "url": "https://cdn.example/0.png"}]
    document = {"id": f"at-{task}", "status": "succeeded", "outputs": output, "billing": billing}
    Ingest(store).accept(callback(json.dumps(document).encode(), task))


def test_a_charge_has_its_unit(store: Store) -> None:
    end(store, "a", **UNITS)
    billed(store, "b", {"charge_type": "cash", "amount": "0.07", "currency": "USD"})
    billed(store, "c", {"charge_type": "unit", "amount": "2", "package_type": "image"})
    end(store, "free")
    found = [(one.reference, one.cost, one.unit) for one in store.queries.charges(ALWAYS)]
    assert found == [("ORDER-a", "1.5", "units"), (None, "0.07", "USD"), (None, "2", "units")]
    assert (store.queries.task("b").cost, store.queries.task("b").cost_unit) == ("0.07", "USD")


def test_a_later_message_without_a_price_keeps_it(store: Store) -> None:
    end(store, "a")
    task = Task("b", "kling", Status.CREATED, NOW, NOW)
    store.inbox.create_task(task)
    ingest = Ingest(store)
    ingest.accept(callback(body("processing", task_id="at-b", **UNITS), "b"))
    ingest.accept(callback(body("succeed", task_id="at-b"), "b"))
    (charge,) = store.queries.charges(ALWAYS)
    assert (charge.cost, charge.unit) == ("1.5", "units")


@pytest.mark.parametrize(
    ("span", "narrowed", "references"),
    [
        (ALWAYS, {}, ["ORDER-a", "ORDER-b", "ORDER-c"]),
        (TimeRange(since=NOW + 1), {}, ["ORDER-b", "ORDER-c"]),
        (TimeRange(until=NOW + 1), {}, ["ORDER-a"]),
        (ALWAYS, {"account": "shop2"}, ["ORDER-c"]),
        (ALWAYS, {"provider": "appypie"}, []),
    ],
)
def test_all_charges_are_read_page_by_page(
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    span: TimeRange,
    narrowed: dict[str, str],
    references: list[str],
) -> None:
    monkeypatch.setattr(costs, "PAGE_SIZE", 1)
    end(store, "a", NOW, **UNITS)
    end(store, "b", NOW + 1, **UNITS)
    end(store, "c", NOW + 2, "shop2", **UNITS)
    assert [one.reference for one in costs.all_charges(store, span, **narrowed)] == references

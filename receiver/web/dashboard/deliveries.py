"""Deliveries and dead letters: by hook and state, with what the other side answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flask import Blueprint, request

from receiver.deliveries import Attempt, Delivery, State
from receiver.stores.base import Store
from receiver.tasks import Task
from receiver.web import cursors
from receiver.web.dashboard.page_context import MOST, PageContext, row_before
from receiver.web.dashboard.responses import page

LONGEST = 200  # characters of a hook's name


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """A delivery in the list, with its task and its attempts."""

    delivery: Delivery
    task: Task | None
    attempts: tuple[Attempt, ...]


def install(routes: Blueprint, desk: PageContext) -> None:
    store = desk.store

    @routes.get("/deliveries")
    def deliveries() -> str:
        return show(dict(request.args.items()), "deliveries")

    @routes.get("/dead")
    def dead() -> str:
        return show({**request.args.to_dict(), "state": State.DEAD.value}, "dead")

    def show(given: dict[str, str], here: str) -> str:
        hook = given.get("hook", "").replace("\0", "")[:LONGEST] or None
        state = State(given["state"]) if given.get("state") in tuple(State) else None
        before = row_before("deliveries", given.get("before", ""))
        found = store.lists.page_of_deliveries(before=before, limit=MOST, hook=hook, state=state)
        return page(
            "deliveries",
            here=here,
            hook=hook,
            state=state,
            hooks=known_hooks(desk),
            states=list(State),
            counts=counts(store),
            shown=shown(store, found.rows),
            following=cursors.encode("deliveries", found.next),
        )


def known_hooks(desk: PageContext) -> list[str]:
    """Those of the hooks file, and those that are gone from it but on record."""
    return list(
        dict.fromkeys([*desk.hooks, *(one.hook for one in desk.store.metrics.delivery_counts())])
    )


def counts(store: Store) -> Mapping[str, int]:
    """How many deliveries are in each state."""
    found: dict[str, int] = {state.value: 0 for state in State}
    for one in store.metrics.delivery_counts():
        found[one.state] += one.value
    return found


def shown(store: Store, found: tuple[Delivery, ...]) -> list[DeliveryRow]:
    tasks = store.queries.tasks_by_id(list({delivery.task_id for delivery in found}))
    attempts = store.queries.attempts(found)
    return [
        DeliveryRow(delivery, tasks.get(delivery.task_id), attempts.get(delivery.id, ()))
        for delivery in found
    ]

"""Adds up what providers said they charged, exactly; units are never mixed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

from receiver.stores import Store
from receiver.stores.sql.queries import Charge
from receiver.stores.sql.rows import TimeRange
from receiver.text.display import rfc3339

AMOUNT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
DIGITS = 60  # of a sum: 18 before the point, 18 behind it, and as many more as there may be tasks
AT_ONCE = 1000  # rows
UNKNOWN = "?"


def month(charge: Charge) -> str:
    """In UTC, of the task's creation."""
    return rfc3339(charge.created_at)[: len("2026-11")]


BY: dict[str, Callable[[Charge], str]] = {
    "month": month,
    "account": lambda charge: charge.account,
    "reference": lambda charge: charge.reference or "",
}


@dataclass(frozen=True, slots=True)
class Line:
    """What was charged for some tasks, in one unit of one provider."""

    group: str
    provider: str
    unit: str
    tasks: int
    cost: Decimal

    def row(self) -> tuple[str, str, str, str, str]:
        return self.group, self.provider, self.unit, str(self.tasks), f"{self.cost:f}"

    def as_json(self, by: str) -> dict[str, Any]:
        return {
            by: self.group,
            "provider": self.provider,
            "unit": None if self.unit == UNKNOWN else self.unit,
            "tasks": self.tasks,
            "cost": f"{self.cost:f}",
        }


@dataclass(slots=True)
class Sum:
    """Adds up charge by charge. `odd`: what was told and is no decimal number."""

    by: str
    odd: int = 0
    _found: dict[tuple[str, str, str], tuple[int, Decimal]] = field(default_factory=dict)

    def add(self, charge: Charge) -> None:
        if not AMOUNT.fullmatch(charge.cost):
            self.odd += 1
            return
        key = (BY[self.by](charge), charge.provider, charge.unit or UNKNOWN)
        tasks, cost = self._found.get(key, (0, Decimal(0)))
        with localcontext(prec=DIGITS):
            self._found[key] = (tasks + 1, cost + Decimal(charge.cost))

    def lines(self) -> list[Line]:
        """One for each group, provider and unit, in that order."""
        return [Line(*key, *value) for key, value in sorted(self._found.items())]


def charges(
    store: Store, created: TimeRange, *, provider: str | None = None, account: str | None = None
) -> Iterator[Charge]:
    """Every charge on record, oldest first, read page by page. Raises StoreUnavailable."""
    after = 0
    while page := store.queries.charges(
        created, after=after, limit=AT_ONCE, provider=provider, account=account
    ):
        yield from page
        after = page[-1].row

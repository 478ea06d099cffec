"""The command `submitter costs`, which adds up charges exactly and never mixes units."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal, localcontext
from typing import Any

import click

from receiver.clock import now_ms
from receiver.config import durations
from receiver.console import output
from receiver.stores import Store
from receiver.stores.sql.queries import Charge
from receiver.stores.sql.rows import TimeRange
from receiver.text.display import rfc3339
from submitter.cli.group import print_errors, print_json
from submitter.cli.options import as_json
from submitter.providers import PROVIDERS
from submitter.session import open_session
from submitter.text import readable

AMOUNT = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
DIGITS = 60  # of a sum: 18 before the point, 18 after it, and more for any number of tasks
PAGE_SIZE = 1000  # rows
UNKNOWN_UNIT = "?"


def month(charge: Charge) -> str:
    """Return the month, in UTC, in which the task was created."""
    return rfc3339(charge.created_at)[: len("2026-11")]


GROUPINGS: dict[str, Callable[[Charge], str]] = {
    "month": month,
    "account": lambda charge: charge.account,
    "reference": lambda charge: charge.reference or "",
}


@dataclass(frozen=True, slots=True)
class CostLine:
    """The cost of a group of tasks in one unit of one provider."""

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
            "unit": None if self.unit == UNKNOWN_UNIT else self.unit,
            "tasks": self.tasks,
            "cost": f"{self.cost:f}",
        }


@dataclass(slots=True)
class CostSum:
    """Adds up charges. `not_numbers` counts charges that are not decimal numbers."""

    by: str
    not_numbers: int = 0
    _sums: dict[tuple[str, str, str], tuple[int, Decimal]] = field(default_factory=dict)

    def add(self, charge: Charge) -> None:
        if not AMOUNT.fullmatch(charge.cost):
            self.not_numbers += 1
            return
        key = (GROUPINGS[self.by](charge), charge.provider, charge.unit or UNKNOWN_UNIT)
        tasks, cost = self._sums.get(key, (0, Decimal(0)))
        with localcontext(prec=DIGITS):
            self._sums[key] = (tasks + 1, cost + Decimal(charge.cost))

    def lines(self) -> list[CostLine]:
        """Return one line for each group, provider and unit, in this order."""
        return [CostLine(*key, *value) for key, value in sorted(self._sums.items())]


def all_charges(
    store: Store, created: TimeRange, *, provider: str | None = None, account: str | None = None
) -> Iterator[Charge]:
    """Yield every recorded charge, oldest first, read page by page. Raises StoreUnavailable."""
    after = 0
    while page := store.queries.charges(
        created, after=after, limit=PAGE_SIZE, provider=provider, account=account
    ):
        yield from page
        after = page[-1].row


def _instant(_: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else durations.moment(value, now_ms())
    except ValueError as error:
        raise click.BadParameter(str(error), param=param) from None


@click.command("costs")
@click.option("--by", type=click.Choice(list(GROUPINGS)), default="month", show_default=True)
@click.option("--provider", type=click.Choice(list(PROVIDERS)))
@click.option("--account", metavar="NAME", help="Only tasks of this account.")
@click.option(
    "--since", callback=_instant, help="Only tasks created since: 30d, or 2026-11-01T00:00:00Z."
)
@click.option("--until", callback=_instant, help="Only tasks created before.")
@as_json
def costs_(
    by: str,
    provider: str | None,
    account: str | None,
    since: int | None,
    until: int | None,
    as_json: bool,
) -> None:
    """Add up what the providers charged, with one line per unit.

    A task belongs to the month, in UTC, in which it was created. Providers that report no costs
    are not shown.
    """
    total = CostSum(by)
    with open_session() as session:
        created = TimeRange(since, until)
        for charge in all_charges(session.store, created, provider=provider, account=account):
            total.add(charge)
    if as_json:
        lines = [line.as_json(by) for line in total.lines()]
        print_json({"by": by, "costs": lines, "not_numbers": total.not_numbers})
    else:
        _print(by, total.lines())
    if total.not_numbers:
        print_errors(
            [f"{total.not_numbers} task(s) are omitted: their cost is not a decimal number"]
        )


def _print(by: str, lines: list[CostLine]) -> None:
    rows = [[readable(text, 1000) for text in line.row()] for line in lines]
    columns = (by, "provider", "unit", "tasks", "cost")
    output.show_table(columns, rows, "No costs were reported.", numbers=("tasks", "cost"))

"""Applies the limits of hooks, which all workers share, in the transactions that claim deliveries.

Only hooks with a rate have a row in `pacing`, and only claims for hooks with limits execute these
statements.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from receiver.endpoints import Limits, Pace
from receiver.stores.sql.database import Session


def load_paces(session: Session, limits: Mapping[str, Limits], now: int) -> dict[str, Pace]:
    """Return how far the limits of each of these hooks are used up."""
    next_at = {row["hook"]: row["next_at"] for row in session.execute("select * from pacing")}
    running = Counter(row["hook"] for row in session.execute(_RUNNING, (now,)))
    return {hook: Pace(limit, next_at.get(hook), running[hook]) for hook, limit in limits.items()}


def lock_pace(session: Session, hook: str, limits: Limits, now: int) -> Pace | None:
    """Lock the limits of a hook until the transaction ends; return how far they are used up.

    Returns None if another transaction has locked them. That transaction claims the deliveries, so
    this one does not wait for it, and therefore cannot deadlock with it.
    """
    if not session.try_lock_name(f"pacing {hook}"):
        return None
    return load_paces(session, {hook: limits}, now)[hook]


def use_paces(
    session: Session, paces: Mapping[str, Pace], begun: Mapping[str, int], now: int
) -> None:
    """Record how many deliveries of each hook began. The transaction must have locked the paces."""
    rows = [
        (hook, pace.next_after(begun[hook], now))
        for hook, pace in paces.items()
        if begun[hook] and pace.limits.rate is not None
    ]
    session.executemany(_PUT, rows)


_RUNNING = "select hook from deliveries where state = 'claimed' and due_at > ?"

_PUT = """
insert into pacing (hook, next_at) values (?, ?)
on conflict (hook) do update set next_at = excluded.next_at
"""

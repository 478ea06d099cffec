"""How a task may go, by name: what it ends as and what becomes of its callbacks on the way."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.callbacks import Notice

Plan = Callable[["Notice"], tuple["Notice", ...]]
"""Turns one callback as it should be into those that are really sent."""

QUEUED = 1_000


class UnknownScenarioError(ValueError):
    """Nobody registered a scenario of that name."""


def once(notice: Notice) -> tuple[Notice, ...]:
    return (notice,)


def never(_: Notice) -> tuple[Notice, ...]:
    return ()


def twice(notice: Notice) -> tuple[Notice, ...]:
    return (notice, notice)


@dataclass(frozen=True)
class Scenario:
    name: str
    summary: str
    failure: str | None = None  # the reason a task fails with; None lets it succeed
    plan: Plan = once
    new_dialect: bool = False  # Kling's callbacks come in its newer dialect


SCENARIOS: dict[str, Scenario] = {}


def register(scenario: Scenario) -> Scenario:
    SCENARIOS[scenario.name] = scenario
    return scenario


def named(name: str) -> Scenario:
    if name not in SCENARIOS:
        raise UnknownScenarioError(
            f"scenario {name!r} is unknown; known are: {', '.join(SCENARIOS)}"
        )
    return SCENARIOS[name]


SUCCEED = register(Scenario("succeed", "the task succeeds and every callback is sent once"))
register(
    Scenario(
        "failed",
        "the task fails, as the provider's moderation makes it fail",
        failure="Failure to pass the risk control system",
    )
)
register(Scenario("silent", "the task succeeds but no callback is ever sent", plan=never))
register(Scenario("duplicates", "every callback is sent twice, byte for byte", plan=twice))
register(Scenario("new-dialect", "Kling's callbacks come in its newer dialect", new_dialect=True))


class Queue:
    """Which scenario the next task of a provider plays; `succeed` when nobody asked for any."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[Scenario]] = defaultdict(lambda: deque(maxlen=QUEUED))
        self._lock = threading.Lock()

    def add(self, provider: str, scenario: str, count: int = 1) -> None:
        wanted = named(scenario)
        with self._lock:
            self._next[provider].extend([wanted] * count)

    def take(self, provider: str) -> Scenario:
        with self._lock:
            waiting = self._next[provider]
            return waiting.popleft() if waiting else SUCCEED

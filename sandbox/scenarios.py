"""How a task may go, by name: what it ends as and what becomes of its callbacks on the way."""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.callbacks import Notice

Plan = Callable[["Notice"], tuple["Notice", ...]]
"""Turns one callback as it should be into those that are really sent."""

QUEUED = 1_000
RISK = "Failure to pass the risk control system"


class UnknownScenarioError(ValueError):
    """No scenario of that name is registered for the provider."""


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
    only: str | None = None  # the one provider that can play it; None: all of them


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
    Scenario("failed", "the task fails, as the provider's moderation makes it fail", failure=RISK)
)
register(Scenario("silent", "the task succeeds but no callback is ever sent", plan=never))
register(Scenario("duplicates", "every callback is sent twice, byte for byte", plan=twice))
NEW_DIALECT = register(
    Scenario("new-dialect", "Kling's callbacks come in its newer dialect", only="kling")
)
NEW_DIALECT_FAILED = register(
    replace(
        NEW_DIALECT,
        name="new-dialect-failed",
        summary="the same of a task that fails",
        failure=RISK,
    )
)
PLAIN_URLS = register(
    Scenario("plain-urls", "Modellix tells its resources as plain URLs", only="modellix")
)
FLAT_RESOURCES = register(
    Scenario("flat-resources", "Modellix tells them without a `result` around", only="modellix")
)
SYNONYMS = register(Scenario("synonyms", "Modellix calls success `completed`", only="modellix"))
SYNONYMS_FAILED = register(
    Scenario("synonyms-failed", "Modellix calls failure `canceled`", failure=RISK, only="modellix")
)


class Queue:
    """Which scenario the next task of a provider plays; `succeed` when nobody asked for any."""

    def __init__(self) -> None:
        self._next: defaultdict[str, deque[Scenario]] = defaultdict(lambda: deque(maxlen=QUEUED))
        self._lock = threading.Lock()

    def add(self, provider: str, scenario: str, count: int = 1) -> None:
        wanted = named(scenario)
        if wanted.only not in (None, provider):
            raise UnknownScenarioError(f"scenario {scenario!r} is of {wanted.only} only")
        with self._lock:
            self._next[provider].extend([wanted] * count)

    def take(self, provider: str) -> Scenario:
        with self._lock:
            waiting = self._next[provider]
            return waiting.popleft() if waiting else SUCCEED

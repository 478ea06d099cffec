"""The parts of a run: by default about ten minutes, in full about sixty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench import (
    copying,
    disks,
    footprint,
    growth,
    hook_latency,
    https,
    large_pictures,
    listeners,
    worker_rate,
)
from bench.peers import Peers
from bench.processes import CannotMeasure
from bench.progress import elapsed, say
from bench.rounds import Plan, measure
from bench.targets import CEILING, COMMIT_EACH, COMMITTING, US, Results
from bench.variants import Variant, everybody

ALL = 10**6
LEAST_MEMORY = 20.0  # seconds


@dataclass(frozen=True)
class Size:
    """The extent of each part of a run."""

    plan: Plan
    slower_ms: Sequence[int] = (0,)
    slow_for_the_target: bool = True  # with +10 ms, the variants that a target compares
    variants: Sequence[str] | None = None  # None: all of them
    slow_rounds: int = 3  # with +10 ms
    sizes: Sequence[int] = (0, ALL)  # events, each with its own task
    growth_rounds: int = 3
    growth_s: float = 1.0
    copied: int = 50_000  # tasks
    memory: int = 100_000  # callbacks
    within: float = 570.0  # seconds after which the last part, memory, ends
    hooks: int = 150  # callbacks
    listeners_s: float = 5.0
    due: int = 60  # deliveries that an idle worker waits for
    delivery_rounds: int = 2
    https_rounds: int = 2
    sections: Sequence[str] = (
        "callbacks",
        "hooks",
        "listeners",
        "worker",
        "https",
        "pictures",
        "bytes",
        "import",
        "growth",
        "copy",
        "memory",
    )


SMOKE = Size(
    Plan((8,), 1, 0.3),
    slow_for_the_target=False,
    variants=(CEILING, US),
    sections=("callbacks",),
)
BY_DEFAULT = Size(Plan((64,), 3, 2), growth_rounds=2)
FULL = Size(
    Plan((1, 8, 64, 256), 5, 2),
    slower_ms=(0, 2, 10),
    slow_for_the_target=False,
    sizes=(0, 100_000, ALL),
    growth_rounds=5,
    delivery_rounds=5,
    https_rounds=5,
    memory=ALL,
    within=3500.0,
)


def run(size: Size, peers: Peers, place: Path, results: Results) -> None:
    """Fill `results`. A section that fails records the reason, and the others continue."""
    for name in size.sections:
        say(f"measuring: {name}")
        try:
            results[name] = SECTIONS[name](size, peers, place, results)
        except Exception as error:  # noqa: BLE001 - earlier results must not be lost
            results["problems"][name] = f"{type(error).__name__}: {error}"
            say(f"{name}: {type(error).__name__}: {error}")


def _callbacks(size: Size, peers: Peers, place: Path, results: Results) -> list[dict[str, Any]]:
    wanted = [v for v in everybody() if size.variants is None or v.name in size.variants]
    cells: list[tuple[int, Sequence[Variant], Plan]] = [
        (ms, wanted, size.plan) for ms in size.slower_ms
    ]
    if size.slow_for_the_target:
        few = replace(size.plan, rounds=size.slow_rounds)
        slow = (CEILING, US, COMMIT_EACH, *COMMITTING)
        cells.append((10, [v for v in wanted if v.name in slow], few))
    found: list[dict[str, Any]] = []
    for ms, variants, plan in cells:
        try:
            disk = disks.slower(ms, place)
        except CannotMeasure as error:
            results["problems"][f"fsync +{ms} ms"] = str(error)
            continue
        results["fsync_ms"][disk.name] = disks.fsync_ms(disk, place)
        found += [row.as_json() for row in measure(plan, variants, disk, peers, place)]
    return found


Section = Callable[[Size, Peers, Path, Results], Any]
SECTIONS: dict[str, Section] = {
    "callbacks": _callbacks,
    "listeners": lambda size, _, place, __: listeners.measure(
        size.plan.rounds, size.listeners_s, place
    ),
    "hooks": lambda size, _, place, __: hook_latency.measure(size.hooks, size.due, place),
    "worker": lambda size, _, place, __: worker_rate.measure(
        size.delivery_rounds, 2.0, 1500, place
    ),
    "https": lambda size, peers, place, _: https.measure(
        size.https_rounds, 1.0, size.hooks, peers, place
    ),
    "pictures": lambda _, __, place, ___: large_pictures.measure(place),
    "bytes": lambda _, __, place, ___: footprint.bytes_per_event(3000, place),
    "import": lambda _, __, place, ___: footprint.import_seconds(10, place),
    "growth": lambda size, _, place, __: growth.measure(
        list(size.sizes), size.growth_rounds, size.growth_s, place
    ),
    "copy": lambda size, _, place, __: copying.measure(size.copied, place),
    "memory": lambda size, _, place, __: footprint.memory(
        size.memory, max(LEAST_MEMORY, size.within - elapsed()), place
    ),
}

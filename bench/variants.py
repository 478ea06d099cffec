"""The variants: each starts as in production, and reports how many events it has stored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import APPS, ours
from bench.others import by_hand, express, fastapi, flask, knocker, webhook
from bench.processes import answers, wait_until
from bench.site import Running, Site, Start
from bench.targets import GRANIAN


@dataclass(frozen=True)
class Variant:
    """One row of the table."""

    name: str
    kind: str  # ceiling, ours, by hand, or peer
    start: Start = field(compare=False)
    durable: str = ""  # the failure that a 200 response survives


def everybody() -> list[Variant]:
    """Return the rows of the table in order. The others are compared with the first."""
    full, normal = "power cut", "crash of the process"
    commit_each = ours.on_sqlite(1, app=ours.COMMIT_EACH)
    ten_hooks = ours.on_sqlite(1, write_hooks=ours.ten_hooks)
    return [
        Variant("ceiling: Flask answers 200, 1 process", "ceiling", flask("ceiling", 1)),
        Variant("the same, 2 processes", "ceiling", flask("ceiling", 2)),
        Variant("us, SQLite, 1 process", "us", ours.on_sqlite(1), full),
        Variant("us, SQLite, 2 processes", "us", ours.on_sqlite(2), full),
        *(
            Variant(f"us, SQLite, {count}, {name}", "us", ours.on_sqlite(number, options), full)
            for name, options in ours.FRONTS.items()
            for number, count in ((1, "1 process"), (2, "2 processes"))
        ),
        Variant(GRANIAN, "us", ours.on_granian, full),
        Variant("us, SQLite, 1 process, a commit each", "us", commit_each, full),
        Variant("us, SQLite, ten hooks, 1 process", "us", ten_hooks, full),
        Variant("us, PostgreSQL, 2 processes", "us", ours.on_postgres(2), full),
        Variant("Flask + sqlite3 FULL, a commit each", "by hand", by_hand("FULL"), full),
        Variant("Flask + sqlite3 NORMAL, a commit each", "by hand", by_hand("NORMAL"), normal),
        Variant("adnanh/webhook + sqlite3 FULL", "peer", webhook(APPS / "insert.sh"), full),
        Variant("adnanh/webhook + /bin/true", "peer", webhook(Path("/bin/true"))),
        Variant("FastAPI + uvicorn + sqlite3 FULL", "peer", fastapi(), full),
        Variant("the same, commits in the event loop", "peer", fastapi(in_its_loop=True), full),
        Variant("Express + better-sqlite3 FULL", "peer", express, full),
        Variant("Knocker behind Flask", "peer", knocker, normal),
    ]


@contextmanager
def up(variant: Variant, site: Site) -> Iterator[Running]:
    """Run the variant within the block. Raises CannotMeasure."""
    site.folder.mkdir(parents=True)
    with contextmanager(variant.start)(site) as running:
        wait_until(lambda: answers(running.port), running.log)
        yield running

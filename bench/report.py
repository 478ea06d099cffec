"""Formats the results as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from bench.targets import Results, ratio, targets

POLLING_S = 5
NONE = "—"  # a missing figure
TARGETS = (
    "**Targets**, which we set before the work. A ratio is the median of each round's "
    "ratio, so it differs slightly from the ratio of the figures above."
)
FEW = 2  # tables without a section of their own
Cells = dict[tuple[str, int], list[dict[str, Any]]]  # by disk and connections


def report(results: Results) -> str:
    parts = [
        _machine(results),
        *_callbacks(results),
        *_small_ones(results),
        _targets(results),
        _problems(results),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}"
    return "\n".join([head, *(f"| {' | '.join(row)} |" for row in rows)])


def _machine(results: Results) -> str:
    lines = [f"- {name}: {value}" for name, value in results["machine"].items()]
    lines += [f"- fsync, {disk}: {ms:.2f} ms" for disk, ms in results["fsync_ms"].items()]
    peers = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    plan = results["plan"]
    lines += [
        f"- peers: {peers}" if peers else "",
        *(f"- not installed: {name}: {why}" for name, why in results["missing"].items()),
        f"- {plan['rounds']} rounds of {plan['seconds']:g} s each, load by {results['load']}",
        f"- the whole run took {results['took_s'] / 60:.1f} minutes",
    ]
    return "\n".join(line for line in lines if line)


def _callbacks(results: Results) -> Iterator[str]:
    """Return the tables; if there are many, a summary comes first."""
    cells: Cells = {}
    for row in results.get("callbacks", []):
        cells.setdefault((row["disk"], row["connections"]), []).append(row)
    if len(cells) > FEW:
        yield f"**Callbacks a second, by disk and connections**\n\n{_of_all(cells)}"
    for (disk, connections), cell in cells.items():
        yield f"**Callbacks, {connections} connections, {disk}**\n\n{_of_cell(cell)}"


def _of_all(cells: Cells) -> str:
    rates: dict[str, dict[tuple[str, int], str]] = {}
    for place, cell in cells.items():
        for row in cell:
            is_whole = row["per_second"] and not row["why_not"]
            told = _middle(row["per_second"]) if is_whole else NONE
            rates.setdefault(row["variant"], {})[place] = told
    columns = ["", *(f"{disk}: {connections}" for disk, connections in cells)]
    return table(columns, [[name, *(r.get(at, NONE) for at in cells)] for name, r in rates.items()])


def _of_cell(cell: list[dict[str, Any]]) -> str:
    columns = (
        "", "requests/s", "lowest to highest", "÷ first row", "p50 ms", "p99 ms",
        "CPU ms a request", "MB a worker", "a 200 survives", "faults",
    )  # fmt: skip
    return table(columns, [_line(row, cell[0]) for row in cell])


def _line(row: dict[str, Any], first: dict[str, Any]) -> list[str]:
    if row["why_not"] or not row["per_second"]:
        return [row["variant"], f"{NONE} {row['why_not']}", *[""] * 8]
    rates = row["per_second"]
    compared = ratio(rates, first["per_second"])
    middle = (statistics.median(row[name]) for name in ("p50_ms", "p99_ms", "cpu_ms", "rss_mb"))
    p50, p99, cpu, rss = middle
    return [
        row["variant"],
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f} to {max(rates):,.0f}",
        NONE if compared is None else f"{compared:.2f}",
        f"{p50:.1f}",
        f"{p99:.1f}",
        f"{cpu:.2f}",
        f"{rss:.0f}",
        row["durable"] or "nothing",
        _faults(row),
    ]


def _faults(row: dict[str, Any]) -> str:
    names = {
        "refused": "not 200",
        "broken": "connections broken",
        "lost": "answered but not on record",
    }
    told = [f"{row[key]} {text}" for key, text in names.items() if row[key]]
    return ", ".join([*told, *(["tasks were repeated"] if row["repeated"] else [])]) or "none"


def _small_ones(results: Results) -> Iterator[str]:
    for name, make in SMALL.items():
        if results.get(name):
            yield make(results[name])


def _hooks(rows: list[dict[str, Any]]) -> str:
    lines = [[r["database"], f"{r['p50_ms']:.1f}", f"{r['p99_ms']:.1f}"] for r in rows]
    lines += [
        [f"{r['database']}, an idle worker, from the due time",
         f"{r['due_p50_ms']:.1f}", f"{r['due_p99_ms']:.1f}"]
        for r in rows
    ]  # fmt: skip
    mean, late = POLLING_S / 2 * 1000, POLLING_S * 0.99 * 1000
    lines.append(
        [f"polling every {POLLING_S} s instead (calculated)", f"{mean:,.0f}", f"{late:,.0f}"]
    )
    return "**From the callback to the hook's request**\n\n" + table(
        ("", "p50 ms", "p99 ms"), lines
    )


def _listeners(found: dict[str, Any]) -> str:
    lines = [
        [name, *(f"{statistics.median(found[prefix + key]):.1f}" for key in ("p50_ms", "p99_ms"))]
        for name, prefix in (
            (f"{found['per_second']} callbacks/s", ""),
            (f"the same, with {found['listeners']} listeners", "with_"),
        )
    ]
    return "**Callbacks and live events**\n\n" + table(("1 process", "p50 ms", "p99 ms"), lines)


def _worker(rows: list[dict[str, Any]]) -> str:
    lines = [
        [row["database"], _middle(row["per_second"]), _spread(row["per_second"]),
         f"{statistics.median(row['cpu_ms']):.2f}"]
        for row in rows
    ]  # fmt: skip
    columns = ("one worker", "deliveries/s", "lowest to highest", "CPU ms each")
    return "**Deliveries out of a backlog**\n\n" + table(columns, lines)


def _https(found: dict[str, Any]) -> str:
    exchanges = [
        [
            row["name"],
            *(
                f"{statistics.median(row[column]):.{digits}f}"
                for column, digits in (
                    ("cpu_ms", 2), ("p50_ms", 2), ("p99_ms", 2), ("per_second", 0)
                )
            ),
        ]
        for row in found["exchanges"]
    ]  # fmt: skip
    first = table(("a request over HTTPS", "CPU ms", "p50 ms", "p99 ms", "a second"), exchanges)
    workers = [
        [row["database"], _middle(row["per_second"]), _spread(row["per_second"]),
         f"{statistics.median(row['cpu_ms']):.2f}"]
        for row in found["workers"]
    ]  # fmt: skip
    second = table(
        ("one worker on SQLite", "deliveries/s", "lowest to highest", "CPU ms each"), workers
    )
    hook = found["hook"]
    third = (
        f"From the callback to the hook's request over HTTPS: p50 {hook['p50_ms']:.1f} ms, "
        f"p99 {hook['p99_ms']:.1f} ms."
    )
    return f"**Over HTTPS**\n\n{first}\n\n{second}\n\n{third}"


def _pictures(rows: list[dict[str, Any]]) -> str:
    lines = [
        [row["format"], f"{row['before_mb']:.0f}", f"{row['peak_mb']:.0f}", str(row["thumbnails"])]
        for row in rows
    ]
    columns = ("format", "MB before", "most MB", "thumbnails")
    title = "**Memory of one worker for four pictures of 8000 by 8000 pixels together**\n\n"
    return title + table(columns, lines)


def _growth(rows: list[dict[str, Any]]) -> str:
    lines = [
        [f"{row['events']:,}", f"{row['megabytes']:,.0f}",
         _middle(row["inserts"]), _spread(row["inserts"]), _middle(row["duplicates"]),
         f"{statistics.median(row['rare_list_ms']):.2f}"]
        for row in rows
    ]  # fmt: skip
    columns = ("tasks and events on record", "MB", "inserts/s", "lowest to highest",
               "duplicates/s", "rare list ms")  # fmt: skip
    title = "**As the record grows** (SQLite, 1 process)\n\n"
    return f"{title}{table(columns, lines)}\n\n{_pages(rows)}"


def _pages(rows: list[dict[str, Any]]) -> str:
    """Return the table of pages and lists by the size of the record, in ms."""
    shown = [row["pages_ms"] for row in rows]
    lines = [
        [
            f"`{path}`",
            *(f"{statistics.median(ms[path]):.1f}" if path in ms else NONE for ms in shown),
        ]
        for path in dict.fromkeys(path for ms in shown for path in ms)
    ]
    return table(("p50 in ms, tasks on record:", *(f"{row['events']:,}" for row in rows)), lines)


def _copy(found: dict[str, Any]) -> str:
    return (
        f"**Copy to PostgreSQL**: {found['rows']:,} rows of {found['tasks']:,} tasks in "
        f"{found['seconds']:.1f} s, including the comparison of both databases: "
        f"{found['rows_per_second']:,.0f} rows per second"
    )


def _bytes(rows: list[dict[str, Any]]) -> str:
    lines = [
        [row["deliveries"], f"{row['body']:.0f}", f"{row['headers']:.0f}", f"{row['beyond']:.0f}"]
        for row in rows
    ]
    columns = ("deliveries", "body", "headers", "all else, indexes too")
    return "**Bytes for each event** (SQLite)\n\n" + table(columns, lines)


def _import(found: dict[str, list[float]]) -> str:
    wall, cpu = statistics.median(found["wall_s"]), statistics.median(found["cpu_s"])
    spread = f"{min(found['wall_s']):.3f} to {max(found['wall_s']):.3f}"
    return (
        f"**Import of the web process**, without `submitter.api`: {wall:.3f} s "
        f"({spread}), of which CPU {cpu:.3f} s; {len(found['wall_s'])} times"
    )


def _memory(found: dict[str, Any]) -> str:
    lines = [[f"{taken:,}", f"{mb:.1f}"] for taken, mb in _doublings(found["series"])]
    short = ""
    if found["callbacks"] < found["wanted"]:
        short = f" (the time limit was reached before {found['wanted']:,})"
    title = f"**Memory of one web process by number of callbacks**{short}\n\n"
    return title + table(("callbacks", "MB"), lines)


def _doublings(series: Sequence[tuple[int, float]]) -> Iterator[tuple[int, float]]:
    """Return the first point, each with at least twice as many callbacks as the one before, and
    the last.
    """
    told = 0
    for taken, mb in series:
        if taken >= 2 * told or taken == series[-1][0]:
            told = taken
            yield taken, mb


SMALL: dict[str, Callable[[Any], str]] = {
    "hooks": _hooks,
    "listeners": _listeners,
    "worker": _worker,
    "https": _https,
    "pictures": _pictures,
    "growth": _growth,
    "copy": _copy,
    "bytes": _bytes,
    "import": _import,
    "memory": _memory,
}


def _middle(values: list[float]) -> str:
    return f"{statistics.median(values):,.0f}"


def _spread(values: list[float]) -> str:
    return f"{min(values):,.0f} to {max(values):,.0f}"


def _targets(results: Results) -> str:
    found = targets(results)
    limits = list(dict.fromkeys(one.hindrance for one in found if one.hindrance))
    lines = [
        [
            one.what,
            one.wanted,
            NONE if one.value is None else f"{one.value:.3g}{one.unit}",
            one.verdict + (f": {limits.index(one.hindrance) + 1}" if one.hindrance else ""),
        ]
        for one in found
    ]
    why = [f"{number}. {limit}" for number, limit in enumerate(limits, 1)]
    heading = ["The reasons for targets that are not met:"] if why else []
    told = table(("", "target", "here", "verdict"), lines)
    return "\n\n".join([TARGETS, told, *heading, "\n".join(why)]).strip()


def _problems(results: Results) -> str:
    found = results.get("problems", {})
    return "\n".join(f"- not measured: {name}: {reason}" for name, reason in found.items())

"""Charts as SVG, drawn on the server; readable without colour: by pattern, shape and words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from receiver.stores.sql.metrics import SLOWEST

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 10, 22  # room around the plot
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
EVERY = 6  # hours between two labels
STEPS = (1, 2, 5)
BOUNDS = (250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, SLOWEST)
LABELLED = (250, 1_000, 5_000, 30_000, 300_000)


@dataclass(frozen=True, slots=True)
class Bar:
    """One series of a bar chart, stacked on those before it."""

    name: str
    values: Sequence[int]
    is_hatched: bool = False


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Within how many ms half, and 95 of 100, came; None: nothing did."""

    half: int | None
    most: int | None

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Quantiles:
        return cls(_quantile(counts, 0.5), _quantile(counts, 0.95))


def bars(title: str, names: Sequence[str], series: Sequence[Bar]) -> Markup:
    """A bar for each name, the series stacked."""
    columns = zip(*(one.values for one in series), strict=True)
    top = nice(max(map(sum, columns), default=0))
    step = PLOT_WIDTH / len(names)
    drawn = []
    for place, name in enumerate(names):
        column = [(one, one.values[place]) for one in series]
        words = ", ".join(f"{value} {one.name}" for one, value in column)
        drawn.append(f"<g><title>{escape(name)}: {escape(words)}</title>")
        x = LEFT + place * step
        drawn.append(_rect("slot", x, TOP, step, PLOT_HEIGHT))
        y = float(HEIGHT - BOTTOM)
        for one, value in column:
            height = value / top * PLOT_HEIGHT
            y -= height
            if value:
                kind = f"bar {one.name}" + (" hatched" if one.is_hatched else "")
                drawn.append(_rect(kind, x + step * 0.14, y, step * 0.72, height, one.is_hatched))
        drawn.append("</g>")
    sums = ", ".join(f"{sum(one.values)} {one.name}" for one in series)
    marks = [(0, "0"), (top / 2, _plain(top / 2)), (top, _plain(top))]
    grid = _grid([(HEIGHT - BOTTOM - at / top * PLOT_HEIGHT, label) for at, label in marks])
    if any(one.is_hatched for one in series):
        drawn.insert(0, HATCH)
    return _svg(title, f"In the last {len(names)} hours: {sums}.", grid, names, drawn)


def latency(title: str, names: Sequence[str], found: Sequence[Quantiles]) -> Markup:
    """Two lines: round marks for the half, square ones for 95 of 100."""
    drawn = [
        *_line("half", [one.half for one in found]),
        *_line("most", [one.most for one in found]),
    ]
    step = PLOT_WIDTH / len(names)
    for place, (name, one) in enumerate(zip(names, found, strict=True)):
        words = f"half {within(one.half)}, 95 of 100 {within(one.most)}"
        told = "no callback" if one.half is None else words
        drawn.append(f"<g><title>{escape(name)}: {escape(told)}</title>")
        drawn.append(_rect("slot", LEFT + place * step, TOP, step, PLOT_HEIGHT) + "</g>")
    slowest = max((one.most for one in found if one.most is not None), default=None)
    summary = (
        "No callback came in this time."
        if slowest is None
        else f"In the slowest hour 95 of 100 callbacks came {within(slowest)}."
    )
    grid = _grid([(_height(bound), within(bound).removeprefix("within ")) for bound in LABELLED])
    return _svg(title, summary, grid, names, drawn)


def within(bound: int | None) -> str:
    """Such as `within 500 ms`."""
    if bound is None:
        return "-"
    if bound == SLOWEST:
        return "later than 5 min"
    if bound < 1_000:
        return f"within {bound} ms"
    return f"within {bound // 1_000} s" if bound < 60_000 else f"within {bound // 60_000} min"


def nice(value: int) -> int:
    """A round number that is not below this one, and can be halved or is small."""
    size = 1
    while True:
        for step in STEPS:
            if step * size >= max(value, 1):
                return max(step * size, 2)
        size *= 10


def _quantile(counts: Mapping[int, int], share: float) -> int | None:
    total, seen = sum(counts.values()), 0
    for bound in sorted(counts):
        seen += counts[bound]
        if seen >= share * total and seen:
            return bound
    return None


def _height(bound: int) -> float:
    place = BOUNDS.index(bound) if bound in BOUNDS else len(BOUNDS) - 1
    return HEIGHT - BOTTOM - (place + 0.5) / len(BOUNDS) * PLOT_HEIGHT


def _line(kind: str, bounds: Sequence[int | None]) -> list[str]:
    """Marks where something came, joined where they are neighbours."""
    step = PLOT_WIDTH / len(bounds)
    points = [
        None if bound is None else (LEFT + (place + 0.5) * step, _height(bound))
        for place, bound in enumerate(bounds)
    ]
    path, joined = [], False
    for point in points:
        if point is not None:
            path.append(f"{'L' if joined else 'M'}{point[0]:.1f} {point[1]:.1f}")
        joined = point is not None
    marks = [_mark(kind, *point) for point in points if point is not None]
    return [f'<path class="line {kind}" d="{" ".join(path)}"/>', *marks] if path else []


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "half":
        return f'<circle class="mark half" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    return f'<rect class="mark most" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'


def _rect(
    kind: str, x: float, y: float, width: float, height: float, is_hatched: bool = False
) -> str:
    # A pattern named in the stylesheet would be looked for in the stylesheet.
    fill = ' fill="url(#hatch)"' if is_hatched else ""
    place = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{escape(kind)}" {place}{fill}/>'


def _grid(marks: Sequence[tuple[float, str]]) -> list[str]:
    return [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
        for y, label in marks
    ]


def _svg(
    title: str, summary: str, grid: Sequence[str], names: Sequence[str], drawn: Sequence[str]
) -> Markup:
    step = PLOT_WIDTH / len(names)
    labels = [
        f'<text class="axis" x="{LEFT + (place + 0.5) * step:.1f}" y="{HEIGHT - 6}" '
        f'text-anchor="middle">{escape(name)}</text>'
        for place, name in enumerate(names)
        if place % EVERY == EVERY // 2
    ]
    words = f"<title>{escape(title)}</title><desc>{escape(summary)}</desc>"
    inner = "".join([words, *grid, *labels, *drawn])
    label = escape(f"{title}. {summary}")
    # Every part was escaped, or is a number, where it was put together.
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{inner}</svg>"
    )


def _plain(value: float) -> str:
    return f"{value:g}" if value < 10_000 else f"{value / 1000:g}k"


HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="hatch-ground" width="5" height="5"/>'
    '<rect class="hatch-line" width="2.4" height="5"/></pattern></defs>'
)

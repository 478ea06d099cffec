"""Draws SVG charts that are readable without colour, with patterns, shapes and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from receiver.stores.sql.metrics import SLOWEST

WIDTH, HEIGHT = 420, 150
LEFT, RIGHT, TOP, BOTTOM = 44, 6, 10, 22  # margins of the plot
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
LABEL_INTERVAL = 6  # hours
ROUND_NUMBERS = (1, 2, 5)  # times a power of 10
MOST_EVEN = 10  # up to this number, an axis can end at every even number
BOUNDS = (250, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 60_000, 300_000, SLOWEST)
LABELLED = (250, 1_000, 5_000, 30_000, 300_000)


@dataclass(frozen=True, slots=True)
class BarSeries:
    """One series of a bar chart, stacked on those before it."""

    name: str
    values: Sequence[int]
    is_hatched: bool = False


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Bounds in ms of the latency of 50 and 95 of 100 callbacks; None without callbacks."""

    median: int | None
    p95: int | None

    @classmethod
    def of(cls, counts: Mapping[int, int]) -> Quantiles:
        return cls(_quantile(counts, 0.5), _quantile(counts, 0.95))


def bars(title: str, names: Sequence[str], series: Sequence[BarSeries]) -> Markup:
    """Draw a bar for each name, with the series stacked."""
    columns = zip(*(one.values for one in series), strict=True)
    top = axis_end(max(map(sum, columns), default=0))
    step = PLOT_WIDTH / len(names)
    shapes = []
    for index, name in enumerate(names):
        column = [(one, one.values[index]) for one in series]
        text = ", ".join(f"{value} {one.name}" for one, value in column)
        shapes.append(f"<g><title>{escape(name)}: {escape(text)}</title>")
        x = LEFT + index * step
        shapes.append(_rect("slot", x, TOP, step, PLOT_HEIGHT))
        y = float(HEIGHT - BOTTOM)
        for one, value in column:
            height = value / top * PLOT_HEIGHT
            y -= height
            if value:
                kind = f"bar {one.name}" + (" hatched" if one.is_hatched else "")
                shapes.append(_rect(kind, x + step * 0.14, y, step * 0.72, height, one.is_hatched))
        shapes.append("</g>")
    sums = ", ".join(f"{sum(one.values)} {one.name}" for one in series)
    marks = [(0, "0"), (top / 2, _axis_label(top / 2)), (top, _axis_label(top))]
    grid = _grid([(HEIGHT - BOTTOM - at / top * PLOT_HEIGHT, label) for at, label in marks])
    if any(one.is_hatched for one in series):
        shapes.insert(0, HATCH)
    return _svg(title, f"In the last {len(names)} hours: {sums}.", grid, names, shapes)


def latency(title: str, names: Sequence[str], quantiles: Sequence[Quantiles]) -> Markup:
    """Draw two lines: the median with round marks, and the 95th percentile with square ones."""
    shapes = [
        *_line("median", [one.median for one in quantiles]),
        *_line("p95", [one.p95 for one in quantiles]),
    ]
    step = PLOT_WIDTH / len(names)
    for index, (name, one) in enumerate(zip(names, quantiles, strict=True)):
        text = f"median {within(one.median)}, 95 of 100 {within(one.p95)}"
        text = "no callback" if one.median is None else text
        shapes.append(f"<g><title>{escape(name)}: {escape(text)}</title>")
        shapes.append(_rect("slot", LEFT + index * step, TOP, step, PLOT_HEIGHT) + "</g>")
    slowest = max((one.p95 for one in quantiles if one.p95 is not None), default=None)
    summary = (
        "No callback arrived in this time."
        if slowest is None
        else f"In the slowest hour, 95 of 100 callbacks arrived {within(slowest)}."
    )
    grid = _grid([(_height(bound), within(bound).removeprefix("within ")) for bound in LABELLED])
    return _svg(title, summary, grid, names, shapes)


def within(bound: int | None) -> str:
    """Return the upper bound of a latency in ms as text, such as `within 500 ms`."""
    if bound is None:
        return "-"
    if bound == SLOWEST:
        return "later than 5 min"
    if bound < 1_000:
        return f"within {bound} ms"
    return f"within {bound // 1_000} s" if bound < 60_000 else f"within {bound // 60_000} min"


def axis_end(value: int) -> int:
    """Return a round, even number that is at least this one, and at least 2.

    Half of it, which is also on the axis, is therefore an integer.
    """
    if value <= MOST_EVEN:
        return max(value + value % 2, 2)
    size = MOST_EVEN
    while True:
        for step in ROUND_NUMBERS:
            if step * size >= value:
                return step * size
        size *= 10


def _quantile(counts: Mapping[int, int], share: float) -> int | None:
    total, seen = sum(counts.values()), 0
    for bound in sorted(counts):
        seen += counts[bound]
        if seen >= share * total and seen:
            return bound
    return None


def _height(bound: int) -> float:
    index = BOUNDS.index(bound) if bound in BOUNDS else len(BOUNDS) - 1
    return HEIGHT - BOTTOM - (index + 0.5) / len(BOUNDS) * PLOT_HEIGHT


def _line(kind: str, bounds: Sequence[int | None]) -> list[str]:
    """Return a mark for each bound, and lines between marks of neighbouring hours."""
    step = PLOT_WIDTH / len(bounds)
    points = [
        None if bound is None else (LEFT + (index + 0.5) * step, _height(bound))
        for index, bound in enumerate(bounds)
    ]
    path, joined = [], False
    for point in points:
        if point is not None:
            path.append(f"{'L' if joined else 'M'}{point[0]:.1f} {point[1]:.1f}")
        joined = point is not None
    marks = [_mark(kind, *point) for point in points if point is not None]
    return [f'<path class="line {kind}" d="{" ".join(path)}"/>', *marks] if path else []


def _mark(kind: str, x: float, y: float) -> str:
    if kind == "median":
        return f'<circle class="mark median" cx="{x:.1f}" cy="{y:.1f}" r="3.2"/>'
    return f'<rect class="mark p95" x="{x - 3:.1f}" y="{y - 3:.1f}" width="6" height="6"/>'


def _rect(
    kind: str, x: float, y: float, width: float, height: float, is_hatched: bool = False
) -> str:
    # A stylesheet can only refer to a pattern that is defined in the stylesheet itself.
    fill = ' fill="url(#hatch)"' if is_hatched else ""
    box = f'x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{height:.1f}"'
    return f'<rect class="{escape(kind)}" {box}{fill}/>'


def _grid(marks: Sequence[tuple[float, str]]) -> list[str]:
    return [
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="axis" x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{label}</text>'
        for y, label in marks
    ]


def _svg(
    title: str, summary: str, grid: Sequence[str], names: Sequence[str], shapes: Sequence[str]
) -> Markup:
    step = PLOT_WIDTH / len(names)
    labels = [
        f'<text class="axis" x="{LEFT + (index + 0.5) * step:.1f}" y="{HEIGHT - 6}" '
        f'text-anchor="middle">{escape(name)}</text>'
        for index, name in enumerate(names)
        if index % LABEL_INTERVAL == LABEL_INTERVAL // 2
    ]
    texts = f"<title>{escape(title)}</title><desc>{escape(summary)}</desc>"
    inner = "".join([texts, *grid, *labels, *shapes])
    label = escape(f"{title}. {summary}")
    # Every part is a number, or was escaped above.
    return Markup(  # noqa: S704
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{inner}</svg>"
    )


def _axis_label(value: float) -> str:
    return f"{value:g}" if value < 10_000 else f"{value / 1000:g}k"


HATCH = (
    '<defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect class="hatch-ground" width="5" height="5"/>'
    '<rect class="hatch-line" width="2.4" height="5"/></pattern></defs>'
)

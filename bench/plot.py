"""Plots of curves as SVG: both axes logarithmic, readable on a light and on a dark page. Knows no files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 720, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 44, 48
_COLORS = ("#2f6fde", "#d9662c", "#2e9d5b", "#a04fc4", "#c23a5a", "#6b7a1f")
_STYLE = """
  text { font: 12px system-ui, sans-serif; fill: #24292f; }
  .title { font-size: 14px; font-weight: 600; }
  .grid { stroke: #d0d7de; stroke-width: 1; }
  .linear { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 2 4; fill: none; }
  .curve { stroke-width: 2; fill: none; }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3; }
    .grid { stroke: #3d444d; }
    .linear { stroke: #6e7681; }
  }"""


@dataclass(frozen=True, slots=True)
class Series:
    """A curve: a name and its points, x ascending, all above 0."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Axis:
    """Maps a range of powers of ten to a range of pixels."""

    low: int
    high: int
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        return self.start + (math.log10(value) - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> Iterator[float]:
        """The powers of ten."""
        yield from (10.0**power for power in range(self.low, self.high + 1))


def draw(title: str, x_label: str, y_label: str, curves: Sequence[Series]) -> str:
    """An SVG document with the curves, and through the first point of each a dotted line that grows linearly."""
    curves = [curve for curve in curves if curve.points]
    x = _axis([point[0] for curve in curves for point in curve.points], _LEFT, _WIDTH - _RIGHT)
    y = _axis([point[1] for curve in curves for point in curve.points], _HEIGHT - _BOTTOM, _TOP)
    return "\n".join(_lines(title, x_label, y_label, curves, x, y)) + "\n"


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    low = math.floor(math.log10(min(values, default=1)))
    high = math.ceil(math.log10(max(values, default=1)))
    return _Axis(low, max(high, low + 1), start, end)


def _lines(title: str, x_label: str, y_label: str, curves: Sequence[Series], x: _Axis, y: _Axis) -> Iterator[str]:
    yield f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}\n</style>"
    yield f'<text class="title" x="{_LEFT}" y="20">{escape(title)}</text>'
    for tick in x.ticks():
        across = f"{x(tick):.1f}"
        yield f'<line class="grid" x1="{across}" x2="{across}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
        yield f'<text x="{across}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{_number(tick)}</text>'
    for tick in y.ticks():
        down = f"{y(tick):.1f}"
        yield f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{down}" y2="{down}"/>'
        yield f'<text x="{_LEFT - 6}" y="{down}" dy="4" text-anchor="end">{_number(tick)}</text>'
    yield f'<text x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 10}" text-anchor="end">{escape(x_label)}</text>'
    yield f'<text x="{_LEFT}" y="36">{escape(y_label)}</text>'
    for number, curve in enumerate(curves):
        color = _COLORS[number % len(_COLORS)]
        yield from _linear(curve, x, y)
        path = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in curve.points)
        yield f'<polyline class="curve" stroke="{color}" points="{path}"/>'
        for at, value in curve.points:
            yield f'<circle cx="{x(at):.1f}" cy="{y(value):.1f}" r="3" fill="{color}"/>'
        left = _LEFT + 8 + 160 * (number % 4)
        top = _HEIGHT - 10 if len(curves) <= 2 else _HEIGHT - 18 + 14 * (number // 4)
        yield f'<circle cx="{left}" cy="{top - 4}" r="4" fill="{color}"/>'
        yield f'<text x="{left + 9}" y="{top}">{escape(curve.name)}</text>'
    yield "</svg>"


def _linear(curve: Series, x: _Axis, y: _Axis) -> Iterator[str]:
    """The line of linear growth from the first point on, as far as the axes go."""
    first, value = curve.points[0]
    factor = min(curve.points[-1][0] / first, 10.0**y.high / value)
    start, end = (x(first), y(value)), (x(first * factor), y(value * factor))
    yield f'<path class="linear" d="M{start[0]:.1f},{start[1]:.1f} L{end[0]:.1f},{end[1]:.1f}"/>'


def _number(value: float) -> str:
    """A power of ten, short."""
    for factor, suffix in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if value >= factor:
            return f"{value / factor:.0f}{suffix}"
    return f"{value:g}"

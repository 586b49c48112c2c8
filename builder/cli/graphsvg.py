"""The graph of `pybuild graph` as a picture: SVG 1.1 that needs nothing beside it.

Where things stand is decided elsewhere (`builder/graphlayout.py`).
"""

from __future__ import annotations

import html
import unicodedata
from collections.abc import Collection, Sequence
from typing import NamedTuple

from builder.graphlayout import Layout, Point, layout

_BOX, _HEIGHT, _GAP, _BEND, _ROW, _MARGIN = 380, 46, 24, 12, 84, 20
_COLUMNS = 48
_STYLE = """\
svg { background: #fff; font: 12px ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace }
rect { stroke: #57606a; fill: #f6f8fa }
rect.run { fill: #fff1e5 } rect.copy { fill: #ddf4ff } rect.mkdir { fill: #dafbe1 }
rect.image, rect.scratch { fill: #eaeef2 } rect.context, rect.git { fill: #fbefff }
rect.target { stroke: #1f2328; stroke-width: 2.5 }
text { fill: #1f2328 } text.where { fill: #57606a; font-size: 11px }
path { fill: none; stroke: #57606a; stroke-width: 1.2 } path.reads { stroke-dasharray: 4 3 }
marker path { fill: #57606a; stroke: none }"""
_ARROW = (
    '<defs><marker id="end" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
    '<path d="M0 0 8 4 0 8z"/></marker></defs>'
)


class Box(NamedTuple):
    """A vertex: its kind, its whole name, and the line it was written in, if any."""

    kind: str
    name: str
    line: int | None


def draw(
    boxes: Sequence[Box],
    edges: Sequence[tuple[int, int]],
    *,
    parents: Collection[tuple[int, int]],
    targets: Collection[int],
    title: str,
) -> str:
    """Return the picture. Lines of `edges` that are not in `parents` are dashed, the boxes of `targets` bold."""
    placed = layout(len(boxes), edges, main=parents, box=_BOX, bend=_BEND, gap=_GAP)
    width = max((x for x in placed.x.values()), default=0.0) + _BOX / 2 + 2 * _MARGIN
    height = (max(placed.rows, default=0) + 1) * _ROW - (_ROW - _HEIGHT) + 2 * _MARGIN
    size = f'width="{width:g}" height="{height}" viewBox="0 0 {width:g} {height}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">',
            f"<title>{_escaped(title)}</title>",
            f"<style>{_STYLE}</style>",
            _ARROW,
            f'<g transform="translate({_MARGIN} {_MARGIN})">',
            *_lines(placed, parents),
            *(_drawn(box, number, placed, target=number in targets) for number, box in enumerate(boxes)),
            "</g>",
            "</svg>",
        )
    )


def _lines(placed: Layout, parents: Collection[tuple[int, int]]) -> list[str]:
    lines = []
    for upper, lower, targets in placed.segments:
        x, y = placed.x[upper], upper.row * _ROW + _HEIGHT
        end, below = placed.x[lower], lower.row * _ROW
        arrives = lower.vertex in targets
        # A bend is a vertical line as high as a box, so that the curves lie between the rows.
        path = f"M{x:g} {y}C{x:g} {y + 19} {end:g} {below - 19} {end:g} {below}"
        path += "" if arrives else f"V{below + _HEIGHT}"
        style = "" if any((upper.vertex, target) in parents for target in targets) else ' class="reads"'
        lines.append(f'<path d="{path}"{style}{" marker-end=" + chr(34) + "url(#end)" + chr(34) if arrives else ""}/>')
    return lines


def _drawn(box: Box, number: int, placed: Layout, *, target: bool) -> str:
    row = placed.rows[number]
    x, y = placed.x[Point(number, row)] - _BOX / 2, row * _ROW
    where, text = "", box.name
    if box.name.startswith("["):
        where, _, text = box.name[1:].partition("] ")
    where = " · ".join(filter(None, (where, f"line {box.line}" if box.line else "")))
    return (
        f"<g><title>{_escaped(box.name)}</title>"
        f'<rect class="{box.kind}{" target" if target else ""}" x="{x:g}" y="{y}" width="{_BOX}" height="{_HEIGHT}" '
        'rx="5"/>'
        + (f'<text class="where" x="{x + 10:g}" y="{y + 17}">{_escaped(_cut(where))}</text>' if where else "")
        + f'<text x="{x + 10:g}" y="{y + (35 if where else 27)}">{_escaped(_cut(text))}</text></g>'
    )


def _cut(text: str) -> str:
    """Return as much of `text` as a box has room for; characters of East Asian scripts are two columns wide."""
    columns = 0
    for at, character in enumerate(text):
        columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if columns > _COLUMNS:
            return text[: at - 1] + "…"
    return text


def _escaped(text: str) -> str:
    """Return `text` for XML 1.0, which has no way to write control characters."""
    return html.escape("".join(c if c.isprintable() else " " if c in "\t\n\r" else "\ufffd" for c in text))

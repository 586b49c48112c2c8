"""Where the vertices of a graph stand in a picture: in rows, each below all that it needs, with few crossing lines.

The method is Sugiyama's: rows by longest path, lines that skip rows led through them as bends, order within a row by
the mean place of the neighbours, then coordinates. Equal graphs give equal pictures. It knows numbers only.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

_SWEEPS = 16
_WEIGHT = 8
"""How much straighter the main edges are than others."""


class Segment(NamedTuple):
    """A line from a point of one row to one of the next; the edges that it is a part of end at `targets`."""

    upper: Point
    lower: Point
    targets: frozenset[int]


class Point(NamedTuple):
    """A vertex in its row, or a bend of the lines from `vertex` on their way to further rows."""

    vertex: int
    row: int


class Layout(NamedTuple):
    """The centre of every point, whose rows are counted from the top; the least is 0 minus half a box."""

    rows: tuple[int, ...]
    x: Mapping[Point, float]
    segments: tuple[Segment, ...]


def layout(
    count: int,
    edges: Sequence[tuple[int, int]],
    *,
    main: Collection[tuple[int, int]] = (),
    box: float,
    bend: float,
    gap: float,
) -> Layout:
    """Place `count` vertices; `edges` are pairs of numbers, what is needed first, in an order that respects them.

    Those that are in `main` are drawn as straight as can be. `box` and `bend` are the widths of vertices and of lines
    that pass between them, `gap` what stays free.
    """
    rows = _rows(count, edges)
    segments = _segments(rows, edges)
    order = _ordered(rows, segments)
    heavy = {
        segment[:2]
        for segment in segments
        if segment.upper.vertex == segment.lower.vertex
        or any((segment.upper.vertex, target) in main for target in segment.targets)
    }
    x = _coordinates(order, segments, heavy, {True: box, False: bend}, gap, rows)
    least = min((place - box / 2 for place in x.values()), default=0.0)
    return Layout(rows, {point: round(place - least, 1) for point, place in x.items()}, segments)


def _rows(count: int, edges: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Each vertex one row below the lowest that it needs; what needs nothing just above the first that needs it."""
    rows = [0] * count
    first: dict[int, int] = {}
    for source, target in sorted(edges, key=lambda edge: edge[1]):
        rows[target] = max(rows[target], rows[source] + 1)
    for source, target in edges:
        first[source] = min(first.get(source, rows[target]), rows[target])
    for number in first.keys() - {target for _, target in edges}:
        rows[number] = first[number] - 1
    return tuple(rows)


def _segments(rows: Sequence[int], edges: Sequence[tuple[int, int]]) -> tuple[Segment, ...]:
    """Lines from row to row: those from one vertex run together as far as they can."""
    found: dict[tuple[Point, Point], set[int]] = {}
    for source, target in edges:
        upper = Point(source, rows[source])
        for row in range(rows[source] + 1, rows[target]):
            lower = Point(source, row)
            found.setdefault((upper, lower), set()).add(target)
            upper = lower
        found.setdefault((upper, Point(target, rows[target])), set()).add(target)
    return tuple(Segment(*pair, frozenset(targets)) for pair, targets in found.items())


def _neighbours(segments: Sequence[Segment]) -> tuple[dict[Point, list[Point]], dict[Point, list[Point]]]:
    above: dict[Point, list[Point]] = {}
    below: dict[Point, list[Point]] = {}
    for segment in segments:
        below.setdefault(segment.upper, []).append(segment.lower)
        above.setdefault(segment.lower, []).append(segment.upper)
    return above, below


def _ordered(rows: Sequence[int], segments: Sequence[Segment]) -> list[list[Point]]:
    """The points of each row from left to right: the order with the fewest crossings that the sweeps come by."""
    points = dict.fromkeys(Point(number, row) for number, row in enumerate(rows))
    points |= dict.fromkeys(point for segment in segments for point in segment[:2])
    order: list[list[Point]] = [[] for _ in range(max(rows, default=-1) + 1)]
    for point in sorted(points):
        order[point.row].append(point)
    above, below = _neighbours(segments)
    best, fewest = [row[:] for row in order], _crossings(order, below)
    for sweep in range(_SWEEPS):
        down = sweep % 2 == 0
        beside = above if down else below
        for at in range(1, len(order)) if down else range(len(order) - 2, -1, -1):
            place = {point: number for number, point in enumerate(order[at - 1 if down else at + 1])}
            means = {
                point: sum(place[one] for one in beside[point]) / len(beside[point]) if point in beside else number
                for number, point in enumerate(order[at])
            }
            order[at].sort(key=means.__getitem__)
        crossings = _crossings(order, below)
        if crossings < fewest:
            best, fewest = [row[:] for row in order], crossings
    return best


def _crossings(order: Sequence[Sequence[Point]], below: Mapping[Point, Sequence[Point]]) -> int:
    total = 0
    for upper, lower in itertools.pairwise(order):
        place = {point: number for number, point in enumerate(lower)}
        ends = [sorted(place[one] for one in below.get(point, ())) for point in upper]
        seen: list[int] = []
        for group in ends:
            total += sum(one > end for end in group for one in seen)
            seen += group
    return total


def _coordinates(
    order: Sequence[Sequence[Point]],
    segments: Sequence[Segment],
    heavy: Set[tuple[Point, Point]],
    widths: Mapping[bool, float],
    gap: float,
    rows: Sequence[int],
) -> dict[Point, float]:
    """Centres: each point as near to its neighbours' mean as the others of its row let it."""
    above, below = _neighbours(segments)
    x: dict[Point, float] = {}
    offsets: dict[Point, float] = {}
    for row in order:
        at = 0.0
        for point in row:
            half = widths[rows[point.vertex] == point.row] / 2
            offsets[point] = x[point] = at + half
            at += 2 * half + gap

    for sweep in range(_SWEEPS):
        beside = below if sweep % 2 else above
        for row in reversed(order) if sweep % 2 else order:
            wanted = []
            for point in row:
                pulls = [(one, _WEIGHT if heavy & {(point, one), (one, point)} else 1) for one in beside.get(point, ())]
                total = sum(weight for _, weight in pulls)
                mean = sum(x[one] * weight for one, weight in pulls) / total if total else x[point]
                wanted.append((mean - offsets[point], total or 1))
            x.update((point, place + offsets[point]) for point, place in zip(row, _nearest(wanted), strict=True))
    return x


def _nearest(wanted: Sequence[tuple[float, int]]) -> list[float]:
    """The rising numbers that are nearest to `wanted`, numbers and weights, by least squares (PAVA)."""
    blocks: list[tuple[float, int, int]] = []  # mean, weight, length
    for value, heft in wanted:
        mean, weight, length = value, heft, 1
        while blocks and blocks[-1][0] > mean:
            before, more, count = blocks.pop()
            mean = (before * more + mean * weight) / (more + weight)
            weight, length = weight + more, length + count
        blocks.append((mean, weight, length))
    return [mean for mean, _, length in blocks for _ in range(length)]

"""Where vertices stand in a picture."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from builder.graphlayout import Point, layout

BOX, BEND, GAP = 100.0, 10.0, 20.0


def graph(seed: int) -> tuple[int, list[tuple[int, int]]]:
    """A graph as builds have them: chains that begin anywhere and read from one another."""
    dice = random.Random(seed)
    count = dice.randrange(1, 40)
    edges: dict[tuple[int, int], None] = {}
    for number in range(1, count):
        for _ in range(dice.choice((0, 1, 1, 1, 2, 3))):
            edges[dice.randrange(number), number] = None
    return count, list(edges)


@pytest.mark.parametrize("seed", range(30))
def test_nothing_overlaps_and_lines_go_down(seed: int) -> None:
    """Every vertex stands below what it needs, every edge is a way from row to row, and no two points touch."""
    count, edges = graph(seed)
    placed = layout(count, edges, box=BOX, bend=BEND, gap=GAP)

    assert all(placed.rows[source] < placed.rows[target] for source, target in edges)
    below: dict[tuple[Point, int], Point] = {}
    for upper, lower, targets in placed.segments:
        assert upper.row + 1 == lower.row
        below |= {(upper, target): lower for target in targets}
    for source, target in edges:
        at = Point(source, placed.rows[source])
        while at != Point(target, placed.rows[target]):
            at = below[at, target]
    for row in range(max(placed.rows) + 1):
        points = sorted((point for point in placed.x if point.row == row), key=placed.x.__getitem__)
        halves = [(BOX if placed.rows[point.vertex] == row else BEND) / 2 for point in points]
        for (left, right), (one, other) in zip(pairwise(points), pairwise(halves), strict=True):
            assert placed.x[right] - placed.x[left] >= one + other + GAP - 0.2
    assert 0 <= min(placed.x[Point(number, row)] for number, row in enumerate(placed.rows)) - BOX / 2 + 0.1
    assert placed == layout(count, edges, box=BOX, bend=BEND, gap=GAP)


def test_a_ladder_has_no_crossings() -> None:
    """Two chains with rungs between them stand side by side, whatever order they were numbered in."""
    edges = [(0, 3), (1, 2), (2, 4), (3, 5), (4, 6), (5, 7), (6, 8), (7, 8)]
    placed = layout(9, edges, box=BOX, bend=BEND, gap=GAP)

    sides = [placed.x[Point(a, placed.rows[a])] < placed.x[Point(b, placed.rows[b])] for a, b in ((1, 0), (4, 5))]
    assert sides[0] == sides[1]


def test_what_needs_nothing_stands_near() -> None:
    """A source that is needed late stands just above the first that needs it; its lines run together."""
    placed = layout(5, [(0, 1), (1, 3), (2, 3), (3, 4), (2, 4)], box=BOX, bend=BEND, gap=GAP)

    assert (0, 1, 1, 2, 3) == placed.rows
    assert 6 == len(placed.segments)


def test_nothing() -> None:
    """A graph without edges is one row."""
    assert ((0,), (), (BOX / 2,)) == (
        (one := layout(1, [], box=BOX, bend=BEND, gap=GAP)).rows,
        one.segments,
        tuple(one.x.values()),
    )

"""Edits of a text: where they go, what they keep, and which of them exclude each other."""

from __future__ import annotations

import pytest

from grammar.diagnostics import Position, Span
from grammar.lint.fix import Edit, Fix, Text, apply_fixes, compatible, insertion


def edit(line: int, first: int, last: int, text: str) -> Edit:
    """An edit of the columns `first` to just before `last` of one line."""
    return Edit(Span(Position(line, first), Position(line, last)), text)


def fix(*edits: Edit) -> Fix:
    """A fix that nobody reads the title of."""
    return Fix(title="Repair", edits=edits)


def fixed(source: str, *fixes: Fix) -> str:
    """The text after those fixes that can be made at once."""
    return apply_fixes(source, compatible(source, fixes))


@pytest.mark.parametrize(
    ("source", "fixes", "expected"),
    [
        ("one two", [fix(edit(1, 5, 8, "2"))], "one 2"),
        ("one\r\ntwo\r\n", [fix(edit(2, 1, 4, "2"))], "one\r\n2\r\n"),
        ("one\ntwo\n", [fix(insertion(Position(2, 1), "and\n"))], "one\nand\ntwo\n"),
        ("one two", [fix(edit(1, 5, 8, "2"), edit(1, 1, 4, "1"))], "1 2"),
        ("a\nb\nc", [fix(Edit(Span(Position(1, 1), Position(3, 1)), ""))], "c"),
        ("é\u2028x y", [fix(edit(1, 3, 4, "z"))], "é\u2028z y"),
    ],
    ids=["replace", "crlf", "insert", "two edits", "delete lines", "wide characters"],
)
def test_edits(source: str, fixes: list[Fix], expected: str) -> None:
    """What the edits do not cover stays as it is."""
    assert expected == fixed(source, *fixes)


def test_overlapping_fixes() -> None:
    """Of two fixes that touch the first is made, whole; one beside them is made too."""
    fixes = [fix(edit(1, 1, 4, "1")), fix(edit(1, 3, 6, "x"), edit(1, 9, 14, "y")), fix(edit(1, 5, 8, "2"))]

    assert "1 2 three" == fixed("one two three", *fixes)


def test_equal_edits() -> None:
    """Two fixes that want the same are one: a missing line is inserted once."""
    wanted = fix(insertion(Position(2, 1), "ARG A\n"))

    assert "FROM x\nARG A\nRUN y\n" == fixed("FROM x\nRUN y\n", wanted, wanted)


def test_insertions_at_one_place() -> None:
    """Two different insertions at one place wait for one another."""
    fixes = [fix(insertion(Position(1, 1), "a")), fix(insertion(Position(1, 1), "b"))]

    assert "ax" == fixed("x", *fixes)


@pytest.mark.parametrize("source", ["", "a", "a\n", "\n\nab\n", "é\r\nb"])
def test_places(source: str) -> None:
    """Offsets and places are two names for one thing."""
    text = Text(source)

    assert list(range(len(source) + 1)) == [text.offset(text.position(at)) for at in range(len(source) + 1)]
    assert source.split("\n") == [text.line(number) for number in range(1, text.last_line + 1)]

"""Fixes: edits of a file's text that repair what a rule objects to. Knows text and places, and no rule."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from grammar.diagnostics import Position, Span
from grammar.record import Record


class Edit(NamedTuple):
    """Puts `text` in the place of what stands at `span`; an empty span inserts, an empty text deletes."""

    span: Span
    text: str


class Fix(Record):
    """One way to repair one violation: `title` says it in a few words, `edits` do not overlap each other.

    A `safe` fix changes nothing about what is built, or exactly what its rule is about.
    """

    title: str
    edits: tuple[Edit, ...]
    safe: bool = True


def insertion(place: Position, text: str) -> Edit:
    """Return the edit that puts `text` before what stands at `place`."""
    return Edit(Span(place, place), text)


def apply_fixes(source: str, fixes: Iterable[Fix]) -> str:
    """Return `source` with the edits of `fixes`; a fix that touches what an earlier one edits is left out.

    Lines end at newlines, as in `Ast.source`; what stands before a newline, a carriage return included, is kept.
    """
    starts = _line_starts(source)
    taken: list[tuple[int, int, str]] = []
    for fix in fixes:
        wanted = [(_offset(starts, edit.span.start), _offset(starts, edit.span.end), edit.text) for edit in fix.edits]
        new = [edit for edit in wanted if edit not in taken]
        if not any(_touch(one, other) for one in new for other in taken):
            taken += new
    return "".join(_pieces(source, sorted(taken)))


def _line_starts(source: str) -> list[int]:
    starts = [0]
    for line in source.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    return starts


def _offset(starts: list[int], position: Position) -> int:
    return starts[position.line - 1] + position.column - 1


def _touch(one: tuple[int, int, str], other: tuple[int, int, str]) -> bool:
    """Whether two edits share a character, or insert at one place, where their order would be a guess."""
    if one[:2] == other[:2]:
        return True
    return one[0] < other[1] and other[0] < one[1]


def _pieces(source: str, edits: list[tuple[int, int, str]]) -> Iterator[str]:
    at = 0
    for start, end, text in edits:
        yield source[at:start]
        yield text
        at = end
    yield source[at:]

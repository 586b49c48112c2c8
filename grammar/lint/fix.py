"""Fixes: edits of a file's text that repair what a rule objects to. Knows text and places, and no rule."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from grammar.ast import Word
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


class Text:
    """A source text by lines and columns, as spans count them: lines end at newlines, and nothing else ends one."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._starts = [0]
        for line in source.split("\n"):
            self._starts.append(self._starts[-1] + len(line) + 1)

    @property
    def last_line(self) -> int:
        """The number of lines; behind a newline at the end there is an empty one."""
        return len(self._starts) - 1

    def offset(self, position: Position) -> int:
        """Return where in the source a place is; one behind its end is its end."""
        line = min(position.line, len(self._starts))
        return min(self._starts[line - 1] + position.column - 1, len(self.source))

    def position(self, offset: int) -> Position:
        """Return the place of an offset: the inverse of `offset`."""
        line = bisect_right(self._starts, offset, hi=self.last_line)
        return Position(line, offset - self._starts[line - 1] + 1)

    def at(self, span: Span) -> str:
        """Return what stands at `span`."""
        return self.source[self.offset(span.start) : self.offset(span.end)]

    def line(self, number: int) -> str:
        """Return a line without its newline; a carriage return before it is kept."""
        return self.source[self._starts[number - 1] : self._starts[number] - 1]

    def whole_line(self, number: int) -> Span:
        """Return the place of a line with its newline."""
        return Span(Position(number, 1), Position(number + 1, 1))


def rewrite(text: Text, word: Word, wanted: str) -> Fix | None:
    """Return the fix that writes `wanted` in the place of `word`; None where a continuation runs through the word."""
    if text.at(word.span) != word.text:
        return None
    return Fix(title=f"Write {wanted}", edits=(Edit(word.span, wanted),))


def compatible(source: str, fixes: Iterable[Fix]) -> list[Fix]:
    """Return the fixes that can be made at once: one that touches what an earlier one edits has to wait."""
    text = Text(source)
    taken: list[tuple[int, int, str]] = []
    chosen = []
    for fix in fixes:
        new = [edit for edit in _offsets(text, fix) if edit not in taken]
        if not any(_touch(one, other) for one in new for other in taken):
            taken += new
            chosen.append(fix)
    return chosen


def apply_fixes(source: str, fixes: Iterable[Fix]) -> str:
    """Return `source` with the edits of `fixes`, which are `compatible`; an edit that two of them want is one."""
    text = Text(source)
    edits = {edit for fix in fixes for edit in _offsets(text, fix)}
    return "".join(_pieces(source, sorted(edits)))


def _offsets(text: Text, fix: Fix) -> list[tuple[int, int, str]]:
    return [(text.offset(edit.span.start), text.offset(edit.span.end), edit.text) for edit in fix.edits]


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

"""One version of one Dockerfile, and what is at a place of it.

Everything is worked out when it is first asked for; a document that changes is replaced.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from builder.lsp.symbols import Symbols
from builder.lsp.text import Text
from grammar import Position
from grammar.draft import Draft, Piece, parse_draft
from grammar.text import WIDE_BLANKS

_ENDINGS = (".dockerfile", ".containerfile")
_NAMES = ("dockerfile", "containerfile")


class Spot(NamedTuple):
    """A place in an instruction: `offset` in the text of the logical line; `which` is the index of its piece."""

    which: int
    piece: Piece
    offset: int


class Document:
    """A Dockerfile as it is in an editor; `path` is where it lies, None if that is not in this file system."""

    def __init__(self, text: Text, *, name: str = "Dockerfile", path: Path | None = None) -> None:
        self.text = text
        self.name = name
        self.path = path

    @cached_property
    def draft(self) -> Draft:
        """What of it can be read."""
        return parse_draft(self.text.data, name=self.name)

    @cached_property
    def symbols(self) -> Symbols:
        """The names in it."""
        return Symbols(self.draft)

    @cached_property
    def lines(self) -> list[str]:
        """Its lines as the grammar counts them, without endings."""
        return [line.rstrip("\r") for line in self.draft.ast.source.split("\n")]

    def line(self, number: int) -> str:
        """Return a line, from 1; nothing where there is none."""
        return self.lines[number - 1] if 0 < number <= len(self.lines) else ""

    def piece_at(self, line: int) -> tuple[int, Piece] | None:
        """Return the instruction that a line belongs to, with its comments and heredocs, and its index."""
        for index, piece in enumerate(self.draft.pieces):
            if piece.line.first <= line <= piece.end:
                return index, piece
        return None

    def spot(self, position: Position) -> Spot | None:
        """Return the place in an instruction; None in comments, in heredocs and between instructions."""
        found = self.piece_at(position.line)
        if found is None or position.line > found[1].last or self.in_comment(position):
            return None
        return Spot(*found, _offset(found[1], position))

    def in_comment(self, position: Position) -> bool:
        """Say whether a place is in a comment or a directive: behind the `#`."""
        found = self.piece_at(position.line)
        if found is not None and (position.line > found[1].last or position.line == found[1].line.first):
            return False
        line = self.line(position.line)
        return line.lstrip(WIDE_BLANKS).startswith("#") and position.column - 1 > line.index("#")


def _offset(piece: Piece, position: Position) -> int:
    """The offset of a place in the logical line: what stands in no line of it counts to the next."""
    line = piece.line
    bounds = [0, *(at for at, _ in line.breaks()), len(line.text)]
    numbers = [line.first, *(number for _, number in line.breaks())]
    for index, number in enumerate(numbers):
        if position.line < number:
            return bounds[index]
        if position.line == number:
            column = position.column - line.position(bounds[index]).column
            return min(max(bounds[index] + column, bounds[index]), bounds[index + 1])
    return len(line.text)


def is_dockerfile(name: str, language: str) -> bool:
    """Say whether a file is a Dockerfile: by the language an editor gives it, or by its name."""
    lowered = name.lower()
    if lowered.endswith(".dockerignore"):
        return False
    if language.lower() in _NAMES:
        return True
    return lowered in _NAMES or lowered.endswith(_ENDINGS) or lowered.startswith(tuple(f"{one}." for one in _NAMES))

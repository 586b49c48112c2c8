"""The text of a document and the three ways to name a place in it: offsets, the protocol's places, the grammar's.

Knows lines and encodings, and nothing of Dockerfiles. Language Server Protocol 3.17, "Text Documents".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

from grammar import Position
from grammar.lint import fix

_BOM = "\ufeff"
_ENDING = re.compile(r"\r\n|\r|\n")
_SURROGATE = re.compile("[\ud800-\udfff]")


class Place(NamedTuple):
    """A place as a client names it: both numbers from 0, `character` in units of the encoding agreed upon."""

    line: int
    character: int


class Text:
    """One version of a document. `encoding` is `utf-8`, `utf-16` or `utf-32`: what a client's characters count.

    The protocol ends lines at CR, LF and CR LF, the grammar at LF alone; the grammar drops a byte order mark, the
    protocol counts it.
    """

    def __init__(self, source: str, encoding: str = "utf-16") -> None:
        self.source = source
        self.encoding = encoding
        self._starts = [0, *(match.end() for match in _ENDING.finditer(source))]
        self._mark = len(_BOM) if source.startswith(_BOM) else 0
        self._read = fix.Text(source[self._mark :])

    @property
    def data(self) -> bytes:
        """What the grammar is to read; half a surrogate pair, which is no character, becomes U+FFFD."""
        return _SURROGATE.sub("\ufffd", self.source).encode()

    def replaced(self, start: Place, end: Place, text: str) -> Text:
        """Return the document with a stretch of it replaced."""
        first, last = self.offset(start), self.offset(end)
        return Text(self.source[:first] + text + self.source[max(first, last) :], self.encoding)

    # -- the protocol's places ------------------------------------------------------------------------------------

    def offset(self, place: Place) -> int:
        """Return the offset of a place; one behind the end of its line, or of the text, is at that end."""
        if place.line >= len(self._starts):
            return len(self.source)
        start = self._starts[max(place.line, 0)]
        line = self._line(place.line)
        if self.encoding == "utf-32" or line.isascii():
            return start + min(place.character, len(line))
        units = 0
        for index, char in enumerate(line):
            if units >= place.character:
                return start + index
            units += self._units(char)
        return start + len(line)

    def place(self, offset: int) -> Place:
        """Return the place of an offset."""
        line = bisect_right(self._starts, offset) - 1
        before = self.source[self._starts[line] : offset]
        return Place(line, len(before) if before.isascii() else sum(map(self._units, before)))

    @property
    def end(self) -> Place:
        """The place behind the last character."""
        return self.place(len(self.source))

    def _line(self, number: int) -> str:
        """A line without its ending."""
        end = self._starts[number + 1] if number + 1 < len(self._starts) else len(self.source)
        return self.source[self._starts[number] : end].rstrip("\r\n")

    def _units(self, char: str) -> int:
        if char < "\x80" or self.encoding == "utf-32":
            return 1
        if self.encoding == "utf-16":
            return 2 if char > "\uffff" else 1
        return 2 if char < "\u0800" else 3 if char <= "\uffff" else 4

    # -- the grammar's places -------------------------------------------------------------------------------------

    def position(self, offset: int) -> Position:
        """Return where the grammar sees an offset."""
        return self._read.position(max(offset - self._mark, 0))

    def place_of(self, position: Position) -> Place:
        """Return what a client calls a place that the grammar names; one behind the end is at the end."""
        return self.place(self._read.offset(position) + self._mark)

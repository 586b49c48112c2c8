"""The lines at the bottom of a terminal that are drawn again and again: written over, never cleared first.

Knows widths and cursor movement; knows nothing of builds.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import TextIO

from builder.progress.colors import RESET

_STYLE = re.compile(r"(\x1b\[[0-9;:]*m)")
_TAB = 8

_BEGIN = "\x1b[?2026h"  # synchronized output: terminals that know it show the frame at once, others ignore it
_END = "\x1b[?2026l"
_HIDE_CURSOR = "\x1b[?25l"
_SHOW_CURSOR = "\x1b[?25h"
_CLEAR_LINE = "\x1b[K"
_CLEAR_BELOW = "\x1b[J"


class Screen:
    """Writes frames to the terminal `out`; `size` gives its columns and rows at any moment: no signal is needed."""

    def __init__(self, out: TextIO, *, size: Callable[[], tuple[int, int]]) -> None:
        self._out = out
        self._size = size
        self._drawn: tuple[int, ...] = ()
        """The widths of the lines that are drawn below the lasting text."""
        self._hidden = False

    def size(self) -> tuple[int, int]:
        """Return columns and rows as they are now."""
        return self._size()

    def draw(self, lasting: Sequence[str], live: Sequence[str]) -> None:
        """Let `lasting` lines scroll away for good, and show `live` ones below them instead of the last frame's.

        Live lines are clipped to the terminal's width and height; lasting ones may wrap.
        """
        columns, rows = self._size()
        parts = [_BEGIN]
        if not self._hidden:
            parts.append(_HIDE_CURSOR)
            self._hidden = True
        # A terminal that became narrower has wrapped what was drawn: those rows have to be gone over as well.
        height = sum(max(1, -(-width // columns)) for width in self._drawn)
        if height:
            parts.append(f"\x1b[{min(height, rows)}A\r")
        shown = [clip(line, columns - 1) for line in live[: rows - 1]]
        parts += [f"{line}{_CLEAR_LINE}\n" for line in (*lasting, *shown)]
        parts += [_CLEAR_BELOW, _END]
        self._drawn = tuple(width(line) for line in shown)
        self._out.write("".join(parts))
        self._out.flush()

    def close(self) -> None:
        """Show the cursor again; what was drawn stays."""
        if self._hidden:
            self._out.write(_SHOW_CURSOR)
            self._hidden = False
        self._drawn = ()
        self._out.flush()


def without_styles(text: str) -> str:
    """Return `text` without colours."""
    return _STYLE.sub("", text)


def width(text: str) -> int:
    """Return how many columns `text` takes; colours take none, East Asian wide characters two."""
    plain = without_styles(text)
    return len(plain) if plain.isascii() else sum(map(_columns, plain))


def clip(text: str, columns: int) -> str:
    """Return as much of `text` as fits into `columns`, colours closed and tabs widened."""
    if "\t" in text:
        text = text.expandtabs(_TAB)
    if len(text) <= columns and text.isascii() and "\x1b" not in text:
        return text
    left = columns
    parts: list[str] = []
    styled = False
    for piece in _STYLE.split(text):
        if piece.startswith("\x1b"):
            styled = piece not in (RESET, "\x1b[m")
            parts.append(piece)
            continue
        for character in piece:
            left -= _columns(character)
            if left < 0:
                break
            parts.append(character)
        if left < 0:
            break
    return "".join(parts) + (RESET if styled else "")


def _columns(character: str) -> int:
    if character < "\x7f":
        return 1
    if unicodedata.combining(character) or unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1

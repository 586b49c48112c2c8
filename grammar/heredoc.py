"""Finds the `<<NAME` words of a line. Knows nothing of their bodies."""

from __future__ import annotations

import re
from typing import NamedTuple

from grammar.errors import ExpandError
from grammar.expand import Lexer

_WORD = re.compile(r"([0-9]*)<<(-?)[\t\n\f\r ]*([^<]*)")


class Opening(NamedTuple):
    """A `[fd]<<[-]NAME` word: `name` without quotes, `expand` False where it had some, `text` as written."""

    name: str
    expand: bool
    chomp: bool
    fd: int | None
    text: str


def openings(text: str) -> list[Opening]:
    """Return the heredoc words of a logical line in their order; a line whose quotes do not match has none."""
    lexer = Lexer(text, {}, raw_quotes=True, raw_escapes=True, keep_unset=True)
    return [found for word in lexer.words() if (found := opening(word)) is not None]


def opening(word: str) -> Opening | None:
    """Return what a word opens, None where it is no heredoc."""
    match = _WORD.fullmatch(word)
    if match is None or not match[3]:
        return None
    try:
        _, names = Lexer(match[3], {}, keep_unset=True).split()
        _, quoted = Lexer(match[3], {}, keep_unset=True, raw_quotes=True).split()
    except ExpandError:
        return None
    if len(names) != 1 or len(quoted) != 1:
        return None
    # An escaped quote is in both, a quote that quotes only in the second.
    expand = _quotes(names[0]) == _quotes(quoted[0])
    fd = int(match[1]) if match[1] else None
    return Opening(name=names[0], expand=expand, chomp=match[2] == "-", fd=fd, text=word)


def _quotes(text: str) -> int:
    return text.count('"') + text.count("'")

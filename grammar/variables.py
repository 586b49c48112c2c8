"""Where variables are named in a text: in words that a Dockerfile expands, and in commands that a shell will.

Knows nothing of values, nor of which variables there are.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import NamedTuple

from grammar.errors import ExpandError
from grammar.expand import Lexer

_SHELL = re.compile(
    r"""
      \\[\s\S]?                                     # an escaped character
    | (?P<single>'[^']*(?:'|\Z))
    | (?P<double>")
    | \$\{(?P<braced>[A-Za-z_][A-Za-z_0-9]*)
    | \$(?P<plain>[A-Za-z_][A-Za-z_0-9]*)
    """,
    re.VERBOSE,
)


class Named(NamedTuple):
    """A variable in a text, and from where to where its name stands, without `$` and braces."""

    name: str
    start: int
    end: int


def named(text: str, *, escape: str = "\\", quotes: bool = True) -> list[Named]:
    """Return the variables that a Dockerfile's own expansion looks up, up to the first fault of the text.

    `quotes=False` makes quotes plain text, as they are in a heredoc.
    """
    finder = _Finder(text, escape=escape, quotes=quotes)
    with suppress(ExpandError):  # what comes before a fault was found
        finder.run()
    return finder.found


def named_in_shell(text: str) -> list[Named]:
    """Return the variables that a POSIX shell would look up in a command, whoever sets them."""
    found = []
    quoted = False
    at = 0
    while match := _SHELL.search(text, at):
        at = match.end()
        if match["double"]:
            quoted = not quoted
        elif match["single"] and quoted:
            at = match.start() + 1  # within double quotes a single one is plain
        group = "braced" if match["braced"] else "plain"
        if match[group]:
            found.append(Named(match[group], *match.span(group)))
    return found


class _Finder(Lexer):
    """An expansion that finds no variable set, and notes where it looked for one."""

    def __init__(self, text: str, *, escape: str, quotes: bool) -> None:
        super().__init__(text, {}, escape=escape, quotes=quotes, keep_unset=True)
        self.found: list[Named] = []

    def _name(self) -> str:
        start = self._at
        name = super()._name()
        if name[:1].isalpha() or name[:1] == "_":
            self.found.append(Named(name, start, self._at))
        return name

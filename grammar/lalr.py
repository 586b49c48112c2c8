"""Runs the tables that Lark made of `dockerfile.lark` (`tables.py`): a contextual lexer and an LALR(1) automaton.

Lark itself would take longer to import than a whole cached build may. A test holds the trees against Lark's own.
"""

from __future__ import annotations

import re
from typing import Any

from grammar.tables import END_STATES, LEXERS, PATTERNS, RULES, START_STATES, STATES

Token = tuple[str, int, int]  # terminal, first and one past the last offset of its text
Tree = tuple[str, list[Any]]  # rule, its tokens and trees

_scanners: dict[int, Any] = {}


class NoMatchError(Exception):
    """The text has not the shape of the start symbol; `offset` is where that shows."""

    def __init__(self, offset: int) -> None:
        super().__init__(offset)
        self.offset = offset


def parse(start: str, text: str, offset: int = 0) -> list[Any]:
    """Return the children (`Token`s and `Tree`s) of the start symbol for the text from `offset` on.

    NoMatchError says where the text does not fit.
    """
    state = START_STATES[start]
    accepting = END_STATES[start]
    states = [state]
    values: list[Any] = []
    actions = STATES[state]
    end = len(text)
    while True:
        if offset < end:
            lexer = LEXERS[state]
            match = (_scanners.get(lexer) or _scanner(lexer))(text, offset)
            if match is None:
                raise NoMatchError(offset)
            kind = match.lastgroup
            if kind == "_BLANK":
                offset = match.end()
                continue
            token = (kind, offset, match.end())
        else:
            kind = "$END"
        while True:
            action = actions.get(kind)
            if action is None:
                raise NoMatchError(offset)
            if action >= 0:
                break
            origin, size, spliced, kept = RULES[~action]
            children: list[Any] = []
            if size:
                for value, keep in zip(values[-size:], kept, strict=True):
                    if type(value) is list:
                        children += value
                    elif keep:
                        children.append(value)
                del values[-size:]
                del states[-size:]
            values.append(children if spliced else (origin, children))
            state = STATES[states[-1]][origin]
            states.append(state)
            if kind == "$END" and state == accepting:
                result: list[Any] = values[-1][1]
                return result
            actions = STATES[state]
        state = action
        states.append(state)
        values.append(token)
        actions = STATES[state]
        offset = token[2]


def _scanner(lexer: int) -> Any:
    """Compile the pattern of the terminals that one state accepts, on its first use."""
    scanner = _scanners[lexer] = re.compile(PATTERNS[lexer]).match
    return scanner

"""Go's path patterns (`filepath.Match`), which COPY sources and ignore files are written in.

`*` and `?` stop at a slash, `[a-c]` and `[^a-c]` are classes, a backslash takes the next character as it is. It knows
patterns and names, no files. Text is str with surrogateescape, so that a name that is no UTF-8 matches byte by byte.
"""

from __future__ import annotations

import re


class BadPattern(ValueError):
    """A malformed pattern; `at` is the index of the character at fault."""

    def __init__(self, pattern: str, at: int) -> None:
        super().__init__(f"syntax error in pattern: {pattern!r}")
        self.pattern = pattern
        self.at = at


def has_wildcards(pattern: str) -> bool:
    """Say whether `pattern` has a `*`, `?` or `[` that is not escaped."""
    if "*" not in pattern and "?" not in pattern and "[" not in pattern:
        return False  # as nearly all
    return re.match(r"(?:[^\\*?\[]|\\.)*[*?\[]", pattern, re.DOTALL) is not None


def translate(pattern: str) -> str:
    """Return the regular expression (for `re.fullmatch` with DOTALL) of `pattern`; raise BadPattern."""
    out = []
    at = 0
    while at < len(pattern):
        char = pattern[at]
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            text, at = _character_class(pattern, at)
            out.append(text)
            continue
        elif char == "\\":
            at += 1
            if at == len(pattern):
                raise BadPattern(pattern, at - 1)
            out.append(re.escape(pattern[at]))
        else:
            out.append(re.escape(char))
        at += 1
    return "".join(out)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compile `pattern` for `fullmatch` on a path relative to where the pattern starts; raise BadPattern."""
    return re.compile(translate(pattern), re.DOTALL)


def check(pattern: str) -> None:
    """Raise BadPattern if Go would call `pattern` malformed."""
    translate(pattern)


def _character_class(pattern: str, start: int) -> tuple[str, int]:
    """Translate the class that begins at `start`; return it and the index behind its "]"."""
    at = start + 1
    negated = pattern[at : at + 1] == "^"
    at += negated
    ranges: list[str] = []
    while True:
        if pattern[at : at + 1] == "]" and ranges:
            break
        low, at = _class_character(pattern, at, start)
        high = low
        if pattern[at] == "-":
            high, at = _class_character(pattern, at + 1, start)
        # A range that runs backwards matches nothing in Go and is an error in Python.
        ranges.append(f"{re.escape(low)}-{re.escape(high)}" if low <= high else "")
    body = "".join(ranges)
    if not body:
        return ("." if negated else "(?!)"), at + 1
    return f"[{'^' if negated else ''}{body}]", at + 1


def _class_character(pattern: str, at: int, start: int) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise BadPattern(pattern, start if at >= len(pattern) else at)
    if pattern[at] == "\\":
        at += 1
    if at + 1 >= len(pattern):
        raise BadPattern(pattern, start)
    return pattern[at], at + 1

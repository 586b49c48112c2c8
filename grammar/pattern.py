"""Patterns inside `${name#pattern}` and its relatives: `*`, `?` and backslash escapes, no brackets."""

from __future__ import annotations

import re


def trim_prefix(value: str, pattern: str, *, longest: bool) -> str:
    """Return the value without the match of the pattern at its start; ValueError for a bad pattern."""
    match = re.match(_regex(pattern, longest=longest), value)
    return value[match.end() :] if match else value


def trim_suffix(value: str, pattern: str, *, longest: bool) -> str:
    """Return the value without the match of the pattern at its end; ValueError for a bad pattern."""
    # Read backwards the end is a start, and there a regular expression finds the shortest match.
    return trim_prefix(value[::-1], _reversed(pattern), longest=longest)[::-1]


def replace(value: str, pattern: str, replacement: str, *, everywhere: bool) -> str:
    """Return the value with the first longest match replaced, or every one; ValueError for a bad pattern."""
    parts: list[str] = []
    done = 0
    previous = -1
    for match in re.finditer(_regex(pattern, longest=True), value):
        # An empty match right behind another match is none.
        if match.end() == match.start() == previous:
            continue
        parts += [value[done : match.start()], replacement]
        done = previous = match.end()
        if not everywhere:
            break
    return "".join(parts) + value[done:]


def _regex(pattern: str, *, longest: bool) -> str:
    result = []
    chars = iter(pattern)
    for char in chars:
        if char == "*":
            result.append(".*" if longest else ".*?")
        elif char == "?":
            result.append(".")
        elif char == "\\":
            result.append(re.escape(_unescaped(next(chars, ""))))
        else:
            result.append(re.escape(char))
    return "".join(result)


def _unescaped(char: str) -> str:
    # } and / are escaped for the substitution around the pattern, the others for the pattern itself.
    if not char or char not in "*?\\}/":
        raise ValueError(f"invalid escape '\\{char}'")
    return char


def _reversed(pattern: str) -> str:
    """The pattern read backwards, escapes kept before what they escape."""
    return "".join(re.findall(r"\\.|[\s\S]", pattern)[::-1])

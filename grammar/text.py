"""Small facts about text that the reference implementation's language (Go) decides: blanks, quoting, near names."""

from __future__ import annotations

from collections.abc import Iterable

# White space by Unicode's property; `str.strip()` without arguments also takes 0x1c-0x1f, which these are not.
WIDE_BLANKS = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"  # fmt: skip # noqa: E501
# What separates words of one line.
BLANKS = "\t\v\f\r "

TRUE = ("1", "t", "T", "TRUE", "true", "True")
WORDS = (*TRUE, "0", "f", "F", "FALSE", "false", "False")
"""What strconv.ParseBool takes for true, and all that it takes."""

_ESCAPES = {
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
    '"': '\\"',
    "\\": "\\\\",
}


def quote(text: str) -> str:
    """Return the text in double quotes, as Go's %q has it."""
    return f'"{"".join(_quoted(c) for c in text)}"'


def _quoted(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is no UTF-8, kept by surrogateescape
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that is at most two edits away, the first of the nearest; "" where there is none."""
    best, least = "", 3 if name else 0
    for candidate in known:
        distance = _distance(name, candidate)
        if distance < least:
            best, least = candidate, distance
    return best


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean X?)` for the nearest known name, else ""."""
    near = nearest(name, known)
    return f" (did you mean {near}?)" if near else ""


def _distance(one: str, other: str) -> int:
    """The number of characters to add, drop or change; 3 stands for anything above 2."""
    if abs(len(one) - len(other)) > 2:
        return 3
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        diagonal, row[0] = row[0], i
        for j, b in enumerate(other, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (a != b))
    return row[-1]

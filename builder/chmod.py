"""The argument of --chmod: an octal number, or symbolic clauses as in chmod(1).

What BuildKit accepts and does with it (its fork of dchapes/mode): no umask, "X" looks at the mode before any clause.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MODE_FORMS = "give an octal mode such as 0644, or a symbolic one such as u=rwX,go=rX"
_OCTAL = re.compile(r"[0-7]+\Z")
_CLAUSE = re.compile(r"([augo]*)((?:[-+=][rwxXstugo]*)+)\Z")
_ACTION = re.compile(r"([-+=])([rwxXstugo]*)")

_SET_ID = 0o6000
_STICKY = 0o1000
_STANDARD = 0o6777
_WHO = {"a": _STANDARD, "u": 0o4700, "g": 0o2070, "o": 0o0007}
_PERMISSION = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}


class ModeError(ValueError):
    """A --chmod that means nothing; the text is the whole message."""


class Step(NamedTuple):
    """One change: `how` is "+", "-", "X", or "u", "g", "o" to copy those bits to `bits` by `operator`."""

    how: str
    bits: int
    operator: str = ""


class Mode(NamedTuple):
    """What --chmod does: set `octal`, or take the `steps` one after the other."""

    octal: int | None
    steps: tuple[Step, ...] = ()

    def apply(self, mode: int, *, directory: bool) -> int:
        """Return the twelve permission bits that `mode` becomes."""
        if self.octal is not None:
            return self.octal
        new = mode
        for how, bits, operator in self.steps:
            if how == "+":
                new |= bits
            elif how == "-":
                new &= ~bits
            elif how == "X":
                if directory or mode & 0o111:
                    new |= bits
            else:
                new = _copy_bits(new, new >> _SHIFT[how] & 7, bits, operator)
        return new


def parse_mode(text: str) -> Mode:
    """Read the argument of --chmod; ModeError says what is wrong with it."""
    if text[:1].isdecimal():
        octal = int(text, 8) if _OCTAL.match(text) else 0o10000
        if octal > 0o7777:
            raise ModeError(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        return Mode(octal)
    steps: list[Step] = []
    for clause in text.split(","):
        matched = _CLAUSE.match(clause)
        if matched is None:
            raise ModeError(f"invalid chmod parameter: '{text}': invalid syntax")
        who = 0
        for letter in matched[1]:
            who |= _WHO[letter]
        for operator, permissions in _ACTION.findall(matched[2]):
            steps += _steps(who & ~_STICKY, operator, permissions)
    return Mode(None, tuple(steps))


def _steps(who: int, operator: str, letters: str) -> list[Step]:
    steps: list[Step] = []
    bits = conditional = 0
    cleared = operator != "="

    def flush() -> None:
        nonlocal bits, conditional, cleared
        if not cleared:
            steps.append(Step("-", who or _STANDARD))
            cleared = True
        if bits:
            steps.append(Step("-" if operator == "-" else "+", bits & who if who else bits))
        if conditional:
            steps.append(Step("X", conditional & who if who else conditional))
        bits = conditional = 0

    for letter in letters:
        if letter in "ugo":
            if bits or conditional:
                flush()
            cleared = True
            steps.append(Step(letter, _targets(who), operator))
        elif letter == "X" and operator != "-":
            conditional = 0o111
        elif letter in "st":
            if who == 0 or who & ~0o007:
                bits |= _SET_ID if letter == "s" else _STICKY
                who |= _STICKY if letter == "t" else 0
        else:
            bits |= _PERMISSION[letter.lower()]
    flush()
    return steps


def _targets(who: int) -> int:
    """Return which of the three classes (as their read bits) `who` names; none is all."""
    return who & 0o444 or 0o444


def _copy_bits(mode: int, value: int, targets: int, operator: str) -> int:
    for shift in _SHIFT.values():
        if targets >> shift & 4:
            if operator == "=":
                mode &= ~(7 << shift)
            mode = mode & ~(value << shift) if operator == "-" else mode | value << shift
    return mode

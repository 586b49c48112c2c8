"""Durations as Go writes them: `1h30m`, `1.5s`, `100ms`."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)"
_LARGEST = 2**63 - 1


def parse_duration(text: str) -> int:
    """Return the nanoseconds that a duration stands for; ValueError with the reference's words where it is none."""
    rest = text.removeprefix("-") if text.startswith("-") else text.removeprefix("+")
    if rest == "0":
        return 0
    if not rest:
        raise ValueError(f'time: invalid duration "{text}"')
    part = re.compile(_PART)
    total = 0
    at = 0
    while at < len(rest):
        match = part.match(rest, at)
        if match is None or not (match[1] or match[2]):
            raise ValueError(f'time: invalid duration "{text}"')
        if not match[3]:
            raise ValueError(f'time: missing unit in duration "{text}"')
        unit = _UNITS.get(match[3])
        if unit is None:
            raise ValueError(f'time: unknown unit "{match[3]}" in duration "{text}"')
        fraction = match[2] or ""
        total += int(match[1] or "0") * unit + (int(fraction) * unit // 10 ** len(fraction) if fraction else 0)
        at = match.end()
    if total > _LARGEST:
        raise ValueError(f'time: invalid duration "{text}"')
    return -total if text.startswith("-") else total

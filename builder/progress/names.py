"""How progress spells sizes and times; shared by everything that people read."""

from __future__ import annotations

_UNITS = ("B", "kB", "MB", "GB", "TB")


def size(number: int) -> str:
    """Return a number of bytes in decimal units, as docker prints them: `512B`, `1.26MB`."""
    value = float(number)
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{number}B" if unit == "B" else f"{value:.2f}{unit}"


def transferred(current: int, total: int | None) -> str:
    """Return how far a transfer is: `1.26MB / 4.20MB`, or `1.26MB` where the total is not known."""
    return size(current) if total is None else f"{size(current)} / {size(total)}"

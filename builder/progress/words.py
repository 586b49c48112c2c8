"""How progress spells sizes, outcomes and warnings; shared by everything that people read."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from builder.events import Completed
    from grammar import Diagnostic

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
    """Return how far a transfer is: `1.26MB / 4.20MB`, or `1.26MB` where the total is not known.

    Nothing for what moves no bytes, such as giving a name.
    """
    if total is None and not current:
        return ""
    return size(current) if total is None else f"{size(current)} / {size(total)}"


def outcome(event: Completed) -> str:
    """Return the word for how a step ended: CACHED, CANCELED, ERROR or DONE."""
    if event.error is not None:
        return "CANCELED" if event.error.endswith("canceled") else "ERROR"
    return "CACHED" if event.cached else "DONE"


def short(diagnostic: Diagnostic) -> str:
    """Return a warning on one line, as BuildKit has it: `StageNameCasing: Stage name … (line 3)`."""
    line = f" (line {diagnostic.span.start.line})" if diagnostic.span else ""
    return f"{diagnostic.code}: {diagnostic.message}{line}"


def printable(text: str) -> str:
    """Return text of a user as it may go to a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "\ufffd" for c in text)


def warning_lines(diagnostics: Sequence[Diagnostic]) -> list[str]:
    """Return what there is to say about warnings once the build is over; nothing if there are none."""
    if not diagnostics:
        return []
    lines = [f" {len(diagnostics)} warning{'s' if len(diagnostics) > 1 else ''} found (use pybuild check to expand):"]
    for diagnostic in diagnostics:
        lines.append(f" - {printable(short(diagnostic))}")
        if diagnostic.hint:
            lines.append(f"   hint: {diagnostic.hint}")
    return lines

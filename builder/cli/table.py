"""How lists are printed: columns for people, a line of JSON per row for programs, times and sizes in docker's words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import click

_STEPS = ((60, "seconds"), (3600, "minutes"), (86400, "hours"), (86400 * 14, "days"), (86400 * 60, "weeks"))
_UNITS = ((1, "seconds"), (60, "minutes"), (3600, "hours"), (86400, "days"), (86400 * 7, "weeks"))


def echo_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print columns, each as wide as its widest cell, with docker's three spaces between them."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("   ".join(cells).rstrip())


def echo_json_lines(rows: Iterable[Mapping[str, object]]) -> None:
    """Print one JSON object per line."""
    for row in rows:
        click.echo(json.dumps(row, ensure_ascii=False))


def since(seconds: float) -> str:
    """Return an age in docker's words: `2 hours ago`, `About a minute ago`."""
    if seconds < 1:
        return "Less than a second ago"
    if 60 <= seconds < 120:
        return "About a minute ago"
    if 3600 <= seconds < 7200:
        return "About an hour ago"
    for (end, _), (size, unit) in zip(_STEPS, _UNITS, strict=True):
        if seconds < end:
            count = int(seconds // size)
            return f"{count} {unit if count != 1 else unit[:-1]} ago"
    if seconds < 86400 * 365 * 2:
        return f"{int(seconds // (86400 * 30))} months ago"
    return f"{int(seconds // (86400 * 365))} years ago"


def epoch(text: object) -> float | None:
    """Return an RFC 3339 time as seconds since the epoch; None for what is none."""
    if not isinstance(text, str) or not text:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def age(text: object, now: float) -> str:
    """Return how long an RFC 3339 time is ago, in docker's words; `N/A` where there is no time."""
    moment = epoch(text)
    return "N/A" if moment is None else since(now - moment)


def short_id(digest: str) -> str:
    """Return the twelve digits by which people know an image."""
    return digest.removeprefix("sha256:")[:12]

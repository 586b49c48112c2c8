"""One line of comma-separated values (CSV, RFC 4180), as the reference's flags have them."""

from __future__ import annotations

QUOTING = "put the whole option in quotes: '\"target=/a,b\"'"
"""What to do about a ValueError of `fields`."""


def fields(text: str) -> list[str]:
    """Return the fields; one in double quotes may hold commas, and quotes doubled. ValueError says what is wrong."""
    found = []
    at = 0
    while True:
        if text[at : at + 1] == '"':
            end = at + 1
            while (end := text.find('"', end)) >= 0 and text[end + 1 : end + 2] == '"':
                end += 2
            if end < 0 or text[end + 1 : end + 2] not in ("", ","):
                raise ValueError('extraneous or missing " in quoted-field')
            found.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
        else:
            end = text.find(",", at)
            end = len(text) if end < 0 else end
            if '"' in text[at:end]:
                raise ValueError('bare " in non-quoted field')
            found.append(text[at:end])
            at = end
        if at >= len(text):
            return found
        at += 1

"""Secrets taken out of what steps print. Knows the values as they are: what a step has encoded is not recognised."""

from __future__ import annotations

import re
from collections.abc import Iterable

MASK = b"***"
SHORTEST = 4
"""Bytes. What is shorter, a `1` or a `yes`, is too common in any output to be told from it."""


class Redactor:
    """One stream of output in which every secret, and every line of one, is replaced by MASK.

    Data comes in pieces of any size; what may be the start of a secret is held back until the next piece shows.
    """

    def __init__(self, secrets: Iterable[bytes]) -> None:
        self._values = sorted(_values(secrets), key=lambda value: (-len(value), value))
        self._pattern = re.compile(b"|".join(map(re.escape, self._values))) if self._values else None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """Return what can be shown of `data` and of what was held back before."""
        if self._pattern is None:
            return data
        data = self._held + data
        end = 0
        for found in self._pattern.finditer(data):
            end = found.end()
        start = min((self._start(data, value, end) for value in self._values), default=len(data))
        self._held = data[start:]
        return self._pattern.sub(MASK, data[:start])

    def end(self) -> bytes:
        """Return what was held back: the stream has ended, and it was no secret."""
        held, self._held = self._held, b""
        return held

    @staticmethod
    def _start(data: bytes, value: bytes, begin: int) -> int:
        """Return where the longest tail of `data` starts, not before `begin`, that `value` starts with too."""
        start = data.find(value[:1], max(begin, len(data) - len(value) + 1))
        while start >= 0 and not value.startswith(data[start:]):
            start = data.find(value[:1], start + 1)
        return len(data) if start < 0 else start


def _values(secrets: Iterable[bytes]) -> set[bytes]:
    """Return what to look for: each secret without the white space around it, and its lines, which may come alone."""
    whole = {secret.strip() for secret in secrets}
    lines = {line.strip() for secret in whole for line in secret.splitlines()}
    return {value for value in whole | lines if len(value) >= SHORTEST}

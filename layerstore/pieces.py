"""A few pieces of large files, and a few of many small ones: what they look like tells what to do before all is read.

Only ever a guess: who follows it does the same work at another time, or keeps the same layer in another form.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence

from layerstore.entry import Entry, Kind

_LARGE = 8 << 20
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_MANY = 500
_SOME = 64
_SAMPLED = 1 << 12
_COMPRESSED = 1 << 13
_MOST_COMPRESSED = 64
_SHRINKS = 0.98
_MOSTLY = 0.9


def large_files(entries: Iterable[Entry]) -> list[Entry]:
    """Return the files that are worth a look before they are read."""
    return [entry for entry in entries if entry.size >= _LARGE and isinstance(entry.source, bytes)]


def some_files(entries: Iterable[Entry]) -> list[Entry]:
    """Return a few of many small files, spread evenly; none of few."""
    small = [entry for entry in entries if 0 < entry.size < _LARGE and isinstance(entry.source, bytes)]
    return small[:: len(small) // _SOME + 1] if len(small) >= _MANY else []


def sample(files: Sequence[Entry]) -> str:
    """Return what files look like: equal for equal ones. Empty for none, and where one cannot be read."""
    if not files:
        return ""
    seen = hashlib.sha256(repr([entry.size for entry in files]).encode())
    try:
        for piece in _pieces(files, max(2, min(16, 256 // len(files))), _SAMPLED):
            seen.update(piece)
    except OSError:
        return ""  # who reads it as a whole says why
    return seen.hexdigest()


def shrink(entries: Sequence[Entry]) -> bool:
    """Say whether it seems worth while to compress the layer of `entries`: not if it is mostly noise in large files.

    The answer follows from sizes and data alone. Where it is no, compressing would save some percent at most.
    """
    large = large_files(entries)
    if not large or sum(entry.size for entry in large) < _MOSTLY * sum(
        entry.size for entry in entries if entry.kind is Kind.FILE
    ):
        return True
    import zstandard  # noqa: PLC0415 - 8 ms, for layers of large files only

    try:
        some = large[:: 1 + 2 * len(large) // _MOST_COMPRESSED]
        data = b"".join(_pieces(some, max(2, _MOST_COMPRESSED // len(some)), _COMPRESSED))
    except OSError:
        return True
    return len(zstandard.ZstdCompressor(level=1).compress(data)) < _SHRINKS * len(data)


def _pieces(files: Sequence[Entry], count: int, length: int) -> Iterator[bytes]:
    """Yield `count` pieces of `length` bytes of each file, from its beginning to its end. OSError."""
    for entry in files:
        assert isinstance(entry.source, bytes)
        fd = os.open(entry.source, _FLAGS)
        try:
            for number in range(count):
                yield os.pread(fd, length, max(0, entry.size - length) * number // (count - 1))
        finally:
            os.close(fd)

"""The data of a layer's small files in one file beside its tree: its next version reads them in few pieces.

Found by digest and verified when it is read, so nothing depends on it: whoever misses something reads it elsewhere.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from array import array
from itertools import accumulate
from struct import Struct
from types import TracebackType
from typing import Self

from layerstore.durable import step

LARGEST = 16 << 10
"""Bytes of a file that is worth keeping here: opening it takes longer than reading it."""

_MOST = 64 << 20
_WINDOW = 1 << 20
_HASH = 32
_SIZE = array("I").itemsize
_TAIL = Struct("<QQ8s")  # how many pieces of data there are, how long they are together, and a mark
_NOWHERE = (0, -1)
_MARK = b"small 1\n"


class SmallFilesWriter:
    """Writes data to a new, empty file by descriptor; nothing counts before `finish`. Raises OSError."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._sizes: dict[bytes, int] = {}
        self._waiting: list[bytes] = []
        self._pending = 0
        self._total = 0

    def add(self, digest: bytes, data: bytes) -> None:
        """Append data of this sha256, unless it is large, here already, or there is much already."""
        size = len(data)
        if size > LARGEST or digest in self._sizes or self._total + size > _MOST:
            return
        self._sizes[digest] = size
        self._waiting.append(data)
        self._pending += size
        self._total += size
        if self._pending >= _WINDOW:
            self._flush()

    def finish(self) -> None:
        """Write what is left, and the index behind it."""
        count = len(self._sizes)
        index = b"".join(self._sizes) + array("I", self._sizes.values()).tobytes()
        self._waiting += [index, _TAIL.pack(count, self._total, _MARK)]
        self._flush()

    def _flush(self) -> None:
        step("write")
        view = memoryview(b"".join(self._waiting))
        while view:
            view = view[os.write(self._fd, view) :]
        self._waiting.clear()
        self._pending = 0


class SmallFiles:
    """Finds data that a `SmallFilesWriter` wrote; without a file, or with a damaged one, it finds nothing."""

    def __init__(self, path: bytes) -> None:
        self._fd = -1
        self._places: dict[bytes, tuple[int, int]] = {}
        self._window = b""
        self._begin = 0
        with contextlib.suppress(OSError, ValueError):
            self._fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self._places = self._index()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def get(self, digest: bytes, size: int) -> bytes | None:
        """Return the data of this sha256 and size; None if it is not here, or not what it should be."""
        at, there = self._places.get(digest, _NOWHERE)
        if there != size:
            return None
        begin = at - self._begin
        if begin < 0 or begin + size > len(self._window):
            # Layers are read in the order in which they were written.
            try:
                self._window = os.pread(self._fd, _WINDOW, at)
            except OSError:
                return None
            self._begin, begin = at, 0
        data = self._window[begin : begin + size]
        return data if hashlib.sha256(data).digest() == digest else None

    def _index(self) -> dict[bytes, tuple[int, int]]:
        """Read the index; ValueError, OSError for a file that has none."""
        end = os.fstat(self._fd).st_size
        tail = os.pread(self._fd, _TAIL.size, max(0, end - _TAIL.size))
        count, total, mark = _TAIL.unpack(tail.rjust(_TAIL.size))
        if mark != _MARK or end != total + count * (_HASH + _SIZE) + _TAIL.size:
            raise ValueError("not whole")
        index = os.pread(self._fd, count * (_HASH + _SIZE), total)
        sizes = array("I", index[count * _HASH :])
        digests = [index[at : at + _HASH] for at in range(0, count * _HASH, _HASH)]
        return dict(zip(digests, zip(accumulate(sizes, initial=0), sizes, strict=False), strict=True))

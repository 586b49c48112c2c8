"""A blob that is read while it is still being written, so that who sends it need not wait until it is whole.

Knows the file and how far it is; neither what is written nor where it is sent.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

from layerstore.digest import Digest
from layerstore.errors import StoreError

WORTH_WATCHING = 1 << 20
"""Bytes of a blob that are there before anybody is told of it: what is smaller is whole soon enough."""


class GivenUp(StoreError):
    """A blob will never be whole, or nobody wants it any more."""


class Growing:
    """One blob in the making: its writer says `grew` and `end`, readers follow, each from the beginning."""

    def __init__(self, fd: int) -> None:
        self._fd = os.dup(fd)  # the writer closes its own when it has ended
        self._changed = threading.Condition()
        self._size = 0
        self._ended = False
        self._digest: Digest | None = None

    def grew(self, size: int) -> None:
        """The first `size` bytes are in the file."""
        with self._changed:
            self._size = size
            self._changed.notify_all()

    def end(self, digest: Digest | None) -> None:
        """All is in the file, and this is its digest; None if the writer has failed."""
        with self._changed:
            if not self._ended:
                self._digest = digest
                self._ended = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Let readers end with GivenUp; what is written stays."""
        with self._changed:
            self._digest = None
            self._ended = True
            self._changed.notify_all()

    @property
    def whole(self) -> tuple[Digest, int] | None:
        """The digest and the size in bytes, once both are known."""
        with self._changed:
            return (self._digest, self._size) if self._digest is not None else None

    def digest(self) -> Digest:
        """Wait until all is written and return its digest. GivenUp."""
        with self._changed:
            while not self._ended:
                self._changed.wait()
            return self._known()

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Give a stream of the blob from its beginning, which waits for what is not written yet; GivenUp from reads."""
        # Who sends it asks a stream for nothing but read().
        yield cast("BinaryIO", _Reader(self))

    def close(self) -> None:
        """Let go of the file; nothing can be read afterwards."""
        os.close(self._fd)

    def _known(self) -> Digest:
        if self._digest is None:
            raise GivenUp("the blob was given up while it was sent")
        return self._digest

    def read_at(self, at: int, buffer: memoryview) -> int:
        """Read what is there from `at` on into `buffer`, as soon as there is anything.

        Returns how many bytes that are, 0 at the end. GivenUp.
        """
        with self._changed:
            while self._size <= at and not self._ended:
                self._changed.wait()
            if self._ended:
                self._known()
            there = self._size - at
        return os.preadv(self._fd, [buffer[:there]], at) if there > 0 else 0


class _Reader:
    """Reads into the same memory again and again; what `read` returns is valid until the next call."""

    def __init__(self, growing: Growing) -> None:
        self._growing = growing
        self._at = 0
        self._buffer = memoryview(b"")

    def read(self, size: int, /) -> memoryview:
        if len(self._buffer) < size:
            self._buffer = memoryview(bytearray(size))
        count = self._growing.read_at(self._at, self._buffer[:size])
        self._at += count
        return self._buffer[:count]


Watch = Callable[[Growing], None]
"""Told of a blob that has become worth watching, in the thread that writes it; closes it when done with it."""

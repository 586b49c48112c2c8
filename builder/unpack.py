"""Archives that ADD unpacks: known by content, read once from front to back.

Tar, plain or compressed with gzip, bzip2, xz or zstd. Where the members land and what they replace is decided by
`builder/copy.py`.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from typing import IO, BinaryIO, cast

from builder.errors import BuildError
from layerstore.compress import Decompressed, Readable
from layerstore.entry import Entry, Inline, Stream
from layerstore.errors import StoreError, UnsafeEntry
from layerstore.files import CAPABILITY
from layerstore.tarread import read_tar

_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20
_BZIP2 = b"BZh"
_XZ = b"\xfd7zXZ\0"


class ArchiveError(BuildError):
    """An archive that is damaged, cut short, or that holds what cannot be unpacked."""


def is_archive(host: bytes) -> bool:
    """Say whether the regular file `host` is a tar, compressed or not: whether its first member can be read."""
    with open(host, "rb") as file:
        try:
            return next(read_tar(_decompressed(file)), None) is not None
        except UnsafeEntry:
            return True  # a tar, whatever it wants
        except StoreError:
            return False
        except _damages():
            return False


class Archive:
    """The members of the archive in the file `host`; file data is kept until `close`.

    It is kept in memory, or if it is much in an unnamed file in the directory `spool` (None: the system's).
    """

    def __init__(self, host: bytes, *, spool: str | None = None) -> None:
        self._host = host
        self._spool = cast("IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=spool))  # noqa: SIM115

    def close(self) -> None:
        """Forget the data; the sources of the entries cannot be read any more."""
        self._spool.close()

    def __del__(self) -> None:
        # A plan whose layer is found in the cache is never carried out.
        self._spool.close()

    def members(self) -> Iterator[Entry]:
        """Yield every member once, in the archive's order; ArchiveError for damage and for paths that lead out.

        A HARDLINK's target is a member's path. Only capabilities are kept of extended attributes, and no time before
        1970, which is what the reference does.
        """
        with open(self._host, "rb") as file:
            try:
                for entry in read_tar(_decompressed(file)):
                    if entry.path:  # the archive's own root says nothing about the destination
                        yield self._kept(entry)
            except EOFError as error:
                raise ArchiveError("unexpected EOF", hint="the archive is cut short: get or make it again") from error
            except StoreError as error:
                short = " ends " in error.message
                raise ArchiveError(
                    f"unexpected EOF: {error.message}" if short else error.message, hint="get or make the archive again"
                ) from error
            except _damages() as error:
                raise ArchiveError(f"damaged archive: {error}", hint="get or make the archive again") from error

    def _kept(self, entry: Entry) -> Entry:
        """Return `entry` with data that can be read later."""
        if entry.xattrs or entry.mtime_ns < 0:
            xattrs = tuple(pair for pair in entry.xattrs if pair[0] == CAPABILITY)
            entry = entry._replace(xattrs=xattrs, mtime_ns=max(entry.mtime_ns, 0))
        if not isinstance(entry.source, Stream):
            return entry
        if not entry.size:
            return entry._replace(source=Inline(b""))
        start = self._spool.seek(0, os.SEEK_END)
        left = entry.size
        while left:
            piece = entry.source.file.read(min(_CHUNK, left))
            if not piece:
                raise EOFError
            self._spool.write(piece)
            left -= len(piece)
        part = io.BufferedReader(_Part(self._spool, start, entry.size), _CHUNK)
        return entry._replace(source=Stream(cast("BinaryIO", part)))


class _Part(io.RawIOBase):
    """`size` bytes of `file` from `start` on, as a file of their own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._start = self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: self._start, os.SEEK_CUR: self._at, os.SEEK_END: self._end}[whence]
        self._at = min(max(start + offset, self._start), self._end)
        return self._at - self._start

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase takes any buffer
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _decompressed(file: BinaryIO) -> Readable:
    head = file.read(len(_XZ))
    file.seek(0)
    if head.startswith(_BZIP2):
        import bz2  # noqa: PLC0415 - rarely needed

        return bz2.BZ2File(file)
    if head == _XZ:
        import lzma  # noqa: PLC0415 - rarely needed

        return lzma.LZMAFile(file)
    return Decompressed(file)


def _damages() -> tuple[type[Exception], ...]:
    """Return what the standard library's decompressors raise on damage."""
    import lzma  # noqa: PLC0415 - rarely needed

    return (lzma.LZMAError, EOFError, OSError, ValueError)

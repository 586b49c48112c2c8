"""Archives that ADD unpacks: known by content, read once from front to back.

Tar, plain or compressed with gzip, bzip2, xz or zstd. Where the members land and what they replace is decided by
`builder/copy.py`.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator
from typing import IO, TYPE_CHECKING, BinaryIO, Protocol, cast

from builder.errors import BuildError
from builder.filetree import clean
from layerstore.entry import Entry, Inline, Kind, Stream

if TYPE_CHECKING:
    import tarfile

_BLOCK = 512
_CHUNK = 1 << 20
_IN_MEMORY = 8 << 20
_CAPABILITY = "SCHILY.xattr.security.capability"
_MAGIC = (
    (b"\x1f\x8b\x08", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)


class ArchiveError(BuildError):
    """An archive that is damaged, cut short, or that holds what cannot be unpacked."""


class _Readable(Protocol):
    def read(self, size: int = -1, /) -> bytes: ...


def is_archive(host: bytes) -> bool:
    """Say whether the regular file `host` is a tar, compressed or not: whether its first header can be read."""
    with open(host, "rb") as file:
        if not os.fstat(file.fileno()).st_size:
            return False
        try:
            stream = _decompressed(file)
            block = b""
            while len(block) < _BLOCK and (more := stream.read(_BLOCK - len(block))):
                block += more
        except _damages():
            return False
    return len(block) == _BLOCK and _checksum_holds(block)


def _checksum_holds(block: bytes) -> bool:
    """Check a header's checksum: the sum of its bytes, its own field as spaces, as signed or unsigned characters."""
    try:
        wanted = int(block[148:156].strip(b" \0") or b"x", 8)
    except ValueError:
        return False
    rest = block[:148] + b" " * 8 + block[156:]
    total = sum(rest)
    return wanted in (total, total - 256 * sum(byte > 127 for byte in rest))


class Archive:
    """The members of the archive in the file `host`; a context manager that keeps file data until it is closed.

    Data is kept in memory, or if it is much in an unnamed file in the directory `spool` (None: the system's).
    """

    def __init__(self, host: bytes, *, spool: str | None = None) -> None:
        self._host = host
        self._spool: IO[bytes] = cast(
            "IO[bytes]", tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY, dir=spool)  # noqa: SIM115 - closed by close
        )

    def close(self) -> None:
        """Forget the data; the sources of the entries cannot be read any more."""
        self._spool.close()

    def members(self) -> Iterator[Entry]:
        """Yield every member once, in the archive's order; ArchiveError for damage and for paths that lead out.

        A HARDLINK's target is a member's path. Only file capabilities are kept of extended attributes.
        """
        import tarfile  # noqa: PLC0415 - 15 ms, needed for archives only

        with open(self._host, "rb") as file:
            try:
                stream = cast("BinaryIO", _decompressed(file))
                with tarfile.open(fileobj=stream, mode="r|", tarinfo=_strict_member()) as archive:
                    for member in archive:
                        entry = self._entry(archive, member)
                        if entry is not None:
                            yield entry
            except EOFError as error:
                raise ArchiveError("unexpected EOF", hint="the archive is cut short: fetch or make it again") from error
            except _damages() as error:
                short = "unexpected end" in str(error) or "ends early" in str(error) or "truncated" in str(error)
                message = "unexpected EOF" if short else f"damaged archive: {error}"
                raise ArchiveError(message, hint="fetch or make the archive again") from error

    def _entry(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Entry | None:
        path = _inside(member.name)
        if not path:
            return None
        kind = _kind(member)
        source: Inline | Stream = Inline(b"")
        target = b""
        if kind is Kind.FILE:
            source = self._keep(archive, member)
        elif kind is Kind.SYMLINK:
            target = os.fsencode(member.linkname)
        elif kind is Kind.HARDLINK:
            target = _inside(member.linkname)
        xattr = member.pax_headers.get(_CAPABILITY) if kind is Kind.FILE else None
        return Entry(
            path,
            kind,
            member.mode & 0o7777,
            member.uid,
            member.gid,
            int(member.mtime * 1_000_000_000) if isinstance(member.mtime, float) else member.mtime * 1_000_000_000,
            member.size if kind is Kind.FILE else 0,
            target,
            (member.devmajor, member.devminor) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
            ((b"security.capability", os.fsencode(xattr)),) if xattr is not None else (),
            source,
        )

    def _keep(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Inline | Stream:
        if not member.size:
            return Inline(b"")
        data = archive.extractfile(member)
        assert data is not None, "BUG: a file member has data"
        start = self._spool.seek(0, os.SEEK_END)
        left = member.size
        while left and (piece := data.read(min(_CHUNK, left))):
            self._spool.write(piece)
            left -= len(piece)
        if left:
            raise EOFError
        return Stream(cast("BinaryIO", io.BufferedReader(_Part(self._spool, start, member.size), _CHUNK)))


class _Part(io.RawIOBase):
    """`size` bytes of `file` from `start` on, as a file of their own."""

    def __init__(self, file: IO[bytes], start: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # RawIOBase takes any buffer
        self._file.seek(self._at)
        data = self._file.read(min(len(buffer), self._end - self._at))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _kind(member: tarfile.TarInfo) -> Kind:
    if member.isreg():
        return Kind.FILE
    if member.isdir():
        return Kind.DIR
    if member.issym():
        return Kind.SYMLINK
    if member.islnk():
        return Kind.HARDLINK
    if member.ischr():
        return Kind.CHAR
    if member.isblk():
        return Kind.BLOCK
    if member.isfifo():
        return Kind.FIFO
    raise ArchiveError(f"unhandled tar header type {member.type.decode('latin-1')!r} of {member.name}")


def _inside(name: str) -> bytes:
    """Return a member's path below the destination; a leading slash is dropped, leading out is refused."""
    path = os.fsencode(name)
    depth = 0
    for part in path.split(b"/"):
        depth += (part not in (b"", b".", b"..")) - (part == b"..")
        if depth < 0:
            raise ArchiveError(f"archive member {name!r} is outside of the destination")
    return clean(path)


def _decompressed(file: BinaryIO) -> _Readable:
    head = file.read(8)
    file.seek(0)
    found = next((name for magic, name in _MAGIC if head.startswith(magic)), "")
    match found:
        case "bzip2":
            import bz2  # noqa: PLC0415 - rarely needed

            return bz2.BZ2File(file)
        case "xz":
            import lzma  # noqa: PLC0415 - rarely needed

            return lzma.LZMAFile(file)
        case "gzip" | "zstd":
            from layerstore.compress import Decompressed  # noqa: PLC0415 - needed for archives only

            return Decompressed(file)
        case _:
            return file


def _damages() -> tuple[type[Exception], ...]:
    """Return what the readers of archives raise on damage."""
    import lzma  # noqa: PLC0415 - needed for archives only
    import tarfile  # noqa: PLC0415 - needed for archives only

    from layerstore.errors import CorruptContent  # noqa: PLC0415 - needed for archives only

    return (tarfile.TarError, CorruptContent, lzma.LZMAError, EOFError, OSError, ValueError)


def _strict_member() -> type[tarfile.TarInfo]:
    """Return a TarInfo that refuses damaged headers: tarfile takes one behind the first for the archive's end."""
    import tarfile  # noqa: PLC0415 - needed for archives only

    class StrictMember(tarfile.TarInfo):
        @classmethod
        def fromtarfile(cls, archive: tarfile.TarFile) -> StrictMember:
            try:
                return super().fromtarfile(archive)
            except (tarfile.EmptyHeaderError, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
                raise  # the end: nothing, or a block of zeros
            except tarfile.TruncatedHeaderError as error:  # type: ignore[attr-defined]
                raise EOFError from error
            except tarfile.HeaderError as error:
                raise ValueError(f"bad header: {error}") from error

    return StrictMember

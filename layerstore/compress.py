"""The compressions of layer blobs, both ways; knows bytes, not tar.

Equal tars make equal blobs on machines of one kind: the gzip header holds no name and no time. What deflate finds
depends on the library's version and the processor, so only the diff ID is the same everywhere.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast

from layerstore.errors import CorruptContent

if TYPE_CHECKING:
    from isal import isal_zlib

CHUNK = 1 << 20
_GZIP_WBITS = 31  # zlib's way to say: 32 KiB window, gzip header and trailer
_GZIP_LEVEL = 2  # measured on a file tree: 500 MB/s, 0.31 of the size; zlib's level 6 gives 37 MB/s and 0.27
_ZSTD_LEVEL = 1
_ZSTD_MAX_WINDOW = 1 << 27  # what RFC 8878 asks a decoder to support is 8 MiB; `zstd --long` writes up to this


Piece = bytes | memoryview
"""Part of a stream that is on its way."""


class Compression(Enum):
    """How a layer blob is compressed."""

    NONE = "none"
    GZIP = "gzip"
    ZSTD = "zstd"

    @property
    def media_type(self) -> str:
        """The OCI media type of a layer compressed this way (OCI image-spec layer.md)."""
        return _MEDIA_TYPES[self]


_MEDIA_TYPES = {
    Compression.NONE: "application/vnd.oci.image.layer.v1.tar",
    Compression.GZIP: "application/vnd.oci.image.layer.v1.tar+gzip",
    Compression.ZSTD: "application/vnd.oci.image.layer.v1.tar+zstd",
}


class Readable(Protocol):
    """Anything that hands out bytes front to back."""

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, b"" at the end."""
        ...


class Compressor(Protocol):
    """Turns bytes into compressed bytes, a piece at a time."""

    def compress(self, data: Piece, /) -> Piece:
        """Take the next bytes of the content; return what can be written already."""
        ...

    def flush(self) -> bytes:
        """Return what remains, with the trailer."""
        ...


class _Plain:
    def compress(self, data: Piece, /) -> Piece:
        return data

    def flush(self) -> bytes:
        return b""


def compressor(compression: Compression, level: int | None = None) -> Compressor:
    """Return a new compressor; `level` is the format's own (gzip 0-9, zstd 1-22), None the fast default.

    Gzip levels 0 to 2 are made by ISA-L, the others by zlib.
    """
    match compression:
        case Compression.NONE:
            return _Plain()
        case Compression.GZIP:
            wanted = _GZIP_LEVEL if level is None else level
            if wanted > _GZIP_LEVEL:
                import zlib  # noqa: PLC0415 - loaded when a blob is made

                return zlib.compressobj(wanted, zlib.DEFLATED, _GZIP_WBITS)
            from isal import isal_zlib  # noqa: PLC0415 - loaded when a blob is made

            return isal_zlib.compressobj(wanted, isal_zlib.DEFLATED, _GZIP_WBITS)
        case Compression.ZSTD:
            import zstandard  # noqa: PLC0415 - 8 ms, loaded when a blob is made

            return zstandard.ZstdCompressor(level=_ZSTD_LEVEL if level is None else level).compressobj()


def detect(head: bytes) -> Compression:
    """Return how a blob is compressed, by its first four bytes; media types in the wild are not to be trusted."""
    if head.startswith(b"\x1f\x8b"):
        return Compression.GZIP
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
        return Compression.ZSTD  # what comes first may be a frame to skip (RFC 8878, 3.1.2): pzstd writes so
    return Compression.NONE


class Decompressed:
    """The content of a compressed stream, to be read once from front to back; memory does not grow with it.

    `read` raises CorruptContent where the stream is damaged or cut short. The compression is seen from the content.
    """

    def __init__(self, raw: Readable) -> None:
        self._raw = raw
        self._head = raw.read(4)
        while self._head and len(self._head) < 4 and (more := raw.read(4 - len(self._head))):
            self._head += more
        self.compression = detect(self._head)
        match self.compression:
            case Compression.NONE:
                self._pieces = self._plain()
            case Compression.GZIP:
                self._pieces = self._gzip()
            case Compression.ZSTD:
                self._pieces = self._zstd()
        self._piece = b""
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, fewer only as it suits; all that is left if `size` is negative; b"" at the end."""
        if size < 0:
            rest = self._piece[self._at :] + b"".join(self._pieces)
            self._piece, self._at = b"", 0
            return rest
        while self._at == len(self._piece):
            piece = next(self._pieces, None)
            if piece is None:
                return b""
            self._piece, self._at = piece, 0
        if self._at == 0 and size >= len(self._piece):
            data, self._piece = self._piece, b""
            return data
        data = self._piece[self._at : self._at + size]
        self._at += len(data)
        return data

    def _raw_pieces(self) -> Iterator[bytes]:
        if self._head:
            yield self._head
        while piece := self._raw.read(CHUNK):
            yield piece

    def _plain(self) -> Iterator[bytes]:
        return self._raw_pieces()

    def _gzip(self) -> Iterator[bytes]:
        """Decompress every member (RFC 1952 allows several); zero bytes after the last are padding."""
        from isal import isal_zlib  # noqa: PLC0415 - loaded when a blob is read

        member = isal_zlib.decompressobj(_GZIP_WBITS)
        started = False
        for raw in self._raw_pieces():
            data = raw
            while data:
                if not started and not (data := data.lstrip(b"\0")):
                    break
                started = True
                piece = _inflate(member, data)
                if piece:
                    yield piece
                data = member.unconsumed_tail
                if member.eof:
                    data = member.unused_data
                    member = isal_zlib.decompressobj(_GZIP_WBITS)
                    started = False
        while started and not member.eof:
            piece = _inflate(member, b"")
            if not piece:
                raise CorruptContent("gzip stream ends early")
            yield piece

    def _zstd(self) -> Iterator[bytes]:
        import zstandard  # noqa: PLC0415 - 8 ms, loaded when a blob is read

        decoder = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        reader = decoder.stream_reader(cast("BinaryIO", _Pieces(self._raw_pieces())), read_across_frames=True)
        try:
            while piece := reader.read(CHUNK):
                yield piece
        except zstandard.ZstdError as error:
            raise CorruptContent(f"damaged zstd stream: {error}") from error


def _inflate(member: isal_zlib.Decompress, data: bytes) -> bytes:
    from isal import igzip_lib  # noqa: PLC0415 - loaded when a blob is read

    error = cast("type[Exception]", igzip_lib.IsalError)
    try:
        return member.decompress(data, CHUNK)
    except error as damage:
        raise CorruptContent(f"damaged gzip stream: {damage}") from damage


class _Pieces(io.RawIOBase):
    """Pieces of bytes as a file, for a library that wants one."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces

    def read(self, _size: int = -1, /) -> bytes:
        return next(self._pieces, b"")

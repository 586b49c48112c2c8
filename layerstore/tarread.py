"""A tar stream as entries: ustar, GNU (long names, base-256 numbers, sparse files), PAX (POSIX.1-2017, SCHILY.xattr).

Made for input that nobody vouches for: nothing is allocated by a size the archive declares, names that leave the root
are refused, and a header that does not add up is an error, not the end of the archive.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from layerstore.compress import Readable
from layerstore.entry import Entry, Kind, Stream
from layerstore.errors import UnsafeEntry, UnsafeLayer
from layerstore.marks import unmask
from layerstore.xattrs import strip

_BLOCK = 512
_CHUNK = 1 << 18
_MOST_EXTRA = 1 << 20  # extended headers and long names are held in memory; the kernel's own limit for a path is 4096
_MOST_SPARSE = 1 << 16
_LARGEST_SPARSE = 1 << 40  # holes cost the archive nothing, but whoever reads them time
_LARGEST_ID = 0xFFFFFFFE  # the one above means "leave it as it is" to chown(2)
_LONGEST_PATH = 3072  # PATH_MAX is 4096 with the place of the tree on the host
_DEEPEST = 500  # a descriptor each while a tree is written
_LARGEST_DEVICE = (0xFFF, 0xFFFFF)  # major and minor, as the kernel has them (linux/kdev_t.h)
_LATEST = 1 << 63  # nanoseconds; times beyond count as 0, as in containerd
_SECOND = 1_000_000_000
_XATTR = b"SCHILY.xattr."
_FILES = b"0\x007S"  # regular, old regular, contiguous, GNU sparse
_ZERO = bytes(_BLOCK)

Records = dict[bytes, bytes]
Segments = list[tuple[int, int]]


def read_tar(stream: Readable, *, layer: bool = False) -> Iterator[Entry]:
    """Yield the entries of a tar, in its order; the data of a FILE has to be read before the next entry is asked for.

    Leading `/` and `./` of names are taken off, as every unpacker does. UnsafeEntry for what cannot be made (`..` that
    lead out, types that are unknown), UnsafeLayer for what is no tar or ends early. With `layer` the marks of OCI
    layers become WHITEOUT and OPAQUE entries; else they are plain files.
    """
    reader = _Reader(stream)
    archive = _Archive(reader)
    for entry in archive.entries():
        if not layer:
            yield entry
            continue
        plain = unmask(entry)
        if plain is not None:
            yield plain


class _Reader:
    """Exact reads from a stream that may return less than asked for."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0

    def block(self) -> bytes:
        """Return the next 512 bytes; b"" at the end of the stream."""
        at = self._at
        if len(self._buffer) - at >= _BLOCK:
            self._at = at + _BLOCK
            return self._buffer[at : at + _BLOCK]
        data = self.some(_BLOCK)
        while 0 < len(data) < _BLOCK:
            more = self.some(_BLOCK - len(data))
            if not more:
                raise UnsafeLayer("the archive ends within a header")
            data += more
        return data

    def some(self, size: int) -> bytes:
        """Return up to `size` bytes, at least one unless the stream has ended."""
        if self._at == len(self._buffer):
            if size >= _CHUNK:
                return self._stream.read(size)
            self._buffer = self._stream.read(_CHUNK)
            self._at = 0
        data = self._buffer[self._at : self._at + size]
        self._at += len(data)
        return data

    def exactly(self, size: int) -> bytes:
        """Return `size` bytes, which the caller has found to be few."""
        parts = []
        while size:
            data = self.some(size)
            if not data:
                raise UnsafeLayer("the archive ends within an entry")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass over `size` bytes."""
        while size:
            data = self.some(min(size, _CHUNK))
            if not data:
                raise UnsafeLayer("the archive ends within an entry")
            size -= len(data)


class _Data:
    """The data of one file as a stream; `finish` passes over what was not read."""

    def __init__(self, reader: _Reader, size: int) -> None:
        self._reader = reader
        self._left = size
        self._pad = -size % _BLOCK

    def read(self, size: int = -1, /) -> bytes:
        left = self._left
        if not left:
            return b""
        data = self._reader.some(left if size < 0 or size > left else size)
        if not data:
            raise UnsafeLayer("the archive ends within a file")
        self._left -= len(data)
        return data

    def finish(self) -> None:
        self._reader.skip(self._left + self._pad)
        self._left = self._pad = 0


class _Sparse:
    """The data of a sparse file with its holes filled with zeros."""

    def __init__(self, data: _Data, segments: Segments, size: int) -> None:
        self._data = data
        self._segments = segments
        self._next = 0
        self._at = 0
        self._size = size

    def read(self, size: int = -1, /) -> bytes:
        while self._next < len(self._segments) and self._at >= sum(self._segments[self._next]):
            self._next += 1
        start, length = self._segments[self._next] if self._next < len(self._segments) else (self._size, 0)
        if self._at < start:
            count = min(start - self._at, _CHUNK if size < 0 else min(size, _CHUNK))
            self._at += count
            return bytes(count)
        left = start + length - self._at
        data = self._data.read(left if size < 0 else min(size, left))
        self._at += len(data)
        return data


class _Archive:
    """What has to be remembered from one header to the next."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._global: Records = {}

    def entries(self) -> Iterator[Entry]:
        extra: Records = {}
        while (block := self._header()) is not None:
            kind = block[156:157]
            size = _number(block[124:136], "size")
            if kind in b"xgLK" and kind:
                self._extend(kind, self._extra_data(size), extra)
                continue
            records = {**self._global, **extra} if self._global else extra
            extra = {}
            if b"size" in records:
                size = _decimal(records[b"size"], "size")
            if kind in (b"V", b"M", b"N", b"D"):
                self._reader.skip(size + -size % _BLOCK)
                continue
            yield from self._entry(block, kind, size, records)
        if extra:
            raise UnsafeLayer("the archive ends after an extended header")

    def _header(self) -> bytes | None:
        """Return the next header, its checksum verified; None at the end: two blocks of zeros or the stream's end."""
        block = self._reader.block()
        if not block:
            return None
        if block == _ZERO:
            if (after := self._reader.block()) and after != _ZERO:
                raise UnsafeLayer("the archive has a block of zeros between its entries")
            return None
        announced = _number(block[148:156], "checksum")
        rest = block[:148] + b"        " + block[156:]
        total = (zlib.adler32(rest) & 0xFFFF) - 1 if rest.isascii() else sum(rest)
        if total != announced and total - 256 * sum(byte > 127 for byte in rest) != announced:
            raise UnsafeLayer("the archive has a damaged header, or is no tar at all")
        return block

    def _extra_data(self, size: int) -> bytes:
        if size > _MOST_EXTRA:
            raise UnsafeLayer(f"the archive has an extended header of {size} bytes")
        data = self._reader.exactly(size)
        self._reader.skip(-size % _BLOCK)
        return data

    def _extend(self, kind: bytes, data: bytes, extra: Records) -> None:
        if kind == b"L":
            extra[b"path"] = data.partition(b"\0")[0]
        elif kind == b"K":
            extra[b"linkpath"] = data.partition(b"\0")[0]
        else:
            into = self._global if kind == b"g" else extra
            for key, value in _pax_records(data):
                if not value and not key.startswith(_XATTR):
                    into.pop(key, None)
                else:
                    into[key] = value

    def _entry(self, block: bytes, kind: bytes, size: int, records: Records) -> Iterator[Entry]:
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or _header_name(block)
        path = _clean(name)
        if kind == b"\0" and name.endswith(b"/"):  # how archives older than POSIX say directory
            kind = b"5"
        target = records.get(b"linkpath") or block[157:257].partition(b"\0")[0]
        mtime = _time(records[b"mtime"]) if b"mtime" in records else _number(block[136:148], "time") * _SECOND
        found = Entry(
            path,
            Kind.FILE,
            _number(block[100:108], "mode") & 0o7777,
            _decimal(records[b"uid"], "uid") if b"uid" in records else _number(block[108:116], "uid"),
            _decimal(records[b"gid"], "gid") if b"gid" in records else _number(block[116:124], "gid"),
            mtime if -_LATEST <= mtime < _LATEST else 0,
        )
        if found.uid > _LARGEST_ID or found.gid > _LARGEST_ID:
            raise UnsafeEntry(f"/{os.fsdecode(path)} belongs to {found.uid}:{found.gid}, which no system has")
        if records:
            found = found._replace(xattrs=_xattrs(records))
        if kind in _FILES:
            yield from self._file(found, block, kind, size, records)
            return
        # Links, directories and nodes have no data; some old archives give them a size all the same.
        yield _special(found, kind, target, block)

    def _file(self, entry: Entry, block: bytes, kind: bytes, size: int, records: Records) -> Iterator[Entry]:
        if not entry.path:
            raise UnsafeEntry("the archive has a file in place of its root")
        segments, real, size = self._segments(block, kind, size, records)
        data = _Data(self._reader, size)
        if segments is None:
            source: _Data | _Sparse = data
        else:
            if sum(length for _, length in segments) != size:
                raise UnsafeLayer(f"/{os.fsdecode(entry.path)}: the map of the sparse file does not add up")
            source = _Sparse(data, segments, real)
        yield entry._replace(size=real, source=Stream(cast("BinaryIO", source)))
        data.finish()

    def _segments(self, block: bytes, kind: bytes, size: int, records: Records) -> tuple[Segments | None, int, int]:
        """Return where a sparse file has data (None if it is not sparse), its real size and that of what is stored."""
        if kind == b"S":
            real = _number(block[483:495], "size")
            segments = self._old_map(block)
        elif records.get(b"GNU.sparse.major") == b"1":
            real = _decimal(records.get(b"GNU.sparse.realsize", b""), "size")
            segments, used = self._map_in_data(size)
            size -= used
        elif b"GNU.sparse.size" in records:
            real = _decimal(records[b"GNU.sparse.size"], "size")
            numbers = [_decimal(text, "sparse map") for text in records.get(b"GNU.sparse.map", b"").split(b",") if text]
            segments = list(zip(numbers[::2], numbers[1::2], strict=False))
        else:
            return None, size, size
        end = 0
        for start, length in segments:
            if start < end:
                raise UnsafeLayer("the map of a sparse file is not in order")
            end = start + length
        if end > real:
            raise UnsafeLayer("the map of a sparse file goes beyond its end")
        if real > _LARGEST_SPARSE:
            raise UnsafeLayer(f"the archive has a sparse file of {real} bytes")
        return [segment for segment in segments if segment[1]], real, size

    def _old_map(self, block: bytes) -> Segments:
        """Read the map of GNU's own format: four entries in the header, 21 in each block after it."""
        segments = _map_fields(block[386:482])
        more = block[482]
        while more:
            following = self._reader.block()
            if not following:
                raise UnsafeLayer("the archive ends within the map of a sparse file")
            segments += _map_fields(following[:504])
            more = following[504]
            if len(segments) > _MOST_SPARSE:
                raise UnsafeLayer("the map of a sparse file is too long")
        return segments

    def _map_in_data(self, size: int) -> tuple[Segments, int]:
        """Read the map of PAX sparse format 1.0: decimal lines before the data, filled up to a block."""
        text = b""
        used = 0
        count: int | None = None
        while count is None or text.count(b"\n") < 2 * count + 1:
            if used >= size or used > _MOST_EXTRA:
                raise UnsafeLayer("the map of a sparse file is too long")
            text += self._reader.exactly(_BLOCK)
            used += _BLOCK
            if count is None and b"\n" in text:
                count = _decimal(text.partition(b"\n")[0], "sparse map")
                if count > _MOST_SPARSE:
                    raise UnsafeLayer("the map of a sparse file is too long")
        numbers = [_decimal(line, "sparse map") for line in text.split(b"\n")[1 : 2 * count + 1]]
        return list(zip(numbers[::2], numbers[1::2], strict=True)), used


def _special(entry: Entry, kind: bytes, target: bytes, block: bytes) -> Entry:
    """Return an entry that has no data."""
    path = entry.path
    if kind == b"5":
        return entry._replace(kind=Kind.DIR)
    if not path:
        raise UnsafeEntry("the archive has something in place of its root that is no directory")
    if kind == b"2":
        if not target or b"\0" in target:
            raise UnsafeEntry(f"/{os.fsdecode(path)} is a symlink to nothing")
        return entry._replace(kind=Kind.SYMLINK, target=target)
    if kind == b"1":
        return entry._replace(kind=Kind.HARDLINK, target=_clean(target, "hardlink target"), xattrs=())
    if kind == b"6":
        return entry._replace(kind=Kind.FIFO)
    if kind in (b"3", b"4"):
        rdev = (_number(block[329:337], "device"), _number(block[337:345], "device"))
        if rdev[0] > _LARGEST_DEVICE[0] or rdev[1] > _LARGEST_DEVICE[1]:
            raise UnsafeEntry(f"/{os.fsdecode(path)} is the device {rdev[0]}:{rdev[1]}, which no system has")
        return entry._replace(kind=Kind.CHAR if kind == b"3" else Kind.BLOCK, rdev=rdev)
    raise UnsafeEntry(f"unhandled tar header type {kind[0]} of /{os.fsdecode(path)}")


def _header_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0" and block[345]:
        return block[345:500].partition(b"\0")[0] + b"/" + name
    return name


def _clean(name: bytes, what: str = "entry name") -> bytes:
    """Return the path that a member's name means; UnsafeEntry if it leaves the root or is none."""
    if b"\0" in name:
        raise UnsafeEntry(f"{os.fsdecode(name)!r} is no name")
    if len(name) > _LONGEST_PATH or name.count(b"/") > _DEEPEST:
        raise UnsafeEntry(f"{os.fsdecode(name[:80])!r}… is too long or too deep for a path")
    if not name.startswith((b"/", b".")) and b"//" not in name and b"/." not in name:
        return name.removesuffix(b"/")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise UnsafeEntry(f'invalid {what} "{os.fsdecode(name)}": it leads out of the archive')
            parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _number(field: bytes, what: str) -> int:
    """Read a header's number: octal text, or base-256 where the first bit is set (GNU)."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big", signed=False) & ((1 << (8 * len(field) - 1)) - 1)
        if first & 0x40:
            value -= 1 << (8 * len(field) - 1)
        if what != "time" and value < 0:
            raise UnsafeLayer(f"the archive has a negative {what}")
        return value
    text = field.strip(b" \0").partition(b"\0")[0]
    if not text:
        return 0
    if not text.strip(b"01234567") == b"":
        raise UnsafeLayer(f"the archive has a {what} that is no number")
    return int(text, 8)


def _decimal(text: bytes, what: str) -> int:
    if not text.isdigit() or len(text) > 20:
        raise UnsafeLayer(f"the archive has a {what} that is no number")
    return int(text)


def _time(text: bytes) -> int:
    """Read seconds with a fraction; return nanoseconds."""
    whole, _, fraction = text.partition(b".")
    negative = whole.startswith(b"-")
    seconds = _decimal(whole.removeprefix(b"-"), "time")
    nanos = _decimal(fraction[:9].ljust(9, b"0"), "time") if fraction else 0
    total = seconds * _SECOND + nanos
    return -total if negative else total


def _pax_records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the records `LENGTH KEY=VALUE\\n`; values may hold any byte."""
    at = 0
    while at < len(data) and data[at]:
        space = data.find(b" ", at, at + 20)
        length = _decimal(data[at:space], "record") if space > 0 else 0
        end = at + length
        equals = data.find(b"=", space, end)
        if space < 0 or equals < 0 or end > len(data) or data[end - 1 : end] != b"\n":
            raise UnsafeLayer("the archive has a damaged extended header")
        yield data[space + 1 : equals], data[equals + 1 : end - 1]
        at = end


def _xattrs(records: Records) -> tuple[tuple[bytes, bytes], ...]:
    for key in records:
        if b"\0" in key:
            raise UnsafeLayer(f"the archive has an attribute called {os.fsdecode(key)!r}")
    return strip(tuple((key[len(_XATTR) :], value) for key, value in records.items() if key.startswith(_XATTR)))


def _map_fields(fields: bytes) -> Segments:
    segments = []
    for at in range(0, len(fields) - 23, 24):
        if fields[at]:
            start = _number(fields[at : at + 12], "sparse map")
            segments.append((start, _number(fields[at + 12 : at + 24], "sparse map")))
    return segments

"""Entries as the bytes of a tar: ustar, with PAX records only where ustar has no room (POSIX.1-2017 pax).

The bytes depend on the entries alone. Times are cut to whole seconds, as the field's layer writers do; whiteouts are
empty files (OCI image-spec layer.md, "Whiteouts") of mode 0 and time 0. It does not decide the order.
"""

from __future__ import annotations

import zlib

from layerstore.entry import Entry, Kind
from layerstore.marks import MARK, OPAQUE_MARK

BLOCK = 512
END = bytes(2 * BLOCK)

_NUL = b"\0"
_NAME, _PREFIX, _LINK = 100, 155, 100
_ID_LIMIT = 0o7777777
_SIZE_LIMIT = 0o77777777777
_TYPES = {
    Kind.FILE: b"0",
    Kind.DIR: b"5",
    Kind.SYMLINK: b"2",
    Kind.HARDLINK: b"1",
    Kind.CHAR: b"3",
    Kind.BLOCK: b"4",
    Kind.FIFO: b"6",
    Kind.WHITEOUT: b"0",
    Kind.OPAQUE: b"0",
}
_PADS = [bytes(-size % BLOCK) for size in range(BLOCK)]
# magic, version, empty user and group names, device numbers 0 and 0
_TAIL = b"ustar\00000" + bytes(64) + b"0000000\0" + b"0000000\0"
_PLAIN_TAIL = _TAIL + bytes(_PREFIX + 12)
_NO_LINK = bytes(_LINK)
_FILE_TAIL = b"0" + _NO_LINK + _PLAIN_TAIL
_FILE_SUM = sum(_FILE_TAIL) + 8 * ord(" ") - 1  # what goes to a plain file's checksum besides its head (see _sealed)


def padding(size: int) -> bytes:
    """Return the zeros that follow `size` bytes of data."""
    return _PADS[size % BLOCK]


def header(entry: Entry) -> bytes:
    """Return the header blocks of `entry`; a FILE's data and its `padding` follow them."""
    path, kind, mode, uid, gid, mtime_ns, size, _, _, xattrs, _, _ = entry
    if kind is Kind.FILE and not xattrs and len(path) <= _NAME and uid <= _ID_LIMIT and gid <= _ID_LIMIT:
        mtime = mtime_ns // 1_000_000_000
        if 0 <= mtime <= _SIZE_LIMIT and size <= _SIZE_LIMIT:
            head = path.ljust(_NAME, _NUL) + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
            if head.isascii():
                return head + b"%06o\0 " % ((zlib.adler32(head) & 0xFFFF) + _FILE_SUM) + _FILE_TAIL
            return _sealed(head, _FILE_TAIL)
    return _any_header(entry)


def _any_header(entry: Entry) -> bytes:
    path, kind, mode, uid, gid, mtime_ns, size, target, rdev, xattrs, _, _ = entry
    records: list[tuple[bytes, bytes]] = []
    if kind is Kind.WHITEOUT:
        above, slash, name = path.rpartition(b"/")
        path, mode, uid, gid, mtime_ns, xattrs = above + slash + MARK + name, 0, 0, 0, 0, ()
    elif kind is Kind.OPAQUE:
        path, mode, uid, gid, mtime_ns, xattrs = (path + b"/" if path else b"") + OPAQUE_MARK, 0, 0, 0, 0, ()
    elif kind is Kind.DIR:
        path = path + b"/" if path else b"./"
    if kind is not Kind.FILE:
        size = 0
    fields = _split(path)
    if fields is None:
        records.append((b"path", path))
    name, prefix = fields or (path[:_NAME], b"")
    if len(target) > _LINK:
        records.append((b"linkpath", target))
    mtime = mtime_ns // 1_000_000_000
    numbers = []
    for key, value, limit in (
        (b"uid", uid, _ID_LIMIT),
        (b"gid", gid, _ID_LIMIT),
        (b"size", size, _SIZE_LIMIT),
        (b"mtime", mtime, _SIZE_LIMIT),
    ):
        if 0 <= value <= limit:
            numbers.append(value)
        else:
            records.append((key, b"%d" % value))
            numbers.append(0)
    records.extend((b"SCHILY.xattr." + key, value) for key, value in xattrs)
    head = name.ljust(_NAME, _NUL) + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, *numbers)
    tail = (
        _TYPES[kind]
        + target[:_LINK].ljust(_LINK, _NUL)
        + _TAIL[:-16]
        + b"%07o\0%07o\0" % rdev
        + prefix.ljust(_PREFIX + 12, _NUL)
    )
    return (_pax(records, path) if records else b"") + _sealed(head, tail)


def _sealed(head: bytes, tail: bytes) -> bytes:
    """Join the parts before and after the checksum and fill it in: the sum of all bytes, itself taken as spaces."""
    block = head + b"        " + tail
    # Adler-32's low half is 1 plus the sum of the bytes mod 65521, which 512 bytes below 128 cannot reach.
    total = (zlib.adler32(block) & 0xFFFF) - 1 if block.isascii() else sum(block)
    return head + b"%06o\0 " % total + tail


def _split(path: bytes) -> tuple[bytes, bytes] | None:
    """Return name and prefix for the header's fields; None if the path fits in no way."""
    if len(path) <= _NAME:
        return path, b""
    at = path.rfind(b"/", 0, _PREFIX + 1)
    if at > 0 and 0 < len(path) - at - 1 <= _NAME:
        return path[at + 1 :], path[:at]
    return None


def _pax(records: list[tuple[bytes, bytes]], path: bytes) -> bytes:
    """Return an extended header with `records`, called after the entry's last name."""
    body = b"".join(_record(key, value) for key, value in records)
    name = b"PaxHeaders.0/" + path.rstrip(b"/").rpartition(b"/")[2]
    head = name[:_NAME].ljust(_NAME, _NUL) + b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (0o644, 0, 0, len(body), 0)
    return _sealed(head, b"x" + _NO_LINK + _PLAIN_TAIL) + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    """Return `LENGTH KEY=VALUE\\n`, whose length counts its own digits."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    if len(str(length)) + len(rest) != length:
        length += 1
    return b"%d" % length + rest

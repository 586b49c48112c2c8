"""One path of one layer: the value that flows from every source of layers to every sink.

It knows nothing of how it is stored: tar members, overlay trees and copies are all made of it.
"""

from __future__ import annotations

import stat
from enum import IntEnum
from typing import BinaryIO, NamedTuple


class Kind(IntEnum):
    """The type of an entry; the last two exist in layers only, never in a flattened view."""

    FILE = 0
    DIR = 1
    SYMLINK = 2
    HARDLINK = 3
    CHAR = 4
    BLOCK = 5
    FIFO = 6
    WHITEOUT = 7
    """The path is removed from what lies below (OCI image-spec layer.md, "Whiteouts")."""
    OPAQUE = 8
    """The directory hides everything below it; follows the directory's own DIR entry."""


KINDS = {
    stat.S_IFREG: Kind.FILE,
    stat.S_IFDIR: Kind.DIR,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFCHR: Kind.CHAR,
    stat.S_IFBLK: Kind.BLOCK,
    stat.S_IFIFO: Kind.FIFO,
}
"""Kinds by the type bits of stat(2); sockets have none: no layer holds them."""


class Inline(NamedTuple):
    """File data held in memory."""

    data: bytes


class Stream(NamedTuple):
    """File data that can be read once, front to back, before the next entry is asked for."""

    file: BinaryIO


Source = bytes | Inline | Stream
"""Where a file's data is: an absolute host path (opened O_NOFOLLOW), memory, or a stream."""


class Entry(NamedTuple):
    """One path of one layer; a tuple, because tens of thousands are made per layer.

    `path` is relative to the image's root without a leading slash (`b""` is the root itself). `mode` holds the twelve
    permission bits. `size` is in bytes and only set for files. `target` is a symlink's text or the path of the entry
    that a HARDLINK repeats. `rdev` is (major, minor). `xattrs` are sorted by name. `inode` is (device, inode) when the
    file has more than one link on the host, so that whoever copies it can keep the links.
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()
    source: Source = Inline(b"")
    inode: tuple[int, int] | None = None

"""Files outside the store: what is seen of them, and remembered digests, so that no unchanged context is read again.

A file is known by device, inode, size, modification and change time; that it is remembered also says that it has no
file capability. One that was written in the same tick of the file system's clock as it was read could change again
without any of these changing, so it is not remembered: the racy-clean problem that git describes in `racy-git`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from layerstore.digest import Digest
from layerstore.home import Home

if TYPE_CHECKING:
    from layerstore.xattrs import Xattrs

CAPABILITY = b"security.capability"
_CAPABILITY_NAME = os.fsdecode(CAPABILITY)

_TICK_NS = 20_000_000  # file times come from the kernel's coarse clock: up to 10 ms behind (CONFIG_HZ=100), doubled
_BUCKET = 8
"""Files are kept by device and inode, 256 inodes to a row: those of one context mostly lie together."""
_RECORD = Struct("<QQqq32s")  # inode, size, mtime, ctime, sha256
_LEAST = -(1 << 63)
_SELECTIONS_KEPT = 10_000
_FILES_KEPT = 2_000_000
_SEEN = attrgetter("st_dev", "st_ino", "st_size", "st_mtime_ns", "st_ctime_ns")


class Stamp(NamedTuple):
    """All that can be known of a file without reading it; times in nanoseconds since the epoch."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> Stamp:
        """Take the stamp from what stat(2) said."""
        return tuple.__new__(cls, _SEEN(status))  # as `_make` does, without the call of it


def capability(where: bytes | int) -> Xattrs:
    """Return the file capability of a path (not followed) or descriptor: the only attribute that files of a host keep.

    Nothing where there is none, the file system has no attributes, or the file is gone: who reads it says so.
    """
    follow = isinstance(where, int)
    try:
        names = os.listxattr(where, follow_symlinks=follow)
        if not names or _CAPABILITY_NAME not in names:
            return ()
        return ((CAPABILITY, os.getxattr(where, CAPABILITY, follow_symlinks=follow)),)
    except OSError:
        return ()


class Files:
    """Remembers what files and selections of files contained; part of a Store."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def lookup(self, stamps: Sequence[Stamp]) -> list[bytes | None]:
        """Return the remembered sha256 of each file, None where it is unknown or the file has changed."""
        known: dict[tuple[int, ...], bytes] = {}
        for device in {stamp[0] for stamp in stamps}:
            numbers = {stamp[1] >> _BUCKET for stamp in stamps if stamp[0] == device}
            data = b"".join(self._buckets(device, numbers).values())
            known.update({(device, *record[:4]): record[4] for record in _RECORD.iter_unpack(data)})
        return [known.get(stamp) for stamp in stamps]

    def remember(self, files: Iterable[tuple[Stamp, bytes]], *, scanned_ns: int) -> None:
        """Remember the sha256 of files that were looked at (stat) at `scanned_ns` or later and read after that.

        Files that changed at that time or since are left out: they may still be changing (racy). None may have a file
        capability; since it cannot get one without another change time, whoever finds the digest need not look.
        """
        limit = scanned_ns - _TICK_NS
        new: dict[int, dict[int, dict[int, bytes]]] = {}
        for (device, inode, size, mtime, ctime), digest in files:
            if _LEAST < mtime < limit and _LEAST < ctime < limit:
                bucket = new.setdefault(device, {}).setdefault(inode >> _BUCKET, {})
                bucket[inode] = _RECORD.pack(inode, size, mtime, ctime, digest)
        if not new:
            return
        with self._home.db.transaction():
            for device, buckets in new.items():
                for number, data in self._buckets(device, buckets).items():
                    old = {record[0]: _RECORD.pack(*record) for record in _RECORD.iter_unpack(data)}
                    buckets[number] = {**old, **buckets[number]}
                self._home.db.write_many(
                    "INSERT OR REPLACE INTO plain_files(device, bucket, data) VALUES (?, ?, ?)",
                    [(_signed(device), number, b"".join(records.values())) for number, records in buckets.items()],
                )

    def selection(self, fingerprint: bytes) -> Digest | None:
        """Return the remembered content digest of a selection of files; `fingerprint` is made of all their stamps."""
        row = self._home.db.row("SELECT digest FROM selections WHERE fingerprint = ?", (fingerprint,))
        return None if row is None else Digest(row[0])

    def remember_selection(
        self, fingerprint: bytes, digest: Digest, *, newest_ns: int = 0, scanned_ns: int = 0
    ) -> None:
        """Remember a selection's content digest; nothing is remembered if its newest file may still be changing.

        `newest_ns` is the latest mtime or ctime in it, `scanned_ns` the time before the first stat; both 0 means
        that the caller has checked this itself.
        """
        if newest_ns and newest_ns >= scanned_ns - _TICK_NS:
            return
        self._home.db.write(
            "INSERT OR REPLACE INTO selections VALUES (?, ?, ?)", (fingerprint, digest, self._home.clock())
        )

    def trim(self) -> None:
        """Forget the oldest where there is much; called by gc."""
        db = self._home.db
        db.write(
            "DELETE FROM selections WHERE fingerprint IN"
            " (SELECT fingerprint FROM selections ORDER BY used DESC LIMIT -1 OFFSET ?)",
            (_SELECTIONS_KEPT,),
        )
        size = db.row("SELECT sum(length(data)) FROM plain_files")
        if size is not None and (size[0] or 0) > _FILES_KEPT * _RECORD.size:
            db.write("DELETE FROM plain_files")

    def _buckets(self, device: int, numbers: Iterable[int]) -> dict[int, bytes]:
        """Return the records of those buckets of files that there are."""
        rows = self._home.db.rows(
            "SELECT bucket, data FROM plain_files WHERE device = ? AND bucket IN (SELECT value FROM json_each(?))",
            (_signed(device), str(list(numbers))),
        )
        return dict(rows)


def _signed(number: int) -> int:
    """SQLite's integers are signed; devices may use all 64 bits."""
    return number if number < 1 << 63 else number - (1 << 64)

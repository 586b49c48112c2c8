"""Content-addressed bytes in `blobs/sha256/`: written once, verified whenever they are read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, cast

from layerstore.compress import CHUNK, Piece, Readable
from layerstore.digest import Digest
from layerstore.durable import step
from layerstore.errors import CorruptContent, NotFound
from layerstore.home import Home
from layerstore.recover import take_unrecorded

if TYPE_CHECKING:
    from layerstore.growing import Growing, Watch

_LARGEST_READ = 64 << 20
_WORTH_A_THREAD = 4 << 20


class BlobWriter:
    """A blob in the making: hashed while it is written, invisible until `Blobs.new` keeps it.

    `watch` is told of it once it is worth reading behind the writer.
    """

    def __init__(self, fd: int, watch: Watch | None = None) -> None:
        self._fd = fd
        self._watch = watch
        self._growing: Growing | None = None
        self._hash = hashlib.sha256()
        self.size = 0

    def write(self, data: Piece) -> None:
        """Append `data`; raises OSError."""
        if not data:
            return
        self._hash.update(data)
        self.size += len(data)
        view = memoryview(data)
        step("write")
        while view:
            view = view[os.write(self._fd, view) :]
        if self._watch is not None:
            self._tell(self._watch)

    def _tell(self, watch: Watch) -> None:
        from layerstore.growing import WORTH_WATCHING, Growing  # noqa: PLC0415 - only where a blob is sent at once

        if self._growing is not None:
            self._growing.grew(self.size)
        elif self.size >= WORTH_WATCHING:
            self._growing = Growing(self._fd)
            self._growing.grew(self.size)
            watch(self._growing)

    def end(self, *, whole: bool) -> None:
        """Tell who watches that no more comes, and whether that is all."""
        if self._growing is not None:
            self._growing.end(self.digest if whole else None)

    @property
    def digest(self) -> Digest:
        """The digest of what was written so far."""
        return Digest("sha256:" + self._hash.hexdigest())


class Blobs:
    """Puts, opens and reads blobs; part of a Store."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def put(self, stream: Readable, *, expected: Digest | None = None) -> tuple[Digest, int]:
        """Keep all that `stream` holds; return its digest and its size in bytes.

        CorruptContent if `expected` is given and the content is not that; nothing is kept then.
        """
        with self.new(expected=expected) as blob:
            while blob.size < _WORTH_A_THREAD and (data := stream.read(CHUNK)):
                blob.write(data)
            if blob.size >= _WORTH_A_THREAD:
                from layerstore.conveyor import Conveyor  # noqa: PLC0415 - small blobs need no thread

                with Conveyor(blob.write) as conveyor:
                    while data := stream.read(CHUNK):
                        conveyor.put(data)
        return blob.digest, blob.size

    def put_bytes(self, data: bytes) -> Digest:
        """Keep `data`; return its digest."""
        with self.new() as blob:
            blob.write(data)
        return blob.digest

    @contextlib.contextmanager
    def new(self, *, expected: Digest | None = None, watch: Watch | None = None) -> Iterator[BlobWriter]:
        """Give a blob to write to, which is kept when the block ends well; errors as `put`.

        `watch` is told of one that gets large while it is written.
        """
        disk = self._home.disk
        with disk.temp_file() as (fd, temp):
            blob = BlobWriter(fd, watch)
            try:
                yield blob
            except BaseException:
                blob.end(whole=False)
                raise
            blob.end(whole=True)
            digest = blob.digest
            if expected is not None and digest != expected:
                raise CorruptContent(f"content should have been {expected} but is {digest}")
            os.fchmod(fd, 0o644)
            with self._home.db.transaction():
                disk.keep(temp, self._path(digest))
                self._home.db.write(
                    "INSERT INTO blobs(digest, size, used, boot) VALUES (?, ?, ?, ?)"
                    " ON CONFLICT(digest) DO UPDATE SET used = excluded.used, boot = excluded.boot",
                    (digest, blob.size, self._home.clock(), self._home.boot),
                )

    def size(self, digest: Digest) -> int | None:
        """Return the size in bytes of a blob, None if it is not here; a lease keeps it from gc."""
        db = self._home.db
        row = db.row("SELECT size FROM blobs WHERE digest = ?", (digest,))
        if row is None or not db.write("UPDATE blobs SET used = ? WHERE digest = ?", (self._home.clock(), digest)):
            return None
        return int(row[0])

    def open(self, digest: Digest) -> BinaryIO:
        """Open a blob for reading front to back; NotFound if it is not here.

        The last read raises CorruptContent if digest or size are not what they should be: use nothing before.
        """
        size = self.size(digest)
        if size is None:
            raise NotFound(f"the store has no blob {digest}")
        try:
            file = open(self._path(digest), "rb", buffering=0)  # noqa: SIM115 - handed to the caller
        except FileNotFoundError as error:
            raise _damaged(digest, "its file is missing") from error
        return cast("BinaryIO", _Verified(file, digest, size))

    def read(self, digest: Digest) -> bytes:
        """Return a whole blob, verified; meant for configs and manifests. NotFound, CorruptContent."""
        with self.open(digest) as file:
            size = os.fstat(file.fileno()).st_size
            if size > _LARGEST_READ:
                raise CorruptContent(f"blob {digest} is too large for a config or manifest")
            data = file.read(size + 1)
            while more := file.read(CHUNK):
                data += more
        return data

    def path(self, digest: Digest) -> Path:
        """Return where the file of a blob is, or would be; what is read there is not verified."""
        return Path(os.fsdecode(self._path(digest)))

    def remove(self, digest: Digest) -> bool:
        """Forget a blob and take its file away; return whether it was here."""
        with self._home.db.transaction():
            known = self._home.db.write("DELETE FROM blobs WHERE digest = ?", (digest,)) > 0
            self._home.db.write("DELETE FROM packed WHERE digest = ?", (digest,))
        for aside in take_unrecorded(self._home, [b"blobs/sha256/" + digest.hex.encode()]):
            self._home.disk.remove(aside)
        return known

    def _path(self, digest: Digest) -> bytes:
        return self._home.disk.path(b"blobs/sha256", digest.hex.encode())


class _Verified(io.RawIOBase):
    """A blob's file whose end is only reached by content that has the right digest."""

    def __init__(self, file: io.FileIO, digest: Digest, size: int) -> None:
        super().__init__()
        self._file = file
        self._digest = digest
        self._left = size
        self._hash = hashlib.sha256()
        self.size = size

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._file.fileno()

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        count = self._file.readinto(buffer)
        self._left -= count
        if count:
            self._hash.update(memoryview(buffer)[:count])
        if self._left < 0 or (count == 0 and len(buffer) and self._left > 0):
            raise _damaged(self._digest, "its size differs from its record")
        if self._left == 0 and (count or not self._file.tell()) and "sha256:" + self._hash.hexdigest() != self._digest:
            raise _damaged(self._digest, "its content has another digest")
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _damaged(digest: Digest, how: str) -> CorruptContent:
    return CorruptContent(
        f"blob {digest} is damaged: {how}", hint="run `pybuild store check` and pull or build the image again"
    )

"""One form of a layer made from the other: blobs packed from trees or from other blobs, trees unpacked from blobs."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from layerstore.changes import scan
from layerstore.compress import CHUNK, Compression, Decompressed, Piece, compressor
from layerstore.digest import DiffId, Digest
from layerstore.errors import CorruptContent, NotFound, UnsafeLayer
from layerstore.join import TarSink, join
from layerstore.lock import hold
from layerstore.recover import DELTA, SMALL
from layerstore.treewrite import TreeWriter
from layerstore.view import View, flatten

if TYPE_CHECKING:
    from layerstore.blobs import Blobs, BlobWriter
    from layerstore.entry import Entry
    from layerstore.growing import Watch
    from layerstore.home import Home
    from layerstore.oci import Descriptor


_FEW = 1000
"""Files of a layer: one that has more is compressed, whatever is in them."""


class Packing:
    """A layer's blob in the making: takes the tar, writes it compressed."""

    def __init__(self, blob: BlobWriter, compression: Compression, level: int | None) -> None:
        self.blob = blob
        self.compression = compression
        self._compressor = compressor(compression, level)

    def sink(self) -> TarSink:
        """Return what takes the parts of the tar. What is not compressed is hashed once."""
        plain = self.compression is Compression.NONE
        return TarSink(self.take, digest=self._digest if plain else None)

    def _digest(self) -> Digest:
        return self.blob.digest

    def take(self, data: Piece) -> None:
        """Append bytes of the tar."""
        self.blob.write(self._compressor.compress(data))

    def end(self) -> None:
        """Write what the compressor holds back."""
        self.blob.write(self._compressor.flush())


def tree_path(home: Home, diff_id: DiffId) -> bytes:
    """Return where the layer's tree is, or would be."""
    return home.disk.path(b"trees", diff_id.hex.encode())


def delta_path(home: Home, diff_id: DiffId) -> bytes:
    """Return where the layer's tree is, or would be, as what it adds to its base's."""
    return home.disk.path(b"trees", diff_id.hex.encode() + DELTA)


def small_path(home: Home, diff_id: DiffId) -> bytes:
    """Return where the data of the layer's small files is, or would be."""
    return home.disk.path(b"trees", diff_id.hex.encode() + SMALL)


def delta_entries(home: Home, diff_id: DiffId, base: DiffId) -> Iterator[Entry]:
    """Yield the entries of a layer that is kept as a delta over the tree of `base`."""
    trees = (tree_path(home, base), delta_path(home, diff_id))
    return flatten(View([Path(os.fsdecode(tree)) for tree in trees]))


def record_blob(home: Home, diff_id: DiffId, packing: Packing) -> None:
    """Note that a blob made here holds the layer."""
    home.db.write(
        "INSERT OR REPLACE INTO packed(diff_id, digest, compression, media_type, size, verified)"
        " VALUES (?, ?, ?, ?, ?, 1)",
        (diff_id, packing.blob.digest, packing.compression.value, packing.compression.media_type, packing.blob.size),
    )


class Packer:
    """Makes the form of a layer that is missing; one process at a time per layer."""

    def __init__(self, home: Home, blobs: Blobs) -> None:
        self._home = home
        self._blobs = blobs
        self.watch: Watch | None = None

    def blob(self, diff_id: DiffId, compression: Compression | None, level: int | None) -> Descriptor:
        """Return the layer's blob as `Layers.blob` promises."""
        with self._alone(diff_id):
            found = self._known(diff_id, compression)
            if found is not None:
                return found
            return self._make(diff_id, compression, level)

    def unpack(self, diff_id: DiffId) -> None:
        """Make the layer's whole tree, from its delta or a blob. NotFound, CorruptContent, UnsafeLayer."""
        with self._alone(diff_id):
            row = self._home.db.row(
                "SELECT tree, base FROM layers LEFT JOIN deltas USING (diff_id) WHERE diff_id = ?", (diff_id,)
            )
            if row is not None and row[0] and os.path.isdir(tree_path(self._home, diff_id)):
                return
            fd, temp = self._home.disk.temp_dir(mode=0o755)
            try:
                os.fchmod(fd, 0o755)
                if row is not None and row[1]:
                    self._keep(diff_id, self._copy_into(temp, diff_id, DiffId(row[1])), temp)
                else:
                    digest = self._sources(diff_id)[0][0]
                    self._keep(diff_id, self._unpack_into(temp, diff_id, digest), temp, digest)
            finally:
                self._home.disk.remove(temp)
                os.close(fd)

    def _keep(self, diff_id: DiffId, size: int, temp: bytes, digest: Digest | None = None) -> None:
        home = self._home
        final = tree_path(home, diff_id)
        with home.db.transaction():
            stale = home.disk.move_aside(final)
            home.disk.keep(temp, final)
            home.db.write(
                "UPDATE layers SET tree = 1, size = ?, boot = ? WHERE diff_id = ?", (size, home.boot, diff_id)
            )
            if digest is not None:
                home.db.write("UPDATE packed SET verified = 1 WHERE diff_id = ? AND digest = ?", (diff_id, digest))
        if stale is not None:
            home.disk.remove(stale)

    def _copy_into(self, temp: bytes, diff_id: DiffId, base: DiffId) -> int:
        """Write the tree that a delta stands for; return the size of its tar."""
        with TarSink() as tar, TreeWriter(temp) as tree:
            join(delta_entries(self._home, diff_id, base), tar, tree)
            tree.finish()
            _expect(tar.finish(), diff_id)
        return tar.size

    def _unpack_into(self, temp: bytes, diff_id: DiffId, digest: Digest) -> int:
        from layerstore.tarread import read_tar  # noqa: PLC0415 - only where a layer is unpacked

        with self._opened(diff_id, digest) as tar, TreeWriter(temp) as tree:
            try:
                join(read_tar(tar, layer=True), None, tree)
                tree.finish()
            except UnsafeLayer as error:
                raise UnsafeLayer(
                    f"layer {diff_id} (blob {digest}) is refused: {error.message}", hint=error.hint
                ) from error
        return tar.size

    @contextlib.contextmanager
    def _opened(self, diff_id: DiffId, digest: Digest) -> Iterator[_Hashed]:
        """Give the layer's tar; when the block has ended well, all of it was right. Else the blob is forgotten."""
        file = self._blobs.open(digest)
        try:
            with file:
                tar = _Hashed(Decompressed(file))
                yield tar
                tar.drain()
                _drain(file)
            if tar.diff_id != diff_id:
                raise CorruptContent(f"blob {digest} should hold the layer {diff_id} but holds {tar.diff_id}")
        except (CorruptContent, UnsafeLayer):
            self._home.db.write("DELETE FROM packed WHERE diff_id = ? AND digest = ?", (diff_id, digest))
            self._home.db.write(
                "DELETE FROM layers WHERE diff_id = ? AND tree = 0"
                " AND NOT EXISTS(SELECT 1 FROM packed WHERE packed.diff_id = layers.diff_id)",
                (diff_id,),
            )
            raise

    def _known(self, diff_id: DiffId, compression: Compression | None) -> Descriptor | None:
        from layerstore.oci import Descriptor  # noqa: PLC0415 - only where a blob is made

        for digest, packed, media_type, size, verified in self._sources(diff_id, allow_none=True):
            if compression is not None and packed != compression.value:
                continue
            if self._blobs.size(digest) is None:
                continue
            if not verified:
                with self._opened(diff_id, digest) as tar:
                    tar.drain()
                self._home.db.write(
                    "UPDATE packed SET verified = 1 WHERE diff_id = ? AND digest = ?", (diff_id, digest)
                )
            return Descriptor(media_type=media_type, digest=digest, size=size)
        return None

    def _make(self, diff_id: DiffId, compression: Compression | None, level: int | None) -> Descriptor:
        from layerstore.oci import Descriptor  # noqa: PLC0415 - only where a blob is made

        row = self._home.db.row(
            "SELECT tree, outside, base FROM layers LEFT JOIN deltas USING (diff_id) WHERE diff_id = ?", (diff_id,)
        )
        if row is None:
            raise NotFound(f"the store has no layer {diff_id}", hint="build or pull the image again")
        own_tree = row[0] and not row[1]
        if compression is None:
            compression = self._fitting(diff_id) if own_tree else Compression.GZIP
        with self._blobs.new(watch=self.watch) as blob:
            packing = Packing(blob, compression, level)
            if own_tree:
                self._pack(diff_id, scan(tree_path(self._home, diff_id)), packing)
            elif row[2]:
                self._pack(diff_id, delta_entries(self._home, diff_id, DiffId(row[2])), packing)
            else:
                digest = self._sources(diff_id)[0][0]
                with self._opened(diff_id, digest) as tar:
                    while data := tar.read(CHUNK):
                        packing.take(data)
            packing.end()
        record_blob(self._home, diff_id, packing)
        return Descriptor(media_type=compression.media_type, digest=blob.digest, size=blob.size)

    def _fitting(self, diff_id: DiffId) -> Compression:
        """Return how to compress a layer that has a tree: not at all where that seems to be in vain."""
        from layerstore.pieces import shrink  # noqa: PLC0415 - only where a blob is made

        some = list(itertools.islice(scan(tree_path(self._home, diff_id)), _FEW + 1))
        return Compression.GZIP if len(some) > _FEW or shrink(some) else Compression.NONE

    def _pack(self, diff_id: DiffId, entries: Iterator[Entry], packing: Packing) -> None:
        with packing.sink() as tar:
            join(entries, tar, None)
            _expect(tar.finish(), diff_id)

    def _sources(self, diff_id: DiffId, *, allow_none: bool = False) -> list[tuple[Digest, str, str, int, int]]:
        """Return the blobs of the layer, verified ones first."""
        rows = self._home.db.rows(
            "SELECT digest, compression, media_type, size, verified FROM packed WHERE diff_id = ?"
            " ORDER BY verified DESC, compression, digest",
            (diff_id,),
        )
        if not rows and not allow_none:
            raise NotFound(
                f"the store has neither tree nor blob of layer {diff_id}", hint="build or pull the image again"
            )
        return [(Digest(digest), *rest) for digest, *rest in rows]

    def _alone(self, diff_id: DiffId) -> contextlib.AbstractContextManager[None]:
        return hold(self._home.disk.path(b"locks", b"layer-" + diff_id.hex.encode()))


def _expect(found: DiffId, diff_id: DiffId) -> None:
    if found != diff_id:
        raise CorruptContent(
            f"the tree of layer {diff_id} is damaged: it makes {found}",
            hint="run `pybuild store check` and build the image again",
        )


class _Hashed:
    """A tar that is hashed while it is read."""

    def __init__(self, content: Decompressed) -> None:
        self._content = content
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, size: int = -1, /) -> bytes:
        data = self._content.read(size)
        self._hash.update(data)
        self.size += len(data)
        return data

    def drain(self) -> None:
        """Read what the reader of the tar left: padding after its end."""
        while self.read(CHUNK):
            pass

    @property
    def diff_id(self) -> DiffId:
        return DiffId("sha256:" + self._hash.hexdigest())


def _drain(file: BinaryIO) -> None:
    while file.read(CHUNK):
        pass

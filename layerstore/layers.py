"""Layers: made from an upper directory, from entries, or adopted from outside; either form from the other on demand.

A layer made here has the tar that `arrange` and `tarwrite` define, a pure function of its tree. A layer from outside
has the tar somebody else wrote, so its blob is what it is made of and its tree is only unpacked from it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from enum import Flag
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from layerstore.arrange import arrange
from layerstore.changes import scan
from layerstore.compress import Compression, detect
from layerstore.digest import DiffId, Digest
from layerstore.durable import step
from layerstore.entry import Entry, Kind, Stream
from layerstore.errors import CorruptContent, NotFound, StoreError, unusable
from layerstore.join import TarSink, join
from layerstore.marks import unmask
from layerstore.packing import Packer, Packing, delta_path, record_blob, small_path, tree_path
from layerstore.smallfiles import SmallFiles, SmallFilesWriter
from layerstore.treewrite import TreeWriter
from layerstore.version import Contents, Listing, Version, can_be_listed, missing, pack, unpack, whiteouts
from layerstore.view import View
from layerstore.xattrs import strip

if TYPE_CHECKING:
    from layerstore.blobs import Blobs
    from layerstore.growing import Watch
    from layerstore.home import Home
    from layerstore.lowers import Lowers
    from layerstore.oci import Descriptor

_WORTH_A_TREE = 4
"""A delta that holds more than this part of its layer is the last one over its base."""

_MOST_VALUES = 500
"""Of one statement; SQLite before 3.32 takes 999."""


class Forms(Flag):
    """What a layer is kept as."""

    TREE = 1
    BLOB = 2


class Layer(NamedTuple):
    """A layer of the store; `size` is that of its tar in bytes, None until a layer from outside was unpacked."""

    diff_id: DiffId
    size: int | None
    forms: Forms


class Upper:
    """An upper directory in the making and the work directory overlayfs wants beside it; locked until it is closed."""

    __slots__ = ("_fd", "path", "work")

    def __init__(self, path: Path, work: Path, fd: int) -> None:
        self.path = path
        self.work = work
        self._fd = fd

    def close(self) -> None:
        """Let go of the lock; whatever is still there is litter then."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Layers:
    """Makes, finds and converts layers; part of a Store."""

    def __init__(self, home: Home, blobs: Blobs) -> None:
        self._home = home
        self._blobs = blobs
        self._packer = Packer(home, blobs)

    def prepare(self, lower: View | None = None) -> Upper:
        """Return a new, empty upper directory, with the owner and mode of `lower`'s root (else root's, 0755).

        Give it to `commit` or `discard`.
        """
        disk = self._home.disk
        fd, path = disk.temp_dir(b"work", 0o755)
        work = path + b".work"
        step("mkdir")
        try:
            os.mkdir(work, 0o700)
            root = lower.lstat(b"") if lower is not None else None
            if root is not None:
                os.fchown(fd, root.uid, root.gid)
                os.fchmod(fd, root.mode)
                for name, value in root.xattrs:
                    os.setxattr(fd, name, value)
            else:
                os.fchmod(fd, 0o755)
        except OSError as error:
            os.close(fd)
            disk.remove(path)
            disk.remove(work)
            raise unusable(error, f"create {os.fsdecode(work)}") from error
        return Upper(Path(os.fsdecode(path)), Path(os.fsdecode(work)), fd)

    def commit(self, upper: Upper, lower: View) -> Layer:
        """Make a layer of what a step wrote to `upper` over `lower`; the directory becomes the layer's tree.

        Nothing may write to it any more. StoreError if it holds what no image can.
        """
        path = os.fsencode(upper.path)
        try:
            with self._tar() as tar:
                join(scan(path, lower), tar.sink, None)
                diff_id = tar.finish()
            return self._keep(diff_id, tar, tree=path)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise StoreError(
                "the step made a path that is too long for an image", hint="PATH_MAX is 4096 bytes, the root included"
            ) from error
        finally:
            self.discard(upper)

    def discard(self, upper: Upper) -> None:
        """Remove an upper directory whose step failed, and its work directory."""
        self._home.disk.remove(os.fsencode(upper.path))
        self._home.disk.remove(os.fsencode(upper.work))
        upper.close()

    def write(
        self,
        entries: Iterable[Entry],
        *,
        forms: Forms = Forms.TREE,
        compression: Compression | None = Compression.NONE,
        level: int | None = None,
        contents: Contents | None = None,
        like: DiffId | None = None,
    ) -> Layer:
        """Make a layer of `entries`, in any order that has parents before children and targets before links.

        The tar is that of `arrange`: sorted, so that the same content makes the same layer. Where an entry's data comes
        from a Stream it cannot be sorted before it is read: such a layer goes through its tree whatever `forms` says.
        Without `compression`, a blob is compressed (zstd) unless that seems to be in vain, which follows from its data.
        `contents` gets the digest of each file that was read. With them, a layer that `like` is an earlier version of
        has a tree that only holds what is not in that one's.
        SourceChanged if a file changes while it is read; UnsafeLayer, StoreError for what no layer can hold.
        """
        waiting: list[Entry] = []
        rest = iter(entries)
        for entry in rest:
            waiting.append(entry)
            if entry.kind is Kind.FILE and isinstance(entry.source, Stream):
                with self._new_tree() as temp, TreeWriter(temp) as tree:
                    join(_unmasked(waiting), None, tree, contents=contents)
                    join(_unmasked(rest), None, tree, contents=contents)
                    tree.finish()
                    with self._tar(forms, compression or Compression.ZSTD, level) as tar:
                        join(scan(temp), tar.sink, None)
                        diff_id = tar.finish()
                    return self._keep(diff_id, tar, tree=temp)
        ordered = arrange(waiting)
        del waiting
        if compression is None and Forms.BLOB in forms:
            from layerstore.pieces import shrink  # noqa: PLC0415 - only where a blob is made

            compression = Compression.ZSTD if shrink(ordered) else Compression.NONE
        with contextlib.ExitStack() as stack:
            path = stack.enter_context(self._new_tree()) if Forms.TREE in forms else None
            draft = small = None
            with self._tar(forms, compression or Compression.NONE, level) as tar:
                if path is None:
                    join(ordered, tar.sink, None, contents=contents)
                else:
                    if contents is not None and can_be_listed(ordered):
                        draft = self._draft(ordered, like)
                        if draft.like is not None and contents.known:
                            contents.old = stack.enter_context(SmallFiles(small_path(self._home, draft.like)))
                        if draft.base is None:
                            fd, small = stack.enter_context(self._home.disk.temp_file())
                            contents.new = SmallFilesWriter(fd)
                    with TreeWriter(path) as tree:
                        if draft is not None and draft.gone:
                            join(whiteouts(draft.gone, ordered), None, tree)
                        join(ordered, tar.sink, tree, contents=contents, version=draft and draft.version)
                        tree.finish()
                    if contents is not None and contents.new is not None:
                        contents.new.finish()
                diff_id = tar.finish()
            return self._keep(diff_id, tar, tree=path, draft=draft, small=small)

    def adopt(self, digest: Digest, media_type: str, diff_id: DiffId, size: int) -> Layer:
        """Take over a layer from outside: the blob `digest` (already put; `size` bytes), said to be `diff_id`.

        Whether it is, shows when it is first used (`tree`, `blob`): CorruptContent, and the blob is forgotten.
        """
        known = self._blobs.size(digest)
        if known is None:
            raise NotFound(f"the store has no blob {digest}")
        if known != size:
            raise CorruptContent(f"blob {digest} has {known} bytes where {size} were announced")
        with self._blobs.open(digest) as file:
            compression = detect(file.read(4))
        home = self._home
        with home.db.transaction():
            home.db.write(
                "INSERT INTO layers(diff_id, size, tree, outside, used, boot) VALUES (?, -1, 0, 1, ?, ?)"
                " ON CONFLICT(diff_id) DO UPDATE SET used = excluded.used",
                (diff_id, home.clock(), home.boot),
            )
            home.db.write(
                "INSERT OR IGNORE INTO packed(diff_id, digest, compression, media_type, size, verified)"
                " VALUES (?, ?, ?, ?, ?, 0)",
                (diff_id, digest, compression.value, media_type, size),
            )
        layer = self.find(diff_id)
        assert layer is not None
        return layer

    def find(self, diff_id: DiffId) -> Layer | None:
        """Return the layer if it is here; a lease keeps it from gc."""
        db = self._home.db
        if not db.write("UPDATE layers SET used = ? WHERE diff_id = ?", (self._home.clock(), diff_id)):
            return None
        row = db.row(
            "SELECT size, tree OR EXISTS(SELECT 1 FROM deltas WHERE deltas.diff_id = layers.diff_id),"
            " EXISTS(SELECT 1 FROM packed WHERE packed.diff_id = layers.diff_id)"
            " FROM layers WHERE diff_id = ?",
            (diff_id,),
        )
        if row is None:
            return None
        forms = (Forms.TREE if row[1] else Forms(0)) | (Forms.BLOB if row[2] else Forms(0))
        return Layer(diff_id, row[0] if row[0] >= 0 else None, forms)

    def tree(self, diff_id: DiffId) -> Path:
        """Return the layer's whole tree, made if it is missing. NotFound, CorruptContent, UnsafeLayer."""
        trees = self._trees((diff_id,))
        if len(trees) > 1:
            self._packer.unpack(diff_id)
            trees = self._trees((diff_id,))
        return trees[0]

    def view(self, diff_ids: Sequence[DiffId], *, below: View | None = None) -> View:
        """Return the merged view of layers, lowest first; trees are made where they are missing. Errors as `tree`.

        `below` is the view of all but the uppermost, if that was made since the lease began.
        """
        if below is not None:
            trees = self._trees(diff_ids[-1:])
            if len(trees) == 1:
                return below.upon(trees[0])
        return View(self._trees(diff_ids))

    def lowers(self) -> Lowers:
        """Return what says which directories to mount for views, for as long as a lease keeps their layers."""
        from layerstore.lowers import Lowers  # noqa: PLC0415 - for what executes steps

        return Lowers(self._home)

    def blob(self, diff_id: DiffId, compression: Compression | None = None, *, level: int | None = None) -> Descriptor:
        """Return the layer's blob, packed if it is missing.

        Without `compression` any that is here, else gzip, or the tar itself where compressing it seems to be in vain.
        A `level` only counts where a blob is made. NotFound, CorruptContent.
        """
        return self._packer.blob(diff_id, compression, level)

    @contextlib.contextmanager
    def watched(self, watch: Watch) -> Iterator[None]:
        """While the block lasts, tell `watch` of each blob of a layer that is made here, as soon as it is large."""
        before, self._packer.watch = self._packer.watch, watch
        try:
            yield
        finally:
            self._packer.watch = before

    def _trees(self, diff_ids: Sequence[DiffId]) -> list[Path]:
        """Return the trees whose merged content is that of the layers: one for each, two for one kept as a delta."""
        home = self._home
        deltas: dict[DiffId, tuple[DiffId, list[bytes]]] = {}
        missing = []
        for diff_id, (tree, below, hidden) in self._claimed(list(dict.fromkeys(diff_ids))).items():
            if not tree and below:
                deltas[diff_id] = DiffId(below), hidden.split(b"\0") if hidden else []
            elif not tree:
                missing.append(diff_id)
        for diff_id in missing:
            self._packer.unpack(diff_id)
        trees: list[Path] = []
        for diff_id in diff_ids:
            base, gone = deltas.get(diff_id, (None, []))
            if base is not None and gone and _any_there(gone, trees):
                # What the delta hides of its base it would hide of the layers below, too.
                self._packer.unpack(diff_id)
                base = None
            if base is None:
                trees.append(_path(tree_path(home, diff_id)))
            else:
                trees += [_path(tree_path(home, base)), _path(delta_path(home, diff_id))]
        return trees

    def _claimed(self, diff_ids: Sequence[DiffId]) -> dict[DiffId, tuple[int, str | None, bytes | None]]:
        """Return whether there is a whole tree of each layer, and its base and what that has too much; kept by a lease.

        NotFound.
        """
        home = self._home
        rows = self._kept_as(diff_ids)
        if not all(diff_id in rows and home.is_claimed(rows[diff_id][3]) for diff_id in diff_ids):
            now = home.clock()
            with home.db.transaction():
                for diff_id in diff_ids:
                    home.db.write("UPDATE layers SET used = ? WHERE diff_id = ?", (now, diff_id))
                rows = self._kept_as(diff_ids)
        for diff_id in diff_ids:
            if diff_id not in rows:
                raise NotFound(f"the store has no layer {diff_id}", hint="build or pull the image again")
        return {diff_id: rows[diff_id][:3] for diff_id in diff_ids}

    def _kept_as(self, diff_ids: Sequence[DiffId]) -> dict[DiffId, tuple[int, str | None, bytes | None, int]]:
        found: dict[DiffId, tuple[int, str | None, bytes | None, int]] = {}
        for at in range(0, len(diff_ids), _MOST_VALUES):
            some = diff_ids[at : at + _MOST_VALUES]
            marks = ", ".join("?" * len(some))
            rows = self._home.db.rows(
                "SELECT diff_id, tree, base, gone, used FROM layers LEFT JOIN deltas USING (diff_id)"  # noqa: S608
                f" WHERE diff_id IN ({marks})",
                some,
            )
            found.update({DiffId(diff_id): (tree, base, gone, used) for diff_id, tree, base, gone, used in rows})
        return found

    def _draft(self, ordered: list[Entry], like: DiffId | None) -> _Draft:
        """Return how to write a tree: as a delta over that of `like`, or over what that one is a delta of, or whole."""
        base, listing = self._base(like) if like is not None else (None, {})
        gone = missing(listing, ordered) if base is not None else None
        if base is None or gone is None:
            return _Draft(Version(), None, (), base)
        return _Draft(Version(listing), base, gone, base)

    def _base(self, like: DiffId) -> tuple[DiffId | None, Listing]:
        """Return the layer with a whole tree to take as the base of a version of `like`, with its listing."""
        db = self._home.db
        row = db.row("SELECT base, written, total FROM deltas WHERE diff_id = ?", (like,))
        if row is not None and row[1] * _WORTH_A_TREE > row[2]:
            return None, {}
        base = DiffId(row[0]) if row is not None else like
        found = db.row(
            "SELECT data FROM listings JOIN layers USING (diff_id) WHERE diff_id = ? AND tree = 1 AND outside = 0",
            (base,),
        )
        # A lease keeps what was used since it began.
        if found is None or self.find(base) is None:
            return None, {}
        return base, unpack(found[0])

    @contextlib.contextmanager
    def _new_tree(self) -> Iterator[bytes]:
        """Give a new directory for a tree; it is gone afterwards unless it was kept."""
        disk = self._home.disk
        fd, path = disk.temp_dir(mode=0o755)
        try:
            os.fchmod(fd, 0o755)
            yield path
        finally:
            disk.remove(path)
            os.close(fd)

    @contextlib.contextmanager
    def _tar(
        self, forms: Forms = Forms.TREE, compression: Compression = Compression.NONE, level: int | None = None
    ) -> Iterator[_Tar]:
        """Give a tar to hash, which is written to a blob as well if `forms` asks for one."""
        with contextlib.ExitStack() as stack:
            packing = None
            if Forms.BLOB in forms:
                packing = Packing(stack.enter_context(self._blobs.new(watch=self._packer.watch)), compression, level)
            tar = _Tar(packing)
            stack.enter_context(tar.sink)
            yield tar

    def _keep(
        self, diff_id: DiffId, tar: _Tar, *, tree: bytes | None, draft: _Draft | None = None, small: bytes | None = None
    ) -> Layer:
        """Record the layer that `tar` was the tar of, and move its tree, and its small files, to where trees are."""
        home = self._home
        size = tar.sink.size
        base = draft.base if draft is not None else None
        stale = None
        with home.db.transaction():
            row = home.db.row(
                "SELECT tree, base FROM layers LEFT JOIN deltas USING (diff_id) WHERE diff_id = ?", (diff_id,)
            )
            had_whole, had_delta = (bool(row[0]), bool(row[1])) if row is not None else (False, False)
            has_tree = had_whole or had_delta
            if tree is not None and not has_tree:
                final = tree_path(home, diff_id) if base is None else delta_path(home, diff_id)
                stale = home.disk.move_aside(final) if os.path.lexists(final) else None
                home.disk.keep(tree, final)
                if small is not None:
                    home.disk.keep(small, small_path(home, diff_id))
            whole = tree is not None and base is None
            home.db.write(
                "INSERT INTO layers(diff_id, size, tree, outside, used, boot) VALUES (?, ?, ?, 0, ?, ?)"
                " ON CONFLICT(diff_id) DO UPDATE SET size = excluded.size, tree = max(tree, excluded.tree),"
                " used = excluded.used, boot = excluded.boot, outside = 0",
                (diff_id, size, int(whole and not has_tree), home.clock(), home.boot),
            )
            if draft is not None:
                self._record(diff_id, draft, whole=had_whole if has_tree else whole, known=has_tree)
            if tar.packing is not None:
                record_blob(home, diff_id, tar.packing)
        if stale is not None:
            home.disk.remove(stale)
        forms = (Forms.TREE if tree is not None or has_tree else Forms(0)) | (
            Forms.BLOB if tar.packing is not None else Forms(0)
        )
        return Layer(diff_id, size, forms)

    def _record(self, diff_id: DiffId, draft: _Draft, *, whole: bool, known: bool) -> None:
        """Record what the next version of the layer can be told apart from, and how its tree was written."""
        db, version = self._home.db, draft.version
        if whole:
            db.write("INSERT OR IGNORE INTO listings VALUES (?, ?)", (diff_id, pack(version.listing)))
        elif not known:
            db.write(
                "INSERT INTO deltas(diff_id, base, gone, written, total) VALUES (?, ?, ?, ?, ?)",
                (diff_id, draft.base, b"\0".join(draft.gone), version.written, len(version.listing)),
            )


class _Draft(NamedTuple):
    """A tree in the making: whole, or what is to be added to that of `base`, of which the paths `gone` are hidden.

    `like` is an earlier version with a whole tree, whether it is the base or too different.
    """

    version: Version
    base: DiffId | None
    gone: tuple[bytes, ...]
    like: DiffId | None


class _Tar:
    """The tar of a layer in the making, with the blob it is written to, if any."""

    def __init__(self, packing: Packing | None = None) -> None:
        self.packing = packing
        self.sink = TarSink() if packing is None else packing.sink()

    def finish(self) -> DiffId:
        """End tar and blob; return the diff ID."""
        diff_id = self.sink.finish()
        if self.packing is not None:
            self.packing.end()
        return diff_id


def _path(host: bytes) -> Path:
    return Path(os.fsdecode(host))


def _any_there(paths: Iterable[bytes], trees: Sequence[Path]) -> bool:
    """Say whether `trees`, merged, have anything at one of `paths`."""
    view = View(trees)
    return bool(trees) and any(view.lstat(path) is not None for path in paths)


def _unmasked(entries: Iterable[Entry]) -> Iterator[Entry]:
    for entry in entries:
        plain = unmask(entry)
        if plain is not None:
            yield plain if not plain.xattrs else plain._replace(xattrs=strip(plain.xattrs))

"""`store check`: recomputes everything that is recorded, by other code than what wrote it where that is possible.

Layers from outside are compared member by member with the tar in their blob, read by the standard library; trees made
here are hashed again. All faults are listed, not the first only; nothing is changed.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple, cast

from layerstore import xattrs
from layerstore.changes import scan
from layerstore.compress import CHUNK, Decompressed
from layerstore.digest import DiffId, Digest
from layerstore.errors import StoreError
from layerstore.home import Home
from layerstore.join import TarSink, join
from layerstore.marks import MARK, OPAQUE_MARK
from layerstore.packing import delta_entries
from layerstore.recover import DELTA, SMALL
from layerstore.view import is_whiteout

if TYPE_CHECKING:
    import tarfile

    from layerstore.entry import Entry

_XATTR = "SCHILY.xattr."


class Fault(NamedTuple):
    """Something that is wrong: `what` it concerns (a digest, a name, a path) and in which way."""

    what: str
    fault: str


def check(home: Home) -> list[Fault]:
    """Return all faults of the store; none means that every image, layer, blob and record is what it should be."""
    return [*_database(home), *_blobs(home), *_layers(home), *_images(home), *_cache(home), *_strays(home)]


def _database(home: Home) -> Iterator[Fault]:
    for fault in home.db.faults():
        yield Fault("store.db", fault)


def _blobs(home: Home) -> Iterator[Fault]:
    for digest, size in home.db.rows("SELECT digest, size FROM blobs ORDER BY digest"):
        path = home.disk.path(b"blobs/sha256", digest[7:].encode())
        try:
            with open(path, "rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
                length = file.tell()
        except OSError as error:
            yield Fault(digest, f"the blob cannot be read: {error.strerror}")
            continue
        if found != digest[7:]:
            yield Fault(digest, f"the blob's content has the digest sha256:{found}")
        if length != size:
            yield Fault(digest, f"the blob has {length} bytes, its record says {size}")
    for digest, diff_id in home.db.rows(
        "SELECT digest, diff_id FROM packed"
        " WHERE NOT EXISTS(SELECT 1 FROM layers WHERE layers.diff_id = packed.diff_id)"
        " OR NOT EXISTS(SELECT 1 FROM blobs WHERE blobs.digest = packed.digest)"
    ):
        yield Fault(digest, f"the record that it holds layer {diff_id} points to nothing")


def _layers(home: Home) -> Iterator[Fault]:
    for diff_id, base in home.db.rows(
        "SELECT diff_id, base FROM deltas WHERE NOT EXISTS"
        "(SELECT 1 FROM layers WHERE layers.diff_id = deltas.base AND tree = 1 AND outside = 0)"
    ):
        yield Fault(diff_id, f"the tree of {base}, which the layer's tree adds to, is missing")
    rows = home.db.rows(
        "SELECT diff_id, size, tree, outside, base FROM layers LEFT JOIN deltas USING (diff_id) ORDER BY diff_id"
    )
    for text, size, tree, outside, base in rows:
        diff_id = DiffId(text)
        packed = home.db.rows("SELECT digest FROM packed WHERE diff_id = ? ORDER BY digest", (diff_id,))
        if not packed and not base and not (tree and not outside):
            yield Fault(diff_id, "the layer has neither a tree of its own nor a blob")
        if tree and not outside:
            yield from _own_tree(diff_id, size, scan(home.disk.path(b"trees", diff_id.hex.encode())))
        if base:
            yield from _own_tree(diff_id, size, delta_entries(home, diff_id, DiffId(base)))
        for number, (digest,) in enumerate(packed):
            try:
                yield from _packed(home, diff_id, Digest(digest), compare=bool(tree and outside and number == 0))
            except (OSError, StoreError, ValueError, RecursionError) as error:
                yield Fault(diff_id, f"blob {digest} cannot be read as a layer: {error}")


def _own_tree(diff_id: DiffId, size: int, entries: Iterator[Entry]) -> Iterator[Fault]:
    tar = TarSink()
    try:
        join(entries, tar, None)
    except (OSError, StoreError) as error:
        yield Fault(diff_id, f"the tree cannot be read: {error}")
        return
    found = tar.finish()
    if found != diff_id:
        yield Fault(diff_id, f"the tree makes the layer {found}")
    elif tar.size != size:
        yield Fault(diff_id, f"the layer's tar has {tar.size} bytes, its record says {size}")


def _packed(home: Home, diff_id: DiffId, digest: Digest, *, compare: bool) -> Iterator[Fault]:
    """Check that a blob holds the layer, and that the tree holds what the blob does."""
    with open(home.disk.path(b"blobs/sha256", digest.hex.encode()), "rb") as file:
        tar = _Hashing(Decompressed(file))
        if compare:
            yield from _compare(home, diff_id, tar)
        while tar.read(CHUNK):
            pass
    if "sha256:" + tar.hash.hexdigest() != diff_id:
        yield Fault(diff_id, f"blob {digest} holds the layer sha256:{tar.hash.hexdigest()}")


class _Hashing(io.RawIOBase):
    def __init__(self, content: Decompressed) -> None:
        super().__init__()
        self._content = content
        self.hash = hashlib.sha256()

    def read(self, size: int = -1, /) -> bytes:
        parts = []
        while size:
            data = self._content.read(size)
            if not data:
                break
            parts.append(data)
            size -= len(data)
        data = b"".join(parts)
        self.hash.update(data)
        return data


def _compare(home: Home, diff_id: DiffId, stream: _Hashing) -> Iterator[Fault]:
    """Compare the tree with the members of its tar, as the standard library reads them."""
    import tarfile  # noqa: PLC0415 - the other route

    root = home.disk.path(b"trees", diff_id.hex.encode())
    last: dict[bytes, tarfile.TarInfo] = {}
    contents: dict[bytes, str] = {}
    try:
        with tarfile.open(fileobj=cast("io.BufferedReader", stream), mode="r|", errorlevel=2) as archive:
            for member in archive:
                path = b"/".join(part for part in os.fsencode(member.name).split(b"/") if part not in (b"", b"."))
                last[path] = member
                if member.isreg():
                    data = archive.extractfile(member)
                    assert data is not None
                    contents[path] = hashlib.file_digest(cast("io.BytesIO", data), "sha256").hexdigest()
    except tarfile.TarError as error:
        raise StoreError(f"it is no tar: {error}") from error
    plain = {path for path in last if not path.rpartition(b"/")[2].startswith(MARK)}
    known = plain | {path[:at] for path in last for at, byte in enumerate(path) if byte == 47} | {b""}
    gone = set()
    for path, member in last.items():
        parent, slash, name = path.rpartition(b"/")
        if name == OPAQUE_MARK:
            if not xattrs.read(root + slash + parent)[1]:
                yield Fault(diff_id, f"/{os.fsdecode(parent)} in the tree is not opaque")
        elif name.startswith(MARK) and not name.startswith(MARK + MARK):
            gone.add(parent + slash + name[len(MARK) :])
        elif path and not name.startswith(MARK) and (fault := _member(root, path, member, contents, last)):
            yield Fault(diff_id, f"/{os.fsdecode(path)} in the tree {fault}")
    for path in sorted(gone - known):
        if not _is_whiteout(root + b"/" + path):
            yield Fault(diff_id, f"the tree lacks the whiteout of /{os.fsdecode(path)}")
    for path in _paths(root):
        if path not in known and path not in gone:
            yield Fault(diff_id, f"/{os.fsdecode(path)} in the tree is not in the blob")


def _is_whiteout(host: bytes) -> bool:
    try:
        return is_whiteout(os.lstat(host))
    except OSError:
        return False


def _paths(root: bytes) -> Iterator[bytes]:
    todo = [b""]
    while todo:
        at = todo.pop()
        with os.scandir(root + b"/" + at) as items:
            for item in items:
                path = at + b"/" + item.name if at else item.name
                yield path
                if item.is_dir(follow_symlinks=False):
                    todo.append(path)


def _member(
    root: bytes,
    path: bytes,
    member: tarfile.TarInfo,
    contents: dict[bytes, str],
    last: dict[bytes, tarfile.TarInfo],
) -> str:
    """Return what is wrong with a path of the tree, "" if nothing is."""
    host = root + b"/" + path
    try:
        status = os.lstat(host)
        if member.islnk():
            target = os.fsencode(member.linkname).strip(b"/").removeprefix(b"./")
            if (
                target in last
                and last[target].offset < member.offset
                and not os.path.samestat(status, os.lstat(root + b"/" + target))
            ):
                return f"is no link to /{os.fsdecode(target)}"
            return ""
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if member.ischr() and member.devmajor == member.devminor == 0:
        return "" if is_whiteout(status) or stat.S_ISDIR(status.st_mode) else "is no whiteout"
    return (
        _kind(status, member)
        or _attributes(host, status, member)
        or (_content(host, contents[path]) if member.isreg() else "")
    )


def _kind(status: os.stat_result, member: tarfile.TarInfo) -> str:
    kinds = (
        (member.isreg(), stat.S_IFREG),
        (member.isdir(), stat.S_IFDIR),
        (member.issym(), stat.S_IFLNK),
        (member.ischr(), stat.S_IFCHR),
        (member.isblk(), stat.S_IFBLK),
        (member.isfifo(), stat.S_IFIFO),
    )
    if stat.S_IFMT(status.st_mode) not in [kind for applies, kind in kinds if applies]:
        return "is of another type"
    device = (os.major(status.st_rdev), os.minor(status.st_rdev))
    if (member.ischr() or member.isblk()) and device != (member.devmajor, member.devminor):
        return f"is the device {device[0]}:{device[1]}"
    return ""


def _attributes(host: bytes, status: os.stat_result, member: tarfile.TarInfo) -> str:
    if (status.st_uid, status.st_gid) != (member.uid, member.gid):
        return f"belongs to {status.st_uid}:{status.st_gid}, not {member.uid}:{member.gid}"
    if member.issym():
        if os.readlink(host) != os.fsencode(member.linkname):
            return "leads elsewhere"
    elif stat.S_IMODE(status.st_mode) != member.mode & 0o7777:
        return f"has mode {stat.S_IMODE(status.st_mode):o}, not {member.mode:o}"
    # The library reads times as floats; out of this range file systems differ.
    if 0 <= member.mtime < 1 << 33 and abs(status.st_mtime - member.mtime) > 1:
        return "has another time"
    wanted = [
        (os.fsencode(key[len(_XATTR) :]), value.encode("utf-8", "surrogateescape"))
        for key, value in member.pax_headers.items()
        if key.startswith(_XATTR)
    ]
    return "" if xattrs.strip(tuple(wanted)) == xattrs.read(host)[0] else "has other attributes"


def _content(host: bytes, digest: str) -> str:
    with open(host, "rb") as file:
        return "" if hashlib.file_digest(file, "sha256").hexdigest() == digest else "has other content"


def _images(home: Home) -> Iterator[Fault]:
    import json  # noqa: PLC0415 - only `pybuild store check` needs it

    present = {text for (text,) in home.db.rows("SELECT diff_id FROM layers")}
    blobs = {text for (text,) in home.db.rows("SELECT digest FROM blobs")}
    for identity, config, layers, manifest in home.db.rows("SELECT id, config, layers, manifest FROM images"):
        if Digest.of(config) != identity:
            yield Fault(identity, "the image's config has another digest")
        for diff_id in json.loads(layers):
            if diff_id not in present:
                yield Fault(identity, f"the image's layer {diff_id} is missing")
        if manifest is not None and manifest not in blobs:
            yield Fault(identity, f"the image's manifest {manifest} is missing")
    for identity, members, manifest in home.db.rows("SELECT id, members, manifest FROM indexes"):
        if Digest.of(members.encode()) != identity:
            yield Fault(identity, "the index's list of images has another digest")
        for _, member in json.loads(members):
            if home.db.row("SELECT 1 FROM images WHERE id = ?", (member,)) is None:
                yield Fault(identity, f"the index's image {member} is missing")
        if manifest is not None and manifest not in blobs:
            yield Fault(identity, f"the index's document {manifest} is missing")
    for name, identity in home.db.rows(
        "SELECT name, image FROM names WHERE image NOT IN (SELECT id FROM images UNION SELECT id FROM indexes)"
    ):
        yield Fault(name, f"the name points to {identity}, which is no image")


def _cache(home: Home) -> Iterator[Fault]:
    import json  # noqa: PLC0415 - only `pybuild store check` needs it

    for key, facts, ingredients, result in home.db.rows("SELECT key, facts, ingredients, result FROM cache"):
        try:
            json.loads(facts), json.loads(ingredients), json.loads(result)
        except ValueError as error:
            yield Fault(key, f"the cache record is damaged: {error}")


def _strays(home: Home) -> Iterator[Fault]:
    """Records whose content is there by name only show above; here is content that no name fits."""
    for place in (b"trees", b"blobs/sha256"):
        for name in os.listdir(home.disk.path(place)):
            plain = name.removesuffix(DELTA).removesuffix(SMALL) if place == b"trees" else name
            if len(plain) != 64 or plain.strip(b"0123456789abcdef"):
                yield Fault(os.fsdecode(place + b"/" + name), "does not belong here")

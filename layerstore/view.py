"""A chain of trees seen as one file system, without mounting it; read-only, immutable as its trees are.

Follows overlayfs: a 0:0 character device removes a name, an opaque directory hides what lies below, a directory is
merged with those below it, anything else replaces them (Linux Documentation/filesystems/overlayfs.rst).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from layerstore import xattrs
from layerstore.entry import KINDS, Entry, Kind
from layerstore.errors import StoreError

_MOST_LINKS = 40
_MOST_KNOWN = 200
"""How many answers a view remembers, and hands on to those made upon it."""


class _Known(NamedTuple):
    """What a view remembers: the roots of its trees, what is merged at directories (topmost first), where paths are."""

    roots: tuple[bytes, ...]
    merged: dict[bytes, tuple[bytes, ...]]
    found: dict[bytes, bytes | None]


class View:
    """The merged content of `trees`, lowest first. In-image paths are bytes relative to the root, which is b""."""

    def __init__(self, trees: Sequence[Path], known: _Known | None = None) -> None:
        if known is None:
            # A tree that occurs twice is hidden by its own upper occurrence, and overlayfs takes a directory only once.
            trees = tuple(reversed(dict.fromkeys(reversed(trees))))
            roots = tuple(os.fsencode(tree) for tree in trees)
            known = _Known(roots, {b"": _until_opaque(roots[::-1])}, {})
        self.trees = tuple(trees)
        self._roots, self._merged, self._handed = known
        self._found: dict[bytes, bytes | None] = {}

    def upon(self, tree: Path) -> View:
        """Return the view with `tree` on top of this one's: what was asked of this one is only looked for there.

        In a chain of hundreds of layers each step asks the same few things of one layer more. What one of them did not
        ask is not handed on.
        """
        root = os.fsencode(tree)
        if root in self._roots:
            return View((*self.trees, tree))
        merged = {b"": (root,) if xattrs.read(root)[1] else (root, *self._merged[b""])}
        found: dict[bytes, bytes | None] = {}
        # Whether the tree has a directory. Those in which it hides what is below are left out, and all that is in them.
        has = {b"": True} if len(merged[b""]) > 1 else {}
        for path, directories in list(self._merged.items())[1:_MOST_KNOWN]:  # the root comes first, parents do always
            parent = path.rpartition(b"/")[0]
            if parent not in has:
                continue
            host = root + b"/" + path
            status = _lstat(host) if has[parent] else None
            if status is None:
                merged[path] = directories
                has[path] = False
            elif not stat.S_ISDIR(status.st_mode):
                merged[path] = ()
            elif xattrs.read(host)[1]:
                merged[path] = (host,)
            else:
                merged[path] = (host, *directories)
                has[path] = True
        for path, below in self._found.copy().items():
            parent = path.rpartition(b"/")[0]
            if parent in has:
                host = root + b"/" + path
                status = _lstat(host) if has[parent] else None
                found[path] = below if status is None else None if is_whiteout(status) else host
        return View((*self.trees, tree), _Known((*self._roots, root), merged, found))

    def lstat(self, path: bytes) -> Entry | None:
        """Return what is at `path`, None if nothing is; no symlink is followed, not in its parents either.

        `.source` is the path on the host. `.inode` is set if the file has more than one link.
        """
        host = self._find(path)
        if host is None:
            return None if path else Entry(b"", Kind.DIR, 0o755)
        return entry_of(host, path, os.lstat(host))

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in the directory `path`, sorted; empty if it is no directory."""
        names: dict[bytes, bool] = {}
        for directory in self._directories(path):
            with os.scandir(directory) as items:
                for item in items:
                    if item.name not in names:
                        names[item.name] = not is_whiteout(item.stat(follow_symlinks=False))
        return sorted(name for name, there in names.items() if there)

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """Return `path` with symlinks followed inside the root, `.` and `..` taken out; a missing tail is kept.

        `..` at the root stays there. StoreError for a loop of symlinks.
        """
        done: list[bytes] = []
        todo = [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
        links = 0
        while todo:
            part = todo.pop()
            if part == b"..":
                del done[-1:]
                continue
            at = b"/".join((*done, part))
            host = self._find(at) if follow_last or todo else None
            if host is None or not stat.S_ISLNK(os.lstat(host).st_mode):
                done.append(part)
                continue
            links += 1
            if links > _MOST_LINKS:
                raise StoreError(f"too many links: /{os.fsdecode(path)} is a loop of symlinks in the image")
            target = os.readlink(host)
            if target.startswith(b"/"):
                done.clear()
            todo.extend(step for step in reversed(target.split(b"/")) if step not in (b"", b"."))
        return b"/".join(done)

    def read(self, path: bytes, *, limit: int = 1 << 20) -> bytes | None:
        """Return the content of a file, at most `limit` bytes of it; None if there is no regular file.

        Symlinks are followed inside the root.
        """
        host = self._find(self.resolve(path))
        if host is None or not stat.S_ISREG(os.lstat(host).st_mode):
            return None
        fd = os.open(host, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            size = min(os.fstat(fd).st_size, limit)
            data = b""
            while len(data) < size and (more := os.read(fd, size - len(data))):
                data += more
        finally:
            os.close(fd)
        return data

    def directories(self, path: bytes) -> tuple[Path, ...]:
        """Return the host directories that are merged at `path`, topmost first: the lowers of an overlay that shows it.

        None if it is no directory.
        """
        return tuple(Path(os.fsdecode(directory)) for directory in self._directories(path))

    def _find(self, path: bytes) -> bytes | None:
        """Return where `path` is on the host."""
        if not path:
            return next(iter(self._merged[b""]), None)
        if path in self._found:
            return self._found[path]
        if path in self._handed:
            return self._found.setdefault(path, self._handed[path])
        parent, _, name = path.rpartition(b"/")
        found = None
        for directory in self._directories(parent):
            host = directory + b"/" + name
            status = _lstat(host)
            if status is not None:
                found = None if is_whiteout(status) else host
                break
        if len(self._found) < _MOST_KNOWN:
            self._found[path] = found
        return found

    def _directories(self, path: bytes) -> tuple[bytes, ...]:
        """Return the directories that are merged at `path`, topmost first; none if it is no directory."""
        known = self._merged.get(path)
        if known is not None:
            return known
        parent, _, name = path.rpartition(b"/")
        found: list[bytes] = []
        for directory in self._directories(parent):
            host = directory + b"/" + name
            status = _lstat(host)
            if status is None:
                continue
            if not stat.S_ISDIR(status.st_mode):
                break
            found.append(host)
            if len(self._merged[b""]) > 1 and xattrs.read(host)[1]:
                break
        self._merged[path] = tuple(found)
        return self._merged[path]


def flatten(view: View) -> Iterator[Entry]:
    """Yield what `view` shows, as a layer of its own would have it: parents first, each directory's names sorted.

    For trees without hard links: each name is a file of its own.
    """
    root = view.lstat(b"")
    if root is not None and (root.mode, root.uid, root.gid, root.xattrs) != (0o755, 0, 0, ()):
        yield root._replace(mtime_ns=0)
    stack = [iter(view.listdir(b""))]
    parents = [b""]
    while stack:
        name = next(stack[-1], None)
        if name is None:
            stack.pop()
            parents.pop()
            continue
        path = parents[-1] + b"/" + name if parents[-1] else name
        entry = view.lstat(path)
        if entry is None:
            continue
        yield entry._replace(inode=None)
        if entry.kind is Kind.DIR:
            stack.append(iter(view.listdir(path)))
            parents.append(path)


def _lstat(host: bytes) -> os.stat_result | None:
    try:
        return os.lstat(host)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
            return None
        raise


def is_whiteout(status: os.stat_result) -> bool:
    """Return whether this is overlayfs's mark for a name that is removed: character device 0:0."""
    return status.st_rdev == 0 and stat.S_ISCHR(status.st_mode)


def entry_of(host: bytes, path: bytes, status: os.stat_result) -> Entry | None:
    """Return the entry for what lies at `host`, called `path` in the image; None for a socket, which no layer holds."""
    kind = KINDS.get(stat.S_IFMT(status.st_mode))
    if kind is None:
        return None
    many = status.st_nlink > 1 and kind is not Kind.DIR
    return Entry(
        path,
        kind,
        stat.S_IMODE(status.st_mode),
        status.st_uid,
        status.st_gid,
        status.st_mtime_ns,
        status.st_size if kind is Kind.FILE else 0,
        os.readlink(host) if kind is Kind.SYMLINK else b"",
        (os.major(status.st_rdev), os.minor(status.st_rdev)) if kind in (Kind.CHAR, Kind.BLOCK) else (0, 0),
        xattrs.read(host)[0],
        host,
        (status.st_dev, status.st_ino) if many else None,
    )


def _until_opaque(roots: Sequence[bytes]) -> tuple[bytes, ...]:
    for count, root in enumerate(roots, 1):
        if count < len(roots) and xattrs.read(root)[1]:
            return tuple(roots[:count])
    return tuple(roots)

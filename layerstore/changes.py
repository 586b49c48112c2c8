"""A directory tree, or the upper directory that overlayfs wrote, as sorted entries of a layer.

Overlayfs's marks become whiteouts and opaque entries, its own attributes vanish, names of one inode become hard links,
sockets are left out: no archive can hold them. The order is that of the path's components, so that it is the same for
every file system.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from layerstore import xattrs
from layerstore.entry import Entry, Kind
from layerstore.errors import StoreError
from layerstore.marks import MARK, unmask
from layerstore.view import entry_of, is_whiteout

if TYPE_CHECKING:
    from layerstore.view import View

_ROOT_MODE = 0o755
_SECOND = 1_000_000_000
_BUFFER = 1 << 20


def scan(root: bytes, lower: View | None = None) -> Iterator[Entry]:
    """Yield what the tree at `root` holds, parents first, each directory's names sorted.

    With `lower`, `root` is an upper directory that is being made into a layer, and is tidied on the way: what is as it
    was before is removed (files, and directories that hold nothing else, whose times are no change), directories made
    anew lose what they lost name by name, and files called like a layer's deletion marks become deletions. The root
    itself is only yielded where it is not plain 0755, root's.
    """
    return _Scan(root, lower).entries()


class _Scan:
    def __init__(self, root: bytes, lower: View | None) -> None:
        self._root = root
        self._lower = lower
        self._links: dict[tuple[int, int], bytes] = {}
        self._held: list[Entry] = []  # directories that are a change only if something below them is

    def entries(self) -> Iterator[Entry]:
        status = os.lstat(self._root)
        marks, opaque = xattrs.read(self._root)
        mode = stat.S_IMODE(status.st_mode)
        entry = Entry(b"", Kind.DIR, mode, status.st_uid, status.st_gid, xattrs=marks, source=self._root)
        if (entry.mode, entry.uid, entry.gid, marks) != (_ROOT_MODE, 0, 0, ()):
            yield entry
        if opaque:
            yield Entry(b"", Kind.OPAQUE)
        yield from self._below(self._root, b"")

    def _below(self, host: bytes, path: bytes) -> Iterator[Entry]:
        """Yield what is below a directory; a stack of listings stands for the recursion."""
        stack = [(host, path, self._list(host, path))]
        while stack:
            host, path, names = stack[-1]
            if not names:
                stack.pop()
                if self._held and self._held[-1].path == path:
                    self._prune(self._held.pop())
                continue
            name = names.pop()
            inner_host, inner = host + b"/" + name, path + b"/" + name if path else name
            status = os.lstat(inner_host)
            if stat.S_ISDIR(status.st_mode):
                yield from self._directory(inner_host, inner, status)
                stack.append((inner_host, inner, self._list(inner_host, inner)))
            elif (entry := self._leaf(inner_host, inner, status)) is not None:
                if self._held:
                    yield from self._release()
                yield entry

    def _list(self, host: bytes, path: bytes) -> list[bytes]:
        """Return the names in a directory, the first in order last."""
        names = os.listdir(host)
        if self._lower is not None and any(name.startswith(MARK) for name in names):
            self._obey_marks(host, path, names)
            names = os.listdir(host)
        names.sort(reverse=True)
        return names

    def _leaf(self, host: bytes, path: bytes, status: os.stat_result) -> Entry | None:
        if is_whiteout(status):
            return Entry(path, Kind.WHITEOUT)
        entry = entry_of(host, path, status)
        if entry is not None and self._lower is not None and self._unchanged(entry, self._lower.lstat(path)):
            self._drop(host, os.unlink)
            return None
        if entry is None or entry.inode is None:
            return entry
        first = self._links.setdefault(entry.inode, path)
        if first == path:
            return entry
        return entry._replace(kind=Kind.HARDLINK, target=first, size=0, rdev=(0, 0), xattrs=())

    def _directory(self, host: bytes, path: bytes, status: os.stat_result) -> Iterator[Entry]:
        marks, opaque = xattrs.read(host)
        below = self._lower.lstat(path) if self._lower is not None else None
        if opaque and self._lower is not None:
            self._merge(host, self._lower.listdir(path))
            opaque = False
        entry = Entry(
            path,
            Kind.DIR,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_mtime_ns,
            xattrs=marks,
            source=host,
        )
        if _same(entry, below):
            self._held.append(entry)
            return
        if self._held:
            yield from self._release()
        yield entry
        if opaque:
            yield Entry(path, Kind.OPAQUE)

    def _merge(self, host: bytes, names: list[bytes]) -> None:
        """Make an opaque directory one that is merged with what was there before, `names`, and shows the same.

        Overlayfs marks a directory that was removed and made again; as containerd has it, what came back is no change.
        """
        before = os.lstat(host)
        here = set(os.listdir(host))
        for name in names:
            inner = host + b"/" + name
            if name not in here:
                os.mknod(inner, stat.S_IFCHR, 0)
            elif stat.S_ISDIR(os.lstat(inner).st_mode):
                xattrs.mark_opaque(inner)  # its turn comes
        xattrs.clear_opaque(host)
        os.utime(host, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _release(self) -> Iterator[Entry]:
        yield from self._held
        self._held.clear()

    def _prune(self, entry: Entry) -> None:
        """Remove a directory that is no change; its parent keeps its times."""
        assert isinstance(entry.source, bytes)
        self._drop(entry.source, os.rmdir)

    def _drop(self, host: bytes, remove: Callable[[bytes], None]) -> None:
        parent = os.path.dirname(host)
        before = os.lstat(parent)
        remove(host)
        os.utime(parent, ns=(before.st_atime_ns, before.st_mtime_ns))

    def _unchanged(self, entry: Entry, below: Entry | None) -> bool:
        """Say whether overlayfs copied a file up that nobody changed: a new link to it does that.

        Files whose times may have been cut to whole seconds are compared byte by byte, as containerd does.
        """
        if below is None or entry[:9] != below[:9] or entry.xattrs != below.xattrs:
            return False
        if entry.kind is not Kind.FILE or entry.mtime_ns % _SECOND:
            return True
        assert isinstance(entry.source, bytes)
        assert isinstance(below.source, bytes)
        return not entry.size or _same_data(entry.source, below.source)

    def _obey_marks(self, host: bytes, path: bytes, names: list[bytes]) -> None:
        """Turn files called `.wh.…` into what they will be for everyone who unpacks the layer."""
        from layerstore.treewrite import TreeWriter  # noqa: PLC0415 - hardly ever

        before = os.lstat(host)
        with TreeWriter(self._root) as tree:
            for name in names:
                if name.startswith(MARK):
                    inner = path + b"/" + name if path else name
                    status = os.lstat(host + b"/" + name)
                    if stat.S_ISDIR(status.st_mode):
                        raise StoreError(
                            f"the step made a directory called /{os.fsdecode(inner)}, which no image can hold",
                            hint=f"choose a name that does not start with {MARK.decode()}",
                        )
                    os.unlink(host + b"/" + name)
                    mark = unmask(Entry(inner, Kind.FILE))
                    if mark is not None:
                        tree.entry(mark)
        os.utime(host, ns=(before.st_atime_ns, before.st_mtime_ns))


def _same_data(one: bytes, other: bytes) -> bool:
    with open(one, "rb", buffering=0) as first, open(other, "rb", buffering=0) as second:
        while data := first.read(_BUFFER):
            if data != second.read(len(data)):
                return False
    return True


def _same(entry: Entry, below: Entry | None) -> bool:
    """Say whether a directory is as it was, but for its time: containerd takes that for no change."""
    return below is not None and entry[:5] == below[:5] and entry.xattrs == below.xattrs

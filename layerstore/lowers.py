"""Which directories to mount for a chain of layers: small ones that lie on top of each other are merged into copies.

The kernel clones every lower's mount for each overlay and looks in all of them for a name that none has, so that a
chain to which each step adds a layer costs the square of its length. Merged are only trees of few plain files,
directories, symlinks and whiteouts: what is shown stays the same, but for numbers of inodes and times of change.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from layerstore.errors import StoreUnusable
from layerstore.view import is_whiteout

if TYPE_CHECKING:
    from layerstore.home import Home
    from layerstore.view import View

_RUN = 32
"""Trees that become one: if they have a file each, making the copy takes as long as mounting them some ten times."""
_PATIENCE = 16
"""Mounts before trees are merged that were there from the first of these on: most builds have no so many steps left."""
_MOST_ENTRIES = 16
_MOST_BYTES = 1 << 16
"""Of a tree that is merged: each entry takes some 80 µs, and a mount is spared 13 µs for each tree."""

# What overlayfs notes of an upper, and does not look at in a lower.
_MEANINGLESS = frozenset({"trusted.overlay.impure", "trusted.overlay.origin", "trusted.overlay.uuid"})
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class _Unfit(Exception):
    """A tree is not small and plain."""


class _Item(NamedTuple):
    """What a merged tree has at a path: a path of the host, and what lstat(2) says of it."""

    source: bytes
    status: os.stat_result


_Items = dict[bytes, _Item]
"""By path below the root, which is b""; parents first."""


class Lowers:
    """The directories to mount for chains of layers, for one build; its copies are gone when it is closed."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._mounts = 0
        self._since: dict[Path, int] = {}  # the mount that was the first with this tree
        self._unfit: set[Path] = set()
        self._merged: dict[tuple[Path, ...], Path] = {}
        self._held: list[tuple[int, bytes]] = []
        self._lock = threading.Lock()

    def of(self, view: View) -> tuple[Path, ...]:
        """Return the directories whose overlay shows `view`, topmost first; what is in them must not change."""
        if len(view.trees) < 2 * _RUN:
            return view.trees[::-1]
        with self._lock:
            self._mounts += 1
            found: list[Path] = []
            run: list[Path] = []
            for tree in view.trees:
                self._since.setdefault(tree, self._mounts)
                if tree in self._unfit:
                    found += run
                    found.append(tree)
                    run = []
                    continue
                run.append(tree)
                if len(run) == _RUN:
                    found += self._merge(tuple(run))
                    run = []
            return (*found, *run)[::-1]

    def close(self) -> None:
        """Remove the copies. Nothing may be mounted of them any more."""
        with self._lock:
            held, self._held = self._held, []
            self._merged.clear()
            for fd, path in held:
                self._home.disk.remove(path)
                os.close(fd)

    def _merge(self, trees: tuple[Path, ...]) -> tuple[Path, ...]:
        """Return what to mount for `trees`: a copy, or all of them where that is not worth while or not possible."""
        merged = self._merged.get(trees)
        if merged is not None:
            return (merged,)
        if self._mounts - self._since[trees[-1]] < _PATIENCE:
            return trees
        try:
            plan, unfit = _plan(trees)
            if unfit:
                self._unfit.update(unfit)
                return trees
            fd, path = self._home.disk.temp_dir(b"work", 0o755)
            self._held.append((fd, path))
            _write(plan, path)
        except (OSError, StoreUnusable):  # the disk is full, say: the step may well do without
            self._unfit.update(trees)
            return trees
        merged = self._merged[trees] = Path(os.fsdecode(path))
        return (merged,)


def _plan(trees: tuple[Path, ...]) -> tuple[_Items, list[Path]]:
    """Return what the merged tree has, and which of `trees`, lowest first, cannot be part of one."""
    plan: _Items = {}
    unfit = []
    for tree in trees:
        try:
            items = _items(os.fsencode(tree))
        except _Unfit:
            unfit.append(tree)
            continue
        # A directory in the place of something else, or the reverse, may hide what lies below the merged trees.
        if any(path in plan and _is_directory(plan[path]) != _is_directory(item) for path, item in items.items()):
            unfit.append(tree)
        else:
            plan.update(items)
    return plan, unfit


def _is_directory(item: _Item) -> bool:
    return stat.S_ISDIR(item.status.st_mode)


def _items(tree: bytes) -> _Items:
    """Return what a tree has. _Unfit unless it is small and plain."""
    found: _Items = {}
    size = 0
    todo = [(b"", tree)]
    while todo:
        path, host = todo.pop()
        status = os.lstat(host)
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            size += status.st_size
        plain = kind in (stat.S_IFDIR, stat.S_IFREG, stat.S_IFLNK) or is_whiteout(status)
        linked = kind in (stat.S_IFREG, stat.S_IFLNK) and status.st_nlink > 1  # overlayfs links its whiteouts
        if not plain or linked or size > _MOST_BYTES or not _MEANINGLESS.issuperset(_attributes(host)):
            raise _Unfit
        found[path] = _Item(host, status)
        if kind == stat.S_IFDIR:
            prefix = path + b"/" if path else b""
            todo += [(prefix + name, host + b"/" + name) for name in os.listdir(host)]
        if len(found) + len(todo) > _MOST_ENTRIES:
            raise _Unfit
    return found


def _attributes(host: bytes) -> list[str]:
    try:
        return os.listxattr(host, follow_symlinks=False)
    except OSError:  # a file system that has none
        return []


def _write(plan: _Items, root: bytes) -> None:
    """Make the directory `root` what was planned. Nobody else writes there, and no path leads through a symlink."""
    for path, (source, status) in plan.items():
        target = root + b"/" + path if path else root
        kind = stat.S_IFMT(status.st_mode)
        if kind == stat.S_IFREG:
            _copy(source, target)
        elif kind == stat.S_IFLNK:
            os.symlink(os.readlink(source), target)
        elif kind == stat.S_IFCHR:
            os.mknod(target, stat.S_IFCHR, 0)
            continue
        elif path:
            os.mkdir(target, 0o700)
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
        if kind != stat.S_IFLNK:
            os.chmod(target, stat.S_IMODE(status.st_mode))
    for path, (_, status) in reversed(plan.items()):
        if not stat.S_ISCHR(status.st_mode):
            times = (status.st_atime_ns, status.st_mtime_ns)
            os.utime(root + b"/" + path, ns=times, follow_symlinks=False)


def _copy(source: bytes, target: bytes) -> None:
    inner = os.open(source, _OPEN)
    try:
        outer = os.open(target, _CREATE, 0o600)
        try:
            while data := os.read(inner, _MOST_BYTES):
                if os.write(outer, data) != len(data):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        finally:
            os.close(outer)
    finally:
        os.close(inner)

"""Entries as an overlay tree: everything by directory descriptors, nothing through a symlink.

A tree is what overlayfs takes as a lower: removed names are 0:0 character devices, opaque directories carry the opaque
attribute. Order of attributes: owner before mode (chown clears set-id bits) and before xattrs (it clears capabilities),
times last, those of directories when nothing more is written into them.
"""

from __future__ import annotations

import errno
import os
import stat
from types import TracebackType

from layerstore.durable import remove_at, step
from layerstore.entry import Entry, Kind
from layerstore.errors import StoreUnusable, UnsafeLayer, unusable
from layerstore.xattrs import OPAQUE

_DIR_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SECOND = 1_000_000_000
_SPARSE = 1 << 16
_ZEROS = bytes(1 << 20)
_NODES = {Kind.CHAR: stat.S_IFCHR, Kind.BLOCK: stat.S_IFBLK, Kind.FIFO: stat.S_IFIFO}


class TreeWriter:
    """Writes entries below the directory `root`; a context manager, whose `finish` sets the directories' times.

    An entry takes the place of an earlier one of the same path, as when a tar is unpacked. UnsafeLayer if a path leads
    through something that is no directory; StoreUnusable if the file system refuses.
    """

    def __init__(self, root: bytes) -> None:
        self._root = os.open(root, _DIR_FLAGS)
        self._parts: list[bytes] = []
        self._fds: list[int] = []
        self._parent = b""
        self._times: dict[bytes, int] = {b"": 0}
        self._file: int | None = None
        self._path = b""
        self._left_hole = False

    def __enter__(self) -> TreeWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            os.close(self._file)
        for fd in self._fds:
            os.close(fd)
        os.close(self._root)

    def entry(self, entry: Entry) -> None:
        """Write one entry that is no FILE."""
        try:
            self._write(entry)
        except OSError as error:
            raise self._words(error, entry.path) from error

    def file(self, entry: Entry, data: bytes) -> None:
        """Write a FILE whose data is at hand."""
        self.open_file(entry)
        if data:
            self.data(data)
        self.close_file(entry)

    def open_file(self, entry: Entry) -> None:
        """Begin a FILE; `data` and `close_file` follow."""
        try:
            parent, name = self._place(entry.path)
            step("open")
            try:
                self._file = os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent)
            except FileExistsError:
                self._take_away(parent, name, entry.path)
                self._file = os.open(name, _FILE_FLAGS, 0o600, dir_fd=parent)
        except OSError as error:
            raise self._words(error, entry.path) from error
        self._path = entry.path
        self._left_hole = False

    def data(self, data: bytes | memoryview) -> None:
        """Append to the FILE; long runs of zeros become holes."""
        assert self._file is not None, "BUG: data without a file"
        try:
            # Comparing two views goes byte by byte; most data is told apart by its ends.
            if len(data) >= _SPARSE and not data[0] and not data[-1] and bytes(data) == _ZEROS[: len(data)]:
                os.lseek(self._file, len(data), os.SEEK_CUR)
                self._left_hole = True
                return
            step("write")
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            self._left_hole = False
        except OSError as error:
            raise self._words(error, self._path) from error

    def close_file(self, entry: Entry) -> None:
        """End the FILE and set its attributes."""
        fd = self._file
        assert fd is not None, "BUG: end without a file"
        try:
            if self._left_hole:
                os.ftruncate(fd, os.lseek(fd, 0, os.SEEK_CUR))
            os.fchown(fd, entry.uid, entry.gid)
            os.fchmod(fd, entry.mode)
            if entry.xattrs:
                _set_attributes(fd, entry)
            seconds = entry.mtime_ns // _SECOND * _SECOND
            os.utime(fd, ns=(seconds, seconds))
        except OSError as error:
            raise self._words(error, entry.path) from error
        finally:
            self._file = None
            os.close(fd)

    def remove(self, path: bytes) -> None:
        """Take a FILE away again."""
        parent, name = self._place(path)
        os.unlink(name, dir_fd=parent)

    def finish(self) -> None:
        """Set the times of all directories; nothing may be written after that."""
        try:
            for path in sorted(self._times, key=lambda path: path.replace(b"/", b"\0")):
                fd = self._directory(path)
                seconds = self._times[path] // _SECOND * _SECOND
                os.utime(fd, ns=(seconds, seconds))
        except OSError as error:
            raise self._words(error, b"") from error

    def _write(self, entry: Entry) -> None:
        path, kind = entry.path, entry.kind
        if kind is Kind.DIR:
            self._make_directory(entry)
            return
        if kind is Kind.OPAQUE:
            self._mark_opaque(self._directory(path))
            return
        parent, name = self._place(path)
        if kind is Kind.WHITEOUT:
            self._whiteout(parent, name, path)
            return
        step("mknod")
        try:
            self._make(entry, parent, name)
        except FileExistsError:
            self._take_away(parent, name, path)
            self._make(entry, parent, name)
        if kind is Kind.HARDLINK:
            return
        os.chown(name, entry.uid, entry.gid, dir_fd=parent, follow_symlinks=False)
        if kind is not Kind.SYMLINK:
            os.chmod(name, entry.mode, dir_fd=parent)
        if entry.xattrs:
            _set_attributes(b"/proc/self/fd/%d/%b" % (parent, name), entry)
        seconds = entry.mtime_ns // _SECOND * _SECOND
        os.utime(name, ns=(seconds, seconds), dir_fd=parent, follow_symlinks=False)

    def _make(self, entry: Entry, parent: int, name: bytes) -> None:
        if entry.kind is Kind.SYMLINK:
            os.symlink(entry.target, name, dir_fd=parent)
        elif entry.kind is Kind.HARDLINK:
            self._link(entry, parent, name)
        else:
            os.mknod(name, _NODES[entry.kind] | 0o600, os.makedev(*entry.rdev), dir_fd=parent)

    def _link(self, entry: Entry, parent: int, name: bytes) -> None:
        above, _, target = entry.target.rpartition(b"/")
        fd = os.dup(parent)  # finding the target's directory may close the parent's descriptor
        try:
            source = self._directory(above, make=False)
            if stat.S_ISDIR(os.stat(target, dir_fd=source, follow_symlinks=False).st_mode):
                raise UnsafeLayer(f"{_shown(entry.path)} is a hard link to a directory")
            os.link(target, name, src_dir_fd=source, dst_dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError as error:
            raise UnsafeLayer(
                f"{_shown(entry.path)} is a hard link to {_shown(entry.target)}, which the layer does not hold"
            ) from error
        finally:
            os.close(fd)

    def _make_directory(self, entry: Entry) -> None:
        path = entry.path
        if path:
            parent, name = self._place(path)
            step("mkdir")
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                    # What was there hid the directories below; the new one has to go on doing so.
                    self._take_away(parent, name, path)
                    os.mkdir(name, 0o700, dir_fd=parent)
                    self._mark_opaque(self._directory(path))
        fd = self._directory(path)
        os.fchown(fd, entry.uid, entry.gid)
        os.fchmod(fd, entry.mode)
        if entry.xattrs:
            _set_attributes(fd, entry)
        self._times[path] = entry.mtime_ns if path else 0

    def _whiteout(self, parent: int, name: bytes, path: bytes) -> None:
        """Mark `name` removed; something of that name in this very layer stays and hides what is below."""
        step("mknod")
        try:
            os.mknod(name, stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        except FileExistsError:
            if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._mark_opaque(self._directory(path))
            return
        os.utime(name, ns=(0, 0), dir_fd=parent, follow_symlinks=False)

    def _mark_opaque(self, fd: int) -> None:
        step("setxattr")
        for name in OPAQUE:
            try:
                os.setxattr(fd, name, b"y")
            except PermissionError:
                continue
            return
        raise StoreUnusable("directories cannot be marked opaque: neither trusted.* nor user.* attributes can be set")

    def _take_away(self, parent: int, name: bytes, path: bytes) -> None:
        """Remove what an earlier entry of the same path left, with all below it."""
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            return
        below = path + b"/"
        for gone in [known for known in self._times if known == path or known.startswith(below)]:
            del self._times[gone]
        remove_at(parent, name)

    def _place(self, path: bytes) -> tuple[int, bytes]:
        """Return a descriptor of the directory that holds `path`, made if missing, and the last name."""
        parent, _, name = path.rpartition(b"/")
        if parent == self._parent:
            return (self._fds[-1] if self._fds else self._root), name
        return self._directory(parent), name

    def _directory(self, path: bytes, *, make: bool = True) -> int:
        """Return a descriptor of the directory `path`, valid until the next call; missing ones are made if `make`.

        A directory that no entry describes is 0755, root's, of time 0.
        """
        parts = path.split(b"/") if path else []
        same = 0
        for old, new in zip(self._parts, parts, strict=False):
            if old != new:
                break
            same += 1
        while len(self._fds) > same:
            os.close(self._fds.pop())
            self._parts.pop()
        fd = self._fds[-1] if self._fds else self._root
        self._parent = b"/".join(self._parts)
        for part in parts[same:]:
            at = self._parent + b"/" + part if self._parent else part
            fd = self._enter(fd, part, at, make=make)
            self._fds.append(fd)
            self._parts.append(part)
            self._parent = at
        return fd

    def _enter(self, fd: int, name: bytes, path: bytes, *, make: bool) -> int:
        try:
            return os.open(name, _DIR_FLAGS, dir_fd=fd)
        except FileNotFoundError:
            if not make:
                raise
            step("mkdir")
            os.mkdir(name, 0o755, dir_fd=fd)
            new = os.open(name, _DIR_FLAGS, dir_fd=fd)
            os.fchown(new, 0, 0)
            os.fchmod(new, 0o755)
            self._times[path] = 0
            return new
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if make and stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
                os.unlink(name, dir_fd=fd)
                new = self._enter(fd, name, path, make=True)
                self._mark_opaque(new)
                return new
            raise UnsafeLayer(f"a path leads through {_shown(path)}, which is no directory") from error

    @staticmethod
    def _words(error: OSError, path: bytes) -> UnsafeLayer | StoreUnusable:
        if error.errno == errno.ENAMETOOLONG:
            return UnsafeLayer(f"{_shown(path)[:80]}… has a name that is too long for a file system")
        if error.errno == errno.EPERM:
            return StoreUnusable(
                f"cannot create {_shown(path)}: {error.strerror}",
                hint="device nodes, owners and some attributes need root; run as root or with subordinate ids",
            )
        return unusable(error, f"create {_shown(path)} in a layer's tree")


def _set_attributes(where: int | bytes, entry: Entry) -> None:
    """Set the extended attributes; UnsafeLayer for one that cannot be, whatever the file system (xattr(7))."""
    for key, value in entry.xattrs:
        try:
            if isinstance(where, int):
                os.setxattr(where, key, value)
            else:
                os.setxattr(where, key, value, follow_symlinks=False)
        except OSError as error:
            if error.errno not in (errno.E2BIG, errno.EINVAL, errno.ERANGE, errno.EOPNOTSUPP):
                raise
            raise UnsafeLayer(
                f"{_shown(entry.path)} has an attribute {os.fsdecode(key)[:80]!r} that cannot be set: {error.strerror}"
            ) from error


def _shown(path: bytes) -> str:
    return "/" + os.fsdecode(path)

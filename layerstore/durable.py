"""The one home of writes that last: unique names, temp then rename, one sync for many.

What is promised after a crash. A killed process loses nothing that `keep` returned for, and leaves
only litter in `tmp/` and `work/` behind. After a power cut the same holds for what `sync` returned for; anything later
may be missing or torn, which is why records carry the boot id until then (docs/design.md "Durability").
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Callable, Iterator

from layerstore.errors import unusable

_BOOT_ID = "/proc/sys/kernel/random/boot_id"

fault: Callable[[str], None] | None = None
"""The seam for tests: called with the name of each system call that changes the store, before it is made."""


def step(name: str) -> None:
    """Announce a system call that changes the store, so that a test can end the process's story there."""
    if fault is not None:
        fault(name)


def boot_id() -> str:
    """Return the kernel's id of this boot; empty where /proc is not mounted, so that nothing counts as synced."""
    try:
        fd = os.open(_BOOT_ID, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, 64).strip().decode()
    finally:
        os.close(fd)


class Disk:
    """The store's directory: makes things under `tmp/` and `work/` and moves them to where they are kept."""

    LAYOUT = (b"", b"blobs", b"blobs/sha256", b"trees", b"work", b"tmp", b"locks")

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._names = itertools.count()
        self._unique = os.urandom(4).hex()

    def create(self) -> None:
        """Make the directories that are missing; StoreUnusable if that cannot be done."""
        try:
            os.makedirs(self.root, 0o711, exist_ok=True)
            for name in self.LAYOUT[1:]:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path(name), 0o711 if name == b"trees" else 0o700)
        except OSError as error:
            raise unusable(error, f"create the store in {os.fsdecode(self.root)}") from error

    def path(self, *parts: bytes) -> bytes:
        """Return the path of something in the store."""
        return b"/".join((self.root, *parts))

    def name(self) -> bytes:
        """Return a name that no other process and no other call uses."""
        return f"{os.getpid():x}-{self._unique}-{next(self._names):x}".encode()

    @contextlib.contextmanager
    def temp_file(self) -> Iterator[tuple[int, bytes]]:
        """Give a new file in `tmp/`, open for writing and locked, with its path; it is gone afterwards unless kept."""
        path = self.path(b"tmp", self.name())
        step("open")
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(error, f"write to {os.fsdecode(path)}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_SH)
            yield fd, path
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
                raise unusable(error, f"write to {os.fsdecode(path)}") from error
            raise
        finally:
            os.close(fd)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)

    def temp_dir(self, where: bytes = b"tmp", mode: int = 0o700) -> tuple[int, bytes]:
        """Make a new directory; return a descriptor that locks it, to be closed, and its path."""
        path = self.path(where, self.name())
        step("mkdir")
        try:
            os.mkdir(path, mode)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise unusable(error, f"create {os.fsdecode(path)}") from error
        fcntl.flock(fd, fcntl.LOCK_SH)
        return fd, path

    def keep(self, temp: bytes, final: bytes) -> None:
        """Rename something finished to where it is kept.

        A file that is there already has the same content and is replaced; a directory must not be there.
        """
        step("rename")
        try:
            os.rename(temp, final)
        except OSError as error:
            raise unusable(error, f"write {os.fsdecode(final)}") from error

    def move_aside(self, path: bytes) -> bytes | None:
        """Take something out of its place in one step, to be removed later; None if it is not there."""
        aside = self.path(b"tmp", b"gone-" + self.name())
        step("rename")
        try:
            os.rename(path, aside)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise unusable(error, f"remove {os.fsdecode(path)}") from error
        return aside

    def remove(self, path: bytes) -> None:
        """Remove a file or a whole directory, never through a symlink; nothing there is fine."""
        step("remove")
        try:
            remove_at(None, path)
        except OSError as error:
            raise unusable(error, f"remove {os.fsdecode(path)}") from error

    def sync(self) -> None:
        """Write everything the store's file system holds in memory to disk (syncfs(2))."""
        import ctypes  # noqa: PLC0415 - 2 ms, loaded when something was made

        step("syncfs")
        fd = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.syncfs(fd) != 0:
                code = ctypes.get_errno()
                raise unusable(OSError(code, os.strerror(code)), f"sync {os.fsdecode(self.root)}")
        finally:
            os.close(fd)


def remove_at(parent: int | None, name: bytes) -> None:
    """Remove `name` in the directory `parent`; descriptors make it impossible to leave it through a symlink."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        pass
    else:
        return
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    else:
        return
    _remove_full(parent, name)


def _remove_full(parent: int | None, name: bytes) -> None:
    """Remove a directory that is not empty, iteratively: one open descriptor per level."""
    stack = [(parent, name, _open_dir(parent, name))]
    try:
        while stack:
            above, called, fd = stack[-1]
            deeper = _empty(fd)
            if deeper is not None:
                stack.append((fd, deeper, _open_dir(fd, deeper)))
                continue
            stack.pop()
            os.close(fd)
            os.rmdir(called, dir_fd=above)
    finally:
        for _, _, fd in stack:
            os.close(fd)


def _open_dir(parent: int | None, name: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        return os.open(name, flags, dir_fd=parent)
    except PermissionError:
        os.chmod(name, 0o700, dir_fd=parent)
        return os.open(name, flags, dir_fd=parent)


def _empty(fd: int) -> bytes | None:
    """Remove what is no full directory from `fd`; return the name of a full one that is left, or None."""
    with contextlib.suppress(OSError):
        if not os.fstat(fd).st_mode & stat.S_IWUSR:
            os.fchmod(fd, 0o700)
    for text in os.listdir(fd):
        name = os.fsencode(text)
        try:
            os.unlink(name, dir_fd=fd)
        except (IsADirectoryError, PermissionError):
            try:
                os.rmdir(name, dir_fd=fd)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return name
    return None

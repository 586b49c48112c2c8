"""The root filesystem of a container: overlay or directory, mount points inside it, pivot, masked and read-only paths.

It knows paths of the host and of the container; it knows no images. Loaded by the launcher, hence plain classes.
"""

from __future__ import annotations

import errno
import os
import stat

from runner import syscalls
from runner.filesystem import new_filesystem
from runner.syscalls import AT_FDCWD

_PATH_FLAGS = os.O_PATH | os.O_CLOEXEC
_MAX_LINKS = 40
_NULL_DEVICE = os.makedev(1, 3)

# What tells whether a directory is as it was: mode, uid, gid, mtime_ns, extended attributes but the overlay's own.
State = tuple[int, int, int, int, tuple[tuple[str, bytes], ...]]
# A point made for a mount: its path below the root, its parent's mtime_ns before and after, and the directories that
# were copied up for it, deepest first, as they were.
Stub = tuple[bytes, int, int, tuple[tuple[bytes, State], ...]]


class Root:
    """The container's root while it is put together: a mount, attached at `place` of the host in this mount namespace.

    `stubs` are the mount points that had to be made, in the order they were.
    """

    def __init__(self, mount_fd: int, place: bytes, upper: bytes, cgroup_paths: dict[bytes, bytes]) -> None:
        self.fd = mount_fd
        self.cgroup_paths = cgroup_paths
        self.stubs: list[Stub] = []
        self._upper = upper
        self._mount_id = 0
        syscalls.move_mount(mount_fd, AT_FDCWD, place)

    def open(self, path: bytes, flags: int = _PATH_FLAGS) -> int:
        """Open `path` below the root; symbolic links and `..` never lead out of it."""
        return syscalls.openat2(self.fd, path or b".", flags, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)

    def attach(self, mount_fd: int, path: bytes, *, directory: bool) -> None:
        """Attach a detached mount at `path`, which is made if it is missing."""
        try:
            target = self.open(path)
        except FileNotFoundError:
            target = self._make(path, directory=directory)
        try:
            syscalls.move_mount(mount_fd, target, b"")
        except OSError as error:
            raise OSError(error.errno, error.strerror, "/" + os.fsdecode(path)) from None
        finally:
            os.close(target)

    def _make(self, path: bytes, *, directory: bool) -> int:
        """Make what is missing of `path`, following links inside the root; return a descriptor of its end."""
        trail = [os.dup(self.fd)]
        names: list[bytes] = []
        todo = [part for part in path.split(b"/") if part and part != b"."][::-1]
        links = 0
        try:
            while todo:
                name = todo.pop()
                if name == b"..":
                    if names:
                        names.pop()
                        os.close(trail.pop())
                    continue
                try:
                    fd = os.open(name, _PATH_FLAGS | os.O_NOFOLLOW, dir_fd=trail[-1])
                except FileNotFoundError:
                    fd = self._create(trail, names, name, directory=directory or bool(todo))
                if stat.S_ISLNK(os.fstat(fd).st_mode):
                    target = os.readlink(b"", dir_fd=fd)
                    os.close(fd)
                    links += 1
                    if links > _MAX_LINKS:
                        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), "/" + os.fsdecode(path))
                    if target.startswith(b"/"):
                        names.clear()
                        while len(trail) > 1:
                            os.close(trail.pop())
                    todo.extend(part for part in reversed(target.split(b"/")) if part and part != b".")
                    continue
                trail.append(fd)
                names.append(name)
            return os.dup(trail[-1])
        finally:
            for fd in trail:
                os.close(fd)

    def _create(self, trail: list[int], names: list[bytes], name: bytes, *, directory: bool) -> int:
        parent = trail[-1]
        before = os.fstat(parent)
        inherited = self._inherited(trail, names) if self._on_root(parent) else None
        # A descriptor made with O_PATH cannot create; the name below it can.
        if directory:
            os.mkdir(name, 0o755, dir_fd=parent)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=parent))
        if inherited is not None:
            after = os.fstat(parent)
            self.stubs.append((b"/".join([*names, name]), before.st_mtime_ns, after.st_mtime_ns, inherited))
        return os.open(name, _PATH_FLAGS | os.O_NOFOLLOW, dir_fd=parent)

    def _on_root(self, fd: int) -> bool:
        """Whether it lies in the root filesystem itself: a point inside another mount is that mount's business."""
        if not self._mount_id:
            self._mount_id = _mount_id(self.fd)
        return _mount_id(fd) == self._mount_id

    def _inherited(self, trail: list[int], names: list[bytes]) -> tuple[tuple[bytes, State], ...]:
        """Return the directories of the trail that are in a lower only: making something there copies them up."""
        found: list[tuple[bytes, State]] = []
        if self._upper:
            for depth in range(len(names), 0, -1):
                path = b"/".join(names[:depth])
                if os.path.lexists(self._upper + b"/" + path):
                    break
                found.append((path, _state(trail[depth])))
        return tuple(found)


def _state(fd: int) -> State:
    status = os.fstat(fd)
    path = f"/proc/self/fd/{fd}"  # a descriptor made with O_PATH has no attributes of its own
    names = [name for name in sorted(os.listxattr(path)) if not name.startswith(("trusted.overlay.", "user.overlay."))]
    attributes = tuple((name, os.getxattr(path, name)) for name in names)
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, attributes


def _mount_id(fd: int) -> int:
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        for line in file:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    raise OSError(errno.ENOENT, "no mount id", f"/proc/self/fdinfo/{fd}")


def pivot(root: Root) -> None:
    """Make `root` the root of this mount namespace and let go of the host's.

    pivot_root(2), "pivot_root(".", ".")": the old root is stacked on the new one and detached from there.
    """
    os.fchdir(root.fd)
    syscalls.pivot_root(b".", b".")
    syscalls.umount2(b".", syscalls.MNT_DETACH)
    os.chdir("/")


def mask(root: Root, paths: tuple[bytes, ...]) -> None:
    """Hide `paths`: a file behind /dev/null, a directory behind an empty read-only tmpfs; missing ones are skipped."""
    for path in paths:
        try:
            target = root.open(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISDIR(os.fstat(target).st_mode):
            cover = new_filesystem(b"tmpfs", b"tmpfs", (b"size=0",), syscalls.MOUNT_ATTR_RDONLY)
        else:
            null = root.open(b"dev/null")
            cover = syscalls.open_tree(null, b"", recursive=False)
            os.close(null)
            if os.fstat(cover).st_rdev != _NULL_DEVICE:
                raise OSError(errno.ENODEV, "is not the null device", "/dev/null")
        syscalls.move_mount(cover, target, b"")
        os.close(cover)
        os.close(target)


def make_read_only(root: Root, paths: tuple[bytes, ...]) -> None:
    """Show `paths` read-only, with all that is mounted below; missing ones are skipped."""
    for path in paths:
        try:
            target = root.open(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        tree = syscalls.open_tree(target, b"", recursive=True)
        syscalls.mount_setattr(tree, recursive=True, set_=syscalls.MOUNT_ATTR_RDONLY)
        syscalls.move_mount(tree, target, b"")
        os.close(tree)
        os.close(target)


def remove_stubs(top: bytes, stubs: list[Stub]) -> None:
    """Take away the mount points that are still empty in `top`, the upper or root directory, after the container ended.

    Parents get their times back if nothing else happened in them, and directories that were copied up only to hold a
    mount point go too: they are not the step's work.
    """
    for path, mtime, made, inherited in reversed(stubs):
        parent, _, name = path.rpartition(b"/")
        try:
            directory = _open_beneath(top, parent)
        except OSError:
            continue
        try:
            _remove_stub(directory, name, mtime, made)
        finally:
            os.close(directory)
        for copied, state in inherited:
            _drop_copied_up(top, copied, state)


def _remove_stub(directory: int, name: bytes, mtime: int, made: int) -> None:
    try:
        entry = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return
    before = os.fstat(directory)
    try:
        if stat.S_ISDIR(entry.st_mode):
            os.rmdir(name, dir_fd=directory)
        elif stat.S_ISREG(entry.st_mode) and entry.st_size == 0:
            os.unlink(name, dir_fd=directory)
        else:
            return
    except OSError as error:
        if error.errno in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT}:
            return
        raise
    restored = mtime if before.st_mtime_ns == made else before.st_mtime_ns
    os.utime(directory, ns=(before.st_atime_ns, restored))


def _open_beneath(top: bytes, path: bytes) -> int:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(top, flags)
    for part in path.split(b"/"):
        if part:
            below = fd
            try:
                fd = os.open(part, flags, dir_fd=below)
            finally:
                os.close(below)
    return fd


def _drop_copied_up(top: bytes, path: bytes, state: State) -> None:
    """Remove the directory `path` of an upper if it is empty and as in the lower: it was copied up for nothing."""
    parent, _, name = path.rpartition(b"/")
    directory = _open_beneath(top, parent)
    try:
        copied = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        unchanged = _state(copied) == state
        os.close(copied)
        if unchanged:
            before = os.fstat(directory)
            os.rmdir(name, dir_fd=directory)
            os.utime(directory, ns=(before.st_atime_ns, before.st_mtime_ns))
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
            raise
    finally:
        os.close(directory)

"""Mounts as data: each operation says what it will do (`describe()`) and does it (`execute()`), in the launcher's fork.

It knows the kernel's mount interfaces and no policy: which mounts a container gets is `runner/plan.py`'s business.
Plain classes with slots, because the launcher imports this module and dataclasses would double its start-up time.
"""

from __future__ import annotations

import os
import stat

from runner import syscalls
from runner.filesystem import new_filesystem
from runner.overlay import overlay
from runner.syscalls import AT_FDCWD

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.rootfs import Root


class Attributes:
    """Flags of one mount: MOUNT_ATTR_* to set and to clear, MS_SHARED … for propagation (0: private)."""

    __slots__ = ("clear", "propagation", "recursive", "set")

    def __init__(self, set_: int = 0, clear: int = 0, propagation: int = 0, recursive: int = 0) -> None:
        self.set = set_
        self.clear = clear
        self.propagation = propagation
        self.recursive = recursive

    def wire(self) -> tuple[int, int, int, int]:
        """Return the constructor's arguments."""
        return self.set, self.clear, self.propagation, self.recursive

    def describe(self) -> str:
        """Return the flags as mount(8) spells them."""
        names = [name for name, flag in ATTRIBUTE_NAMES.items() if self.set & flag]
        return ",".join(names) or "rw"


ATTRIBUTE_NAMES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
    "strictatime": syscalls.MOUNT_ATTR_STRICTATIME,
    "nodiratime": syscalls.MOUNT_ATTR_NODIRATIME,
}


class Bind:
    """A file or directory of the host shown at `destination`."""

    __slots__ = ("attributes", "destination", "recursive", "source")

    def __init__(self, destination: bytes, source: bytes, recursive: int, attributes: Attributes) -> None:
        self.destination = destination
        self.source = source
        self.recursive = bool(recursive)
        self.attributes = attributes

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "Bind", self.destination, self.source, int(self.recursive), self.attributes.wire()

    def describe(self) -> str:
        """Return one line about it."""
        kind = "rbind" if self.recursive else "bind"
        where = f"/{os.fsdecode(self.destination)} from {os.fsdecode(self.source)}"
        return f"{kind} {where} {self.attributes.describe()}"

    def execute(self, root: Root) -> None:
        """Mount it."""
        tree = syscalls.open_tree(AT_FDCWD, self.source, recursive=self.recursive)
        try:
            self.place(tree, root)
        finally:
            os.close(tree)

    def place(self, tree: int, root: Root) -> None:
        """Attach the detached copy `tree` at its destination."""
        attributes = self.attributes
        # A copy of a shared mount is in its peer group: events would come in from the host and go out to it.
        propagation = attributes.propagation or syscalls.MS_PRIVATE
        if self.recursive and not attributes.recursive:
            syscalls.mount_setattr(tree, recursive=True, set_=0, propagation=propagation)
            syscalls.mount_setattr(tree, recursive=False, set_=attributes.set, clear=attributes.clear)
        else:
            syscalls.mount_setattr(
                tree,
                recursive=self.recursive,
                set_=attributes.set,
                clear=attributes.clear,
                propagation=propagation,
            )
        root.attach(tree, self.destination, directory=stat.S_ISDIR(os.fstat(tree).st_mode))


class Filesystem:
    """A new file system of the kernel: tmpfs, proc, sysfs, devpts, mqueue, …; `options` are its own, `key[=value]`."""

    __slots__ = ("attributes", "destination", "options", "source", "type")

    def __init__(
        self, destination: bytes, type_: bytes, source: bytes, options: tuple[bytes, ...], attributes: Attributes
    ) -> None:
        self.destination = destination
        self.type = type_
        self.source = source
        self.options = options
        self.attributes = attributes

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "Filesystem", self.destination, self.type, self.source, self.options, self.attributes.wire()

    def describe(self) -> str:
        """Return one line about it."""
        options = ",".join([self.attributes.describe(), *map(os.fsdecode, self.options)])
        return f"{os.fsdecode(self.type)} /{os.fsdecode(self.destination)} {options}"

    def execute(self, root: Root) -> None:
        """Mount it."""
        mounted = new_filesystem(self.type, self.source, self.options, self.attributes.set)
        try:
            root.attach(mounted, self.destination, directory=True)
        finally:
            os.close(mounted)


class DeviceNodes:
    """Nodes and symbolic links in a fresh /dev; a node is (name, mode with type, major, minor, uid, gid)."""

    __slots__ = ("destination", "links", "nodes")

    def __init__(
        self,
        destination: bytes,
        nodes: tuple[tuple[bytes, int, int, int, int, int], ...],
        links: tuple[tuple[bytes, bytes], ...],
    ) -> None:
        self.destination = destination
        self.nodes = nodes
        self.links = links

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "DeviceNodes", self.destination, self.nodes, self.links

    def describe(self) -> str:
        """Return one line about it."""
        names = [os.fsdecode(node[0]) for node in self.nodes] + [os.fsdecode(link[0]) for link in self.links]
        return f"nodes /{os.fsdecode(self.destination)} {' '.join(names)}"

    def execute(self, root: Root) -> None:
        """Make them; what a mount of the caller already put there stays."""
        directory = root.open(self.destination)
        try:
            for name, mode, major, minor, uid, gid in self.nodes:
                self._node(directory, name, mode, os.makedev(major, minor), (uid, gid))
            for name, target in self.links:
                try:
                    os.symlink(target, name, dir_fd=directory)
                except FileExistsError:
                    continue
        finally:
            os.close(directory)

    @staticmethod
    def _node(directory: int, name: bytes, mode: int, device: int, owner: tuple[int, int]) -> None:
        parent = b""
        for part in name.split(b"/")[:-1]:
            parent = parent + b"/" + part if parent else part
            try:
                os.mkdir(parent, 0o755, dir_fd=directory)
            except FileExistsError:
                continue
        try:
            os.mknod(name, mode, device, dir_fd=directory)
        except FileExistsError:
            return
        if owner != (0, 0):
            os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)


class Cgroups:
    """The process's own cgroups shown at `destination`; `hierarchies` are the host's mounts.

    Each is a name, a mount point and the path of its root in the hierarchy. The name is that of /proc/self/cgroup: the
    controllers, `name=systemd`, or empty for cgroup v2.
    """

    __slots__ = ("attributes", "destination", "hierarchies")

    def __init__(
        self, destination: bytes, hierarchies: tuple[tuple[bytes, bytes, bytes], ...], attributes: Attributes
    ) -> None:
        self.destination = destination
        self.hierarchies = hierarchies
        self.attributes = attributes

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "Cgroups", self.destination, self.hierarchies, self.attributes.wire()

    def describe(self) -> str:
        """Return one line about it."""
        names = [os.fsdecode(name) or "unified" for name, _, _ in self.hierarchies]
        return f"cgroups /{os.fsdecode(self.destination)} {' '.join(names)} {self.attributes.describe()}"

    def execute(self, root: Root) -> None:
        """Bind the cgroup the process is in, of every hierarchy; a host without cgroups gives none."""
        if not self.hierarchies:
            return
        paths = root.cgroup_paths
        if [name for name, _, _ in self.hierarchies] == [b""]:
            _, mount_point, top = self.hierarchies[0]
            path = paths.get(b"", b"").removeprefix(top)
            Bind(self.destination, mount_point + path, 0, self.attributes).execute(root)
            return
        tmpfs = Filesystem(self.destination, b"tmpfs", b"tmpfs", (b"mode=755",), Attributes(self.attributes.set & ~1))
        tmpfs.execute(root)
        directory = root.open(self.destination)
        try:
            for name, mount_point, top in self.hierarchies:
                if name in paths:
                    self._hierarchy(root, directory, name, mount_point + paths[name].removeprefix(top))
            if self.attributes.set & syscalls.MOUNT_ATTR_RDONLY:
                syscalls.mount_setattr(directory, recursive=False, set_=syscalls.MOUNT_ATTR_RDONLY)
        finally:
            os.close(directory)

    def _hierarchy(self, root: Root, directory: int, name: bytes, source: bytes) -> None:
        label = name.removeprefix(b"name=")
        os.mkdir(label, 0o755, dir_fd=directory)
        Bind(self.destination + b"/" + label, source, 0, self.attributes).execute(root)
        controllers = label.split(b",")
        if len(controllers) > 1:
            for controller in controllers:
                os.symlink(label, controller, dir_fd=directory)


class Layers:
    """An overlay of its own at `destination`, lowers topmost first."""

    __slots__ = ("attributes", "destination", "lowers", "upper", "work")

    def __init__(
        self, destination: bytes, lowers: tuple[bytes, ...], upper: bytes, work: bytes, attributes: Attributes
    ) -> None:
        self.destination = destination
        self.lowers = lowers
        self.upper = upper
        self.work = work
        self.attributes = attributes

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "Layers", self.destination, self.lowers, self.upper, self.work, self.attributes.wire()

    def describe(self) -> str:
        """Return one line about it."""
        where = f"/{os.fsdecode(self.destination)} lowers={len(self.lowers)} upper={os.fsdecode(self.upper)}"
        return f"overlay {where} {self.attributes.describe()}"

    def execute(self, root: Root) -> None:
        """Mount it."""
        mounted = overlay(self.lowers, self.upper, self.work, attributes=self.attributes.set)
        try:
            root.attach(mounted, self.destination, directory=True)
        finally:
            os.close(mounted)


class File:
    """A read-only file in memory: a tmpfs of its own, of which only the file is shown."""

    __slots__ = ("data", "destination", "gid", "mode", "uid")

    # Any directory will do; what is under it is hidden only while the file is taken from there.
    _BENCH = b"/proc/sys"

    def __init__(self, destination: bytes, data: bytes, mode: int, uid: int, gid: int) -> None:
        self.destination = destination
        self.data = data
        self.mode = mode
        self.uid = uid
        self.gid = gid

    def wire(self) -> tuple[object, ...]:
        """Return the operation as plain values."""
        return "File", self.destination, self.data, self.mode, self.uid, self.gid

    def describe(self) -> str:
        """Return one line about it, without its content: it may be a secret."""
        return f"file /{os.fsdecode(self.destination)} mode={self.mode:04o} uid={self.uid} gid={self.gid}"

    def execute(self, root: Root) -> None:
        """Make it and mount it."""
        attributes = syscalls.MOUNT_ATTR_NOSUID | syscalls.MOUNT_ATTR_NODEV
        if not self.mode & 0o111:
            attributes |= syscalls.MOUNT_ATTR_NOEXEC
        size = b"size=%d" % (len(self.data) + 8192)
        # Swapped out it would be on disk; noswap is Linux 6.4.
        try:
            bench = new_filesystem(b"tmpfs", b"tmpfs", (b"mode=700", size, b"noswap"), attributes)
        except OSError:
            bench = new_filesystem(b"tmpfs", b"tmpfs", (b"mode=700", size), attributes)
        try:
            fd = os.open(b"file", os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, self.mode, dir_fd=bench)
            with open(fd, "wb") as file:
                file.write(self.data)
                os.fchown(fd, self.uid, self.gid)
                os.fchmod(fd, self.mode)
            # A copy can only be taken of what is mounted in this namespace.
            syscalls.move_mount(bench, AT_FDCWD, self._BENCH)
            tree = syscalls.open_tree(bench, b"file", recursive=False)
            syscalls.umount2(self._BENCH, syscalls.MNT_DETACH)
        finally:
            os.close(bench)
        try:
            syscalls.mount_setattr(tree, recursive=False, set_=attributes | syscalls.MOUNT_ATTR_RDONLY)
            root.attach(tree, self.destination, directory=False)
        finally:
            os.close(tree)


MountOp = Bind | Filesystem | DeviceNodes | Cgroups | Layers | File
_OPERATIONS = {cls.__name__: cls for cls in (Bind, Filesystem, DeviceNodes, Cgroups, Layers, File)}


def from_wire(values: tuple[object, ...]) -> MountOp:
    """Return the operation that `wire()` took apart."""
    kind, *fields = values
    operation = _OPERATIONS[kind]  # type: ignore[index]
    if "attributes" in operation.__slots__:
        fields[-1] = Attributes(*fields[-1])  # type: ignore[misc]
    return operation(*fields)  # type: ignore[arg-type]

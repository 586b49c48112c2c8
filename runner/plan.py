"""From a specification to the plan the launcher carries out: plain values, checked, with the mounts as operations.

Pure, but for looking at the host's cgroup mounts and devices; it knows what docker containers have, not how it is made.
"""

from __future__ import annotations

import os
import resource
import stat
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, assert_never

from runner import caps, syscalls
from runner.errors import SpecError
from runner.mounts import ATTRIBUTE_NAMES, Attributes, Bind, Cgroups, DeviceNodes, File, Filesystem, Layers, MountOp
from runner.spec import (
    AnyMount,
    Directory,
    FileMount,
    HostNetwork,
    JoinNetwork,
    Mount,
    NoNetwork,
    Overlay,
    OverlayMount,
    Spec,
)

# What the runtime mounts. Where an image lacks the directories the reference leaves them: they are not the step's.
_TOPS = (b"dev", b"proc", b"sys")
_STANDARD_NODES: tuple[tuple[bytes, int, int], ...] = (
    (b"null", 1, 3),
    (b"zero", 1, 5),
    (b"full", 1, 7),
    (b"random", 1, 8),
    (b"urandom", 1, 9),
    (b"tty", 5, 0),
)
_STANDARD_LINKS = (
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
    (b"core", b"/proc/kcore"),
    (b"ptmx", b"pts/ptmx"),
)
_CLEARING = {
    "rw": syscalls.MOUNT_ATTR_RDONLY,
    "suid": syscalls.MOUNT_ATTR_NOSUID,
    "dev": syscalls.MOUNT_ATTR_NODEV,
    "exec": syscalls.MOUNT_ATTR_NOEXEC,
    "atime": syscalls.MOUNT_ATTR_ATIME,
    "relatime": syscalls.MOUNT_ATTR_ATIME,
    "diratime": syscalls.MOUNT_ATTR_NODIRATIME,
}
_PROPAGATION = {
    "private": syscalls.MS_PRIVATE,
    "shared": syscalls.MS_SHARED,
    "slave": syscalls.MS_SLAVE,
    "unbindable": syscalls.MS_UNBINDABLE,
}
_NAMESPACED_SYSCTLS = ("kernel.msg", "kernel.shm", "fs.mqueue.")


def compile_plan(spec: Spec, program: bytes, *, hook: bool) -> dict[str, Any]:
    """Return what `runner/child.py` carries out: a dict of plain values that marshal takes.

    `program` is the compiled filter (empty: none), `hook` whether the caller wants to be called in between. SpecError.
    """
    process = spec.process
    if not process.args:
        raise SpecError("no program to run", hint="give a command, or an image with ENTRYPOINT or CMD")
    furniture, others = _furniture(spec)
    return {
        **_rootfs(spec),
        **others,
        "furniture": furniture,
        "kept_points": _TOPS,
        "hostname": os.fsencode(spec.hostname),
        "domainname": os.fsencode(spec.domainname),
        "network": _network(spec),
        "hook": hook,
        "cgroups": groups_by_version(spec.cgroups),
        "sysctl": tuple(_sysctl(spec, key, value) for key, value in spec.sysctl),
        "seccomp": program,
        "no_new_privileges": process.no_new_privileges,
        "capabilities": _capabilities(process.capabilities),
        "uid": process.user.uid,
        "gid": process.user.gid,
        "groups": process.user.additional_gids,
        "umask": process.user.umask,
        "rlimits": tuple((_rlimit(limit.type), limit.type, limit.soft, limit.hard) for limit in process.rlimits),
        "oom_score_adj": process.oom_score_adj,
        "terminal": process.terminal,
        "console_size": process.console_size and (process.console_size.height, process.console_size.width),
        "init": spec.init,
        "cwd": _text(process.cwd),
        "args": tuple(_text(arg) for arg in process.args),
        "env": tuple(_variable(entry) for entry in process.env if "=" in entry),
    }


def groups_by_version(directories: Iterable[Path]) -> tuple[tuple[bytes, ...], bytes]:
    """Return the directories that are groups of version 1, and the one of version 2 or nothing."""
    paths = [os.fsencode(path) for path in directories]
    unified = next((path for path in paths if os.path.exists(path + b"/cgroup.events")), b"")
    return tuple(path for path in paths if path != unified), unified


def _furniture(spec: Spec) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the mounts that can be made apart from the root filesystem, and the others, with what is hidden of each.

    Apart can be made what is new file systems at /dev, /proc and /sys, as long as nothing else is mounted there and
    nothing is to be written there before it is hidden.
    """
    mounted = [(operation.destination.partition(b"/")[0], operation) for operation in mount_operations(spec)]
    apart = [(top, one) for top, one in mounted if top in _TOPS and isinstance(one, Filesystem | DeviceNodes | Cgroups)]
    inside = [(top, one) for top, one in mounted if top in _TOPS]
    hidden = (*spec.masked_paths, *spec.readonly_paths)
    if apart != inside or spec.sysctl or not {top for top, _ in apart} == set(_TOPS) >= {_top(path) for path in hidden}:
        return _mounts([], (), ()), _mounts([one for _, one in mounted], spec.masked_paths, spec.readonly_paths)
    return (
        _mounts([one for _, one in apart], spec.masked_paths, spec.readonly_paths),
        _mounts([one for top, one in mounted if top not in _TOPS], (), ()),
    )


def _mounts(
    operations: list[MountOp], masked_paths: tuple[bytes, ...], readonly_paths: tuple[bytes, ...]
) -> dict[str, Any]:
    return {
        "mounts": tuple(operation.wire() for operation in operations),
        "masked_paths": masked_paths,
        "readonly_paths": readonly_paths,
    }


def _top(path: bytes) -> bytes:
    return b"/".join(_parts(path)).partition(b"/")[0]


def mount_operations(spec: Spec) -> list[MountOp]:
    """Return the mounts of `spec` as operations, parents before what is mounted inside them."""
    operations: list[MountOp] = []
    for mount in sorted(spec.mounts, key=lambda mount: len(_parts(mount.destination))):
        if not _parts(mount.destination):
            raise SpecError("cannot mount over the root of the container", hint="mount at a directory or file below /")
        operations.append(_operation(mount))
        if _parts(mount.destination) == [b"dev"] and isinstance(mount, Mount) and mount.type == "tmpfs":
            operations.append(_device_nodes(spec))
    return operations


def _parts(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part and part != b"."]


def _operation(mount: AnyMount) -> MountOp:
    destination = b"/".join(_parts(mount.destination))
    match mount:
        case Mount():
            return _mount(mount, destination)
        case OverlayMount(lowers=lowers, upper=upper, work=work):
            attributes = Attributes(syscalls.MOUNT_ATTR_RDONLY if mount.read_only else 0)
            paths = tuple(os.fsencode(lower) for lower in lowers)
            return Layers(destination, paths, os.fsencode(upper), os.fsencode(work), attributes)
        case FileMount(data=data, mode=mode, uid=uid, gid=gid):
            return File(destination, data, mode, uid, gid)
        case _ as unreachable:
            assert_never(unreachable)


def _mount(mount: Mount, destination: bytes) -> MountOp:
    attributes, options, recursive = _options(mount)
    source = os.fsencode(mount.source)
    match mount.type:
        case "bind":
            if options:
                raise SpecError(f"unknown mount option for /{os.fsdecode(destination)}: {options[0]}")
            if not source.startswith(b"/"):
                raise SpecError(f"the source of a bind mount is not an absolute path: {mount.source}")
            return Bind(destination, source, recursive, attributes)
        case "cgroup" | "cgroup2":
            return Cgroups(destination, _hierarchies(), attributes)
        case _:
            encoded = tuple(os.fsencode(option) for option in options)
            return Filesystem(destination, os.fsencode(mount.type), source, encoded, attributes)


def _options(mount: Mount) -> tuple[Attributes, list[str], bool]:
    attributes = Attributes()
    options: list[str] = []
    recursive = False
    for option in mount.options:
        name = option[1:] if option[:1] == "r" and option[1:] in {*ATTRIBUTE_NAMES, *_PROPAGATION, "bind"} else option
        if name == "bind":
            recursive = option == "rbind"
        elif name in _PROPAGATION:
            attributes.propagation = _PROPAGATION[name]
        elif name in ATTRIBUTE_NAMES:
            attributes.set |= ATTRIBUTE_NAMES[name]
            attributes.recursive |= name != option
        elif name in _CLEARING:
            attributes.set &= ~_CLEARING[name]
            attributes.clear |= _CLEARING[name]
        elif option != "defaults":
            options.append(option)
    if attributes.set & syscalls.MOUNT_ATTR_ATIME:
        attributes.clear |= syscalls.MOUNT_ATTR_ATIME  # a field of values, not flags: mount_setattr(2) wants it cleared
    return attributes, options, recursive


def _device_nodes(spec: Spec) -> DeviceNodes:
    kinds = {"c": stat.S_IFCHR, "u": stat.S_IFCHR, "b": stat.S_IFBLK, "p": stat.S_IFIFO}
    nodes: list[tuple[bytes, int, int, int, int, int]] = []
    for device in spec.devices:
        parts = _parts(device.path)
        if parts[:1] != [b"dev"] or len(parts) < 2 or b".." in parts or device.type not in kinds:
            raise SpecError(f"not a device below /dev: {os.fsdecode(device.path)} ({device.type})")
        mode = kinds[device.type] | device.file_mode
        nodes.append((b"/".join(parts[1:]), mode, device.major, device.minor, device.uid, device.gid))
    given = {name for name, *_ in nodes}
    character = stat.S_IFCHR | 0o666
    nodes += [(name, character, major, minor, 0, 0) for name, major, minor in _STANDARD_NODES if name not in given]
    if spec.host_devices:
        nodes += _host_nodes({name for name, *_ in nodes})
    # Not every kernel shows its memory, and then the reference makes no link to it.
    links = tuple(link for link in _STANDARD_LINKS if link[0] != b"core" or os.path.exists(link[1]))
    return DeviceNodes(b"dev", tuple(nodes), links)


def _host_nodes(given: set[bytes]) -> list[tuple[bytes, int, int, int, int, int]]:
    """Return the device nodes of the host's /dev; terminals, shared memory and consoles are each container's own."""
    nodes = []
    pending = [b""]
    while pending:
        below = pending.pop()
        for entry in os.scandir(b"/dev/" + below):
            name = below + entry.name
            if entry.is_dir(follow_symlinks=False):
                if name not in {b"pts", b"shm", b"fd", b"mqueue", b".lxc", b".lxd-mounts", b".udev"}:
                    pending.append(name + b"/")
                continue
            status = entry.stat(follow_symlinks=False)
            if stat.S_IFMT(status.st_mode) not in {stat.S_IFCHR, stat.S_IFBLK} or name in given | {b"console", b"ptmx"}:
                continue
            device = status.st_rdev
            nodes.append((name, status.st_mode, os.major(device), os.minor(device), status.st_uid, status.st_gid))
    return nodes


@cache
def _hierarchies() -> tuple[tuple[bytes, bytes, bytes], ...]:
    """Return the host's cgroup mounts: name in /proc/self/cgroup, mount point, its root in the hierarchy.

    Where there are mounts of version 1, version 2 beside them has no controllers and is left out. Looked at once: the
    host's cgroup mounts are made when it starts.
    """
    kernel_names = {}
    with open("/proc/self/cgroup", "rb") as file:
        for line in file:
            _, name, _ = line.split(b":", 2)
            kernel_names[frozenset(name.split(b","))] = name
    # The first mount of a hierarchy counts: others of it may come and go while this is read.
    version1: dict[bytes, tuple[bytes, bytes]] = {}
    version2: dict[bytes, tuple[bytes, bytes]] = {}
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, tail = line.partition(b" - ")
            kind, _, options = tail.split()[:3]
            if kind not in {b"cgroup", b"cgroup2"}:
                continue
            root, mount_point = (_unescape(field) for field in fields.split()[3:5])
            if kind == b"cgroup2":
                version2.setdefault(b"", (mount_point, root.rstrip(b"/")))
                continue
            words = set(options.strip().split(b","))
            for names, name in kernel_names.items():
                if name and names <= words:
                    version1.setdefault(name, (mount_point, root.rstrip(b"/")))
    return tuple((name, *where) for name, where in (version1 or version2).items())


def _unescape(field: bytes) -> bytes:
    """Undo the octal escapes of proc(5), mountinfo: blank, tab, newline and backslash."""
    for escaped, character in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        field = field.replace(escaped, character)
    return field


def _rootfs(spec: Spec) -> dict[str, Any]:
    match spec.rootfs:
        case Overlay(lowers=lowers, upper=upper, work=work, read_only=read_only):
            places = {
                "lowers": tuple(os.fsencode(lower) for lower in lowers),
                "upper": os.fsencode(upper),
                "work": os.fsencode(work),
                "recursive": False,
            }
        case Directory(path=path, read_only=read_only):
            places = {"lowers": (), "upper": os.fsencode(path), "work": b"", "recursive": True}
        case _ as unreachable:
            assert_never(unreachable)
    return {**places, "read_only": read_only, "user_xattr": _in_user_namespace()}


@cache
def _in_user_namespace() -> bool:
    """Whether this is not the initial user namespace: an overlay then keeps its marks in user.overlay.* attributes."""
    with open("/proc/self/uid_map", "rb") as file:
        return file.read().split() != [b"0", b"0", b"4294967295"]


def _network(spec: Spec) -> str:
    match spec.network:
        case NoNetwork():
            return "none"
        case HostNetwork():
            return "host"
        case JoinNetwork():
            return "join"
        case _ as unreachable:
            assert_never(unreachable)


def _sysctl(spec: Spec, key: str, value: str) -> tuple[bytes, bytes]:
    own_network = not isinstance(spec.network, HostNetwork)
    if not (key.startswith(_NAMESPACED_SYSCTLS) or key == "kernel.sem" or (key.startswith("net.") and own_network)):
        raise SpecError(
            f"sysctl {key} is not the container's own",
            hint="kernel.msg*, kernel.shm*, kernel.sem, fs.mqueue.* and, without the host's network, net.* can be set",
        )
    if ".." in key or "/" in key:
        raise SpecError(f"not the name of a sysctl: {key}")
    return os.fsencode(key), os.fsencode(value)


def _capabilities(names: frozenset[str]) -> int:
    unknown = sorted(names - caps.ALL_CAPABILITIES)
    if unknown:
        raise SpecError(f"unknown capability: {unknown[0]}", hint="names are as in capabilities(7): CAP_NET_ADMIN")
    return caps.mask(names)


def _rlimit(name: str) -> int:
    number = getattr(resource, name, None) if name.startswith("RLIMIT_") else None
    if not isinstance(number, int):
        raise SpecError(f"unknown resource limit: {name}", hint="names are as in getrlimit(2): RLIMIT_NOFILE")
    return number


def _variable(entry: str) -> tuple[bytes, bytes]:
    name, _, value = _text(entry).partition(b"=")
    if not name:
        raise SpecError(f"environment variable without a name: {entry!r}", hint="write NAME=VALUE")
    return name, value


def _text(text: str) -> bytes:
    """Return what is passed to the kernel, where a zero byte ends it."""
    data = os.fsencode(text)
    if b"\0" in data:
        raise SpecError(f"zero byte in {text!r}", hint="arguments, variables and paths cannot hold one")
    return data

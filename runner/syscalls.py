"""System calls that Python lacks, one wrapper each; failures are OSError(errno, text, path).

The only module that imports ctypes; it knows no policy. Arguments are plain integers and bytes; paths are bytes.
"""

from __future__ import annotations

import ctypes
import os
import sys

# Values from the kernel's uapi headers (linux/mount.h, sched.h, prctl.h, seccomp.h, fcntl.h, openat2.h, capability.h).
AT_EMPTY_PATH = 0x1000
AT_FDCWD = -100
AT_RECURSIVE = 0x8000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWNET = 0x40000000
CLONE_NEWNS = 0x00020000
CLONE_NEWPID = 0x20000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWUTS = 0x04000000
_CLONE_INTO_CGROUP = 0x200000000
_SIGCHLD = 17
CLOSE_RANGE_CLOEXEC = 4
FSCONFIG_CMD_CREATE = 6
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSMOUNT_CLOEXEC = 1
FSOPEN_CLOEXEC = 1
LINUX_CAPABILITY_VERSION_3 = 0x20080522
MNT_DETACH = 2
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR_ATIME = 0x70
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MS_BIND = 0x1000
MS_NOATIME = 0x400
MS_NODEV = 0x4
MS_NODIRATIME = 0x800
MS_NOEXEC = 0x8
MS_NOSUID = 0x2
MS_PRIVATE = 0x40000
MS_RDONLY = 0x1
MS_REC = 0x4000
MS_REMOUNT = 0x20
MS_SHARED = 0x100000
MS_SLAVE = 0x80000
MS_STRICTATIME = 0x1000000
MS_UNBINDABLE = 0x20000
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
OPEN_TREE_CLONE = 1
PR_CAPBSET_DROP = 24
PR_CAPBSET_READ = 23
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_CAP_AMBIENT_IS_SET = 1
PR_GET_NO_NEW_PRIVS = 39
PR_GET_SECCOMP = 21
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_NO_NEW_PRIVS = 38
PR_SET_PDEATHSIG = 1
RESOLVE_IN_ROOT = 0x10
RESOLVE_NO_MAGICLINKS = 0x02
SECCOMP_MODE_FILTER = 2
SECCOMP_SET_MODE_FILTER = 1

# Numbers that glibc has no function for. From open_tree(2) on they are the same on every architecture.
_SYS_CLONE3 = 435
_SYS_CLOSE_RANGE = 436
_SYS_FSCONFIG = 431
_SYS_FSMOUNT = 432
_SYS_FSOPEN = 430
_SYS_MOUNT_SETATTR = 442
_SYS_MOVE_MOUNT = 429
_SYS_OPENAT2 = 437
_SYS_OPEN_TREE = 428
_SYS_BPF, _SYS_PIVOT_ROOT, _SYS_SECCOMP = {"x86_64": (321, 155, 317), "aarch64": (280, 41, 277)}.get(
    os.uname().machine, (-1, -1, -1)
)

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long
# Declared once, arguments need no objects of their own: a container takes some two hundred of these calls.
_prctl = _libc.prctl
_prctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)


def _raise(path: bytes | str = b"") -> None:
    number = ctypes.get_errno()
    raise OSError(number, os.strerror(number), os.fsdecode(path))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


class _SockFprog(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def bpf(command: int, attributes: bytes, *pointers: bytes) -> int:
    """Call bpf(2); the addresses of `pointers` follow `attributes` in its union. Returns a descriptor or 0."""
    buffers = [ctypes.create_string_buffer(data, len(data)) for data in pointers]
    addresses = b"".join(ctypes.addressof(buffer).to_bytes(8, sys.byteorder) for buffer in buffers)
    union = ctypes.create_string_buffer((attributes + addresses).ljust(128, b"\0"), 128)
    result: int = _syscall(_SYS_BPF, ctypes.c_int(command), union, ctypes.c_uint(128))
    if result < 0:
        _raise("bpf")
    return result


def capget() -> tuple[int, int, int]:
    """Return the masks of the calling thread's effective, permitted and inheritable capabilities (capget(2))."""
    header = _CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    if _libc.capget(ctypes.byref(header), data) < 0:
        _raise("capget")
    low, high = data[0], data[1]
    return (
        low.effective | high.effective << 32,
        low.permitted | high.permitted << 32,
        low.inheritable | high.inheritable << 32,
    )


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's capability masks (capset(2))."""
    header = _CapHeader(LINUX_CAPABILITY_VERSION_3, 0)
    low = _CapData(effective & 0xFFFFFFFF, permitted & 0xFFFFFFFF, inheritable & 0xFFFFFFFF)
    high = _CapData(effective >> 32, permitted >> 32, inheritable >> 32)
    if _libc.capset(ctypes.byref(header), (_CapData * 2)(low, high)) < 0:
        _raise("capset")


def clone_into(cgroup: int, flags: int) -> int:
    """clone3(2) like fork(2), the child born in the version 2 group whose directory is open as `cgroup`: 0, or its pid.

    For processes with one thread: what the C library and Python do for others around a fork is left out.
    """
    # flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup
    words = (flags | _CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, cgroup)
    arguments = b"".join(word.to_bytes(8, sys.byteorder) for word in words)
    pid: int = ctypes.pythonapi.syscall(ctypes.c_long(_SYS_CLONE3), arguments, ctypes.c_size_t(len(arguments)))
    if pid < 0:
        _raise()
    return pid


def close_range(first: int, last: int, flags: int) -> None:
    """Close the descriptors from `first` to `last`, or mark them (close_range(2), Linux 5.9)."""
    if _syscall(_SYS_CLOSE_RANGE, ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(flags)) < 0:
        _raise("close_range")


def fsconfig(fd: int, command: int, key: bytes | None, value: bytes | None, aux: int = 0) -> None:
    """Set one parameter of a file system context, or create the file system (fsconfig(2), Linux 5.2)."""
    if _syscall(_SYS_FSCONFIG, fd, ctypes.c_uint(command), key, value, aux) < 0:
        _raise(b"=".join(part for part in (key, value) if part))


def fsmount(fd: int, attributes: int) -> int:
    """Return the descriptor of a detached mount of the file system created in context `fd` (fsmount(2))."""
    mount_fd: int = _syscall(_SYS_FSMOUNT, fd, ctypes.c_uint(FSMOUNT_CLOEXEC), ctypes.c_uint(attributes))
    if mount_fd < 0:
        _raise("fsmount")
    return mount_fd


def fsopen(name: bytes) -> int:
    """Return a context for a file system of type `name` (fsopen(2), Linux 5.2)."""
    fd: int = _syscall(_SYS_FSOPEN, name, ctypes.c_uint(FSOPEN_CLOEXEC))
    if fd < 0:
        _raise(name)
    return fd


def mount(source: bytes | None, target: bytes, fstype: bytes | None, flags: int, data: bytes | None = None) -> None:
    """Call mount(2)."""
    if _libc.mount(source, target, fstype, ctypes.c_ulong(flags), data) < 0:
        _raise(target)


def mount_setattr(fd: int, *, recursive: bool, set_: int, clear: int = 0, propagation: int = 0) -> None:
    """Change the attributes of the mount `fd` (mount_setattr(2), Linux 5.12)."""
    attr = _MountAttr(set_, clear, propagation, 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    if _syscall(_SYS_MOUNT_SETATTR, fd, b"", ctypes.c_uint(flags), ctypes.byref(attr), ctypes.sizeof(attr)) < 0:
        _raise("mount_setattr")


def move_mount(fd: int, target_fd: int, target: bytes) -> None:
    """Attach the mount `fd` at `target` below `target_fd`, or at `target_fd` itself if empty (move_mount(2))."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if target else MOVE_MOUNT_T_EMPTY_PATH)
    if _syscall(_SYS_MOVE_MOUNT, fd, b"", target_fd, target, ctypes.c_uint(flags)) < 0:
        _raise(target or b"move_mount")


def open_tree(dirfd: int, path: bytes, *, recursive: bool) -> int:
    """Return the descriptor of a detached copy of the mount at `path` (open_tree(2), Linux 5.2)."""
    flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    fd: int = _syscall(_SYS_OPEN_TREE, dirfd, path, ctypes.c_uint(flags))
    if fd < 0:
        _raise(path)
    return fd


def openat2(dirfd: int, path: bytes, flags: int, resolve: int) -> int:
    """Open `path` below `dirfd` under the rules `resolve` (openat2(2), Linux 5.6)."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    fd: int = _syscall(_SYS_OPENAT2, dirfd, path, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        _raise(path)
    return fd


def pivot_root(new_root: bytes, put_old: bytes) -> None:
    """Call pivot_root(2)."""
    if _syscall(_SYS_PIVOT_ROOT, new_root, put_old) < 0:
        _raise(new_root)


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> int:
    """Call prctl(2), whose last arguments are 0, and return its result."""
    result: int = _prctl(option, arg2, arg3, 0, 0)
    if result < 0:
        _raise("prctl")
    return result


def seccomp(program: bytes) -> None:
    """Install a filter, an array of struct sock_filter, for the calling thread (seccomp(2))."""
    fprog = _SockFprog(len(program) // 8, program)
    if _syscall(_SYS_SECCOMP, ctypes.c_uint(SECCOMP_SET_MODE_FILTER), ctypes.c_uint(0), ctypes.byref(fprog)) < 0:
        _raise("seccomp")


def set_process_name(name: bytes) -> None:
    """Set the name that ps(1) shows for the calling thread, at most 15 bytes."""
    buffer = ctypes.create_string_buffer(name)
    if _prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0) < 0:
        _raise("prctl")


def setdomainname(name: bytes) -> None:
    """Set the NIS domain name of the UTS namespace (setdomainname(2))."""
    if _libc.setdomainname(name, ctypes.c_size_t(len(name))) < 0:
        _raise("domainname")


def sethostname(name: bytes) -> None:
    """Set the host name of the UTS namespace (sethostname(2))."""
    if _libc.sethostname(name, ctypes.c_size_t(len(name))) < 0:
        _raise("hostname")


def setns(fd: int, kind: int) -> None:
    """Join the namespace `fd`, which must be of `kind` (setns(2))."""
    if _libc.setns(fd, kind) < 0:
        _raise("setns")


def umount2(target: bytes, flags: int) -> None:
    """Call umount2(2)."""
    if _libc.umount2(target, flags) < 0:
        _raise(target)


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for new ones (unshare(2))."""
    if _libc.unshare(flags) < 0:
        _raise("unshare")

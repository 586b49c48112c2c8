"""Overlay mounts from lists of layers, as many as the kernel can be brought to stack (overlayfs.rst).

It knows directories; which layers they are, and where the mount goes, is the caller's business.
"""

from __future__ import annotations

import errno
import os

from runner import syscalls
from runner.filesystem import new_filesystem
from runner.syscalls import AT_FDCWD

MAX_LOWERS = 500  # OVL_MAX_STACK
MAX_LAYERS = 2 * MAX_LOWERS - 1
_MAX_VALUE = 255  # of a string that fsconfig(2) takes
# An upper becomes a layer: it must be a whole difference by itself, with nothing that points into other layers.
_OPTIONS = (b"redirect_dir=off", b"metacopy=off", b"index=off", b"xino=off")


def overlay(
    lowers: tuple[bytes, ...], upper: bytes, work: bytes, *, user_xattr: bool = False, attributes: int = 0
) -> int:
    """Return the descriptor of a detached overlay mount, `lowers` topmost first; `attributes` are MOUNT_ATTR_*.

    The kernel stacks 500 lowers. What lies below the 499 topmost is first merged into one read-only overlay: nothing is
    below that one, so no whiteout is lost in it. OSError E2BIG beyond 999 lowers.
    """
    if len(lowers) > MAX_LAYERS:
        raise OSError(errno.E2BIG, f"more than {MAX_LAYERS} layers", os.fsdecode(upper))
    options = (*_OPTIONS, b"userxattr") if user_xattr else _OPTIONS
    if len(lowers) <= MAX_LOWERS:
        return _mount(lowers, options, upper, work, attributes)
    base = _mount(lowers[MAX_LOWERS - 1 :], options, b"", b"", 0)
    # A lower must be mounted in this namespace: over the undermost layer, which nothing needs by its path any more.
    syscalls.move_mount(base, AT_FDCWD, lowers[-1])
    bottom = b"/proc/self/fd/%d" % base
    try:
        return _mount((*lowers[: MAX_LOWERS - 1], bottom), options, upper, work, attributes)
    finally:
        os.close(base)


def _mount(lowers: tuple[bytes, ...], options: tuple[bytes, ...], upper: bytes, work: bytes, attributes: int) -> int:
    try:
        context = syscalls.fsopen(b"overlay")
        try:
            return _by_parameter(context, lowers, options, upper, work, attributes)
        finally:
            os.close(context)
    except UnknownParameter:
        return mount_by_names(lowers, options, upper, work, attributes)


class UnknownParameter(Exception):
    """This kernel has no `lowerdir+` (Linux 6.7)."""


def _by_parameter(
    context: int,
    lowers: tuple[bytes, ...],
    options: tuple[bytes, ...],
    upper: bytes,
    work: bytes,
    attributes: int,
) -> int:
    """Mount with one fsconfig(2) per layer, so that no page bounds their number."""
    syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, b"source", b"overlay")
    for number, lower in enumerate(lowers):
        try:
            _give_path(context, b"lowerdir+", lower)
        except OSError as error:
            if number == 0 and error.errno == errno.EINVAL and os.path.isdir(lower):
                raise UnknownParameter from error
            raise
    if upper:
        _give_path(context, b"upperdir", upper)
        _give_path(context, b"workdir", work)
    for option in options:
        key, equals, value = option.partition(b"=")
        kind = syscalls.FSCONFIG_SET_STRING if equals else syscalls.FSCONFIG_SET_FLAG
        syscalls.fsconfig(context, kind, key, value if equals else None)
    syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
    return syscalls.fsmount(context, attributes)


def _give_path(context: int, key: bytes, path: bytes) -> None:
    if len(path) <= _MAX_VALUE and b"\\" not in path:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, path)
        return
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)


def mount_by_names(
    lowers: tuple[bytes, ...], options: tuple[bytes, ...], upper: bytes, work: bytes, attributes: int
) -> int:
    """Mount with mount(2), whose options must fit into one page: layers get short names, links in a tmpfs.

    Like `_by_parameter` it returns a detached mount. For kernels before 6.7.
    """
    bench = b"/proc/sys"  # any directory: it is covered for as long as this takes
    names = new_filesystem(b"tmpfs", b"tmpfs", (b"mode=700",), 0)
    here = os.open(".", os.O_PATH | os.O_CLOEXEC)
    syscalls.move_mount(names, AT_FDCWD, bench)
    try:
        os.fchdir(names)
        words = [b"lowerdir=" + b":".join(b"%d" % number for number in range(len(lowers)))]
        for number, lower in enumerate(lowers):
            os.symlink(lower, b"%d" % number)
        if upper:
            os.symlink(upper, b"upper")
            os.symlink(work, b"work")
            words += [b"upperdir=upper", b"workdir=work"]
        os.mkdir(b"root")
        syscalls.mount(b"overlay", b"root", b"overlay", 0, b",".join([*words, *options]))
        tree = syscalls.open_tree(AT_FDCWD, b"root", recursive=False)
        syscalls.mount_setattr(tree, recursive=False, set_=attributes, propagation=syscalls.MS_PRIVATE)
        return tree
    finally:
        os.fchdir(here)
        syscalls.umount2(bench, syscalls.MNT_DETACH)
        os.close(names)
        os.close(here)

"""Overlay mounts from lists of layers, as many as the kernel can be brought to stack (overlayfs.rst).

It knows directories; which layers they are, and where the mount goes, is the caller's business.
"""

from __future__ import annotations

import errno
import os

from runner import syscalls
from runner.syscalls import AT_FDCWD

MAX_LOWERS = 500  # OVL_MAX_STACK
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
    if len(lowers) > 2 * MAX_LOWERS - 1:
        raise OSError(errno.E2BIG, f"more than {2 * MAX_LOWERS - 1} layers", os.fsdecode(upper))
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
    context = syscalls.fsopen(b"overlay")
    opened: list[int] = []

    def give(key: bytes, path: bytes) -> None:
        if len(path) > _MAX_VALUE:
            opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
            path = b"/proc/self/fd/%d" % opened[-1]
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, path)

    try:
        syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, b"source", b"overlay")
        for lower in lowers:
            give(b"lowerdir+", lower)
        if upper:
            give(b"upperdir", upper)
            give(b"workdir", work)
        for option in options:
            key, equals, value = option.partition(b"=")
            kind = syscalls.FSCONFIG_SET_STRING if equals else syscalls.FSCONFIG_SET_FLAG
            syscalls.fsconfig(context, kind, key, value if equals else None)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)
        for fd in opened:
            os.close(fd)

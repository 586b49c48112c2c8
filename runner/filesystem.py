"""New instances of the kernel's file systems (fsopen(2)); where they go is the caller's business."""

from __future__ import annotations

import os

from runner import syscalls


def new_filesystem(type_: bytes, source: bytes, options: tuple[bytes, ...], attributes: int) -> int:
    """Return the descriptor of a detached mount of a new file system."""
    context = syscalls.fsopen(type_)
    try:
        if source:
            syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, b"source", source)
        for option in options:
            key, equals, value = option.partition(b"=")
            if equals:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
            else:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FLAG, key, None)
        syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE, None, None)
        return syscalls.fsmount(context, attributes)
    finally:
        os.close(context)

"""The errors of the layer store; whoever talks to the user turns them into text.

StoreError
├── NotFound           no image, layer or blob of that name
├── AmbiguousName      an ID prefix that fits several images
├── CorruptContent     bytes that are not what their digest or record says
├── UnsafeLayer        a layer that no honest tool writes: traversal, writing through links, malformed tar
├── SourceChanged      a file changed while it was being read
└── StoreUnusable      the store's directory or database cannot be used (permissions, disk full, newer format)
"""

from __future__ import annotations

import errno
import os
from typing import ClassVar


class StoreError(Exception):
    """Catch this for everything the store can fail with; `hint` is the next action, may be empty."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class NotFound(StoreError):
    """No image, layer or blob of that name is in the store."""


class AmbiguousName(StoreError):
    """An ID prefix fits several images; `candidates` are their full IDs."""

    def __init__(self, prefix: str, candidates: tuple[str, ...]) -> None:
        names = ", ".join(candidate[:19] for candidate in candidates)
        super().__init__(f"{prefix!r} fits several images: {names}", hint="give more digits of the ID")
        self.candidates = candidates


class CorruptContent(StoreError):
    """Bytes differ from what their digest or record says."""


class UnsafeLayer(StoreError):
    """A layer holds what no honest tool writes; nothing of it was kept."""


class UnsafeEntry(UnsafeLayer):
    """An entry of a tar that cannot be made, though the tar itself may be sound."""


class SourceChanged(StoreError):
    """A file changed while it was being read; `path` is where it is on the host."""

    def __init__(self, path: bytes, detail: str) -> None:
        super().__init__(
            f"{os.fsdecode(path)} {detail} while it was being read",
            hint="build again once nothing writes to it",
        )
        self.path = path


class StoreUnusable(StoreError):
    """The store's directory or database cannot be used."""


def unusable(error: OSError, doing: str) -> StoreUnusable:
    """Say in words why the store could not be written: `doing` completes "cannot"."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "free some space or choose another root for the store"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        hint = "choose a root that this user can write to"
    else:
        hint = ""
    return StoreUnusable(f"cannot {doing}: {error.strerror or error}", hint=hint)

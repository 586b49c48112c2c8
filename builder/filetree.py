"""What a tree of files has to answer to be copied from or into; it knows no host and no layer.

`layerstore.View` (a chain of layers) and `builder.context.LocalContext` (a host directory minus what is ignored) are
both of this shape. Paths are in-image paths: bytes, relative, without a leading slash, the root is `b""`.
"""

from __future__ import annotations

from typing import Protocol

from layerstore.entry import Entry, Kind


class FileTree(Protocol):
    """A file system that is read by path and never leaves its root."""

    def lstat(self, path: bytes) -> Entry | None:
        """Return the entry at `path`, None if there is none; no link is followed, not in its parents either."""

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names in the directory `path`, sorted; empty if it is no directory."""

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """Return `path` without symlinks and "..", both clamped to the root; what does not exist is kept as written."""

    def read(self, path: bytes, *, limit: int = 1 << 20) -> bytes | None:
        """Return what the file at `path` holds (links followed), at most `limit` bytes; None if there is none."""


class EmptyTree:
    """The tree that holds nothing but its root: the destination of `COPY --link` and of scratch."""

    def lstat(self, path: bytes) -> Entry | None:
        """Return the root, and None for anything else."""
        return Entry(b"", Kind.DIR, 0o755) if path == b"" else None

    def listdir(self, path: bytes) -> list[bytes]:
        """Return no names."""
        del path
        return []

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """Return `path` with "." and ".." taken out."""
        del follow_last
        return clean(path)

    def read(self, path: bytes, *, limit: int = 1 << 20) -> bytes | None:
        """Return None."""
        del path, limit
        return None


def clean(path: bytes) -> bytes:
    """Return `path` as an in-image path: no leading, doubled or trailing slash, no ".", ".." clamped at the root."""
    parts: list[bytes] = []
    for part in path.split(b"/"):
        if part == b"..":
            if parts:
                parts.pop()
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)

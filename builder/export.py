"""Writes a finished image where `--output` wants it: the files of its root as a tar or a directory.

Archives of images (OCI layout, docker archive) are `layerstore.archive`'s; which outputs there are is the command's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from builder.errors import ExportError
from builder.reproducible import dated
from layerstore import View
from layerstore.entry import Entry, Kind
from layerstore.join import TarSink, join
from layerstore.treewrite import TreeWriter


def flatten(view: View) -> Iterator[Entry]:
    """Yield every path of an image's root, parents before children; further names of one file are hard links."""
    first: dict[tuple[int, int], bytes] = {}
    pending = [b""]
    while pending:
        directory = pending.pop()
        for name in view.listdir(directory):
            path = directory + b"/" + name if directory else name
            entry = view.lstat(path)
            if entry is None:
                continue
            if entry.kind is Kind.DIR:
                pending.append(path)
            elif entry.inode is not None and entry.kind is Kind.FILE:
                seen = first.setdefault(entry.inode, path)
                if seen != path:
                    entry = entry._replace(kind=Kind.HARDLINK, target=seen, size=0)
            yield entry


def write_tar(view: View, out: BinaryIO, *, mtime_ns: int | None = None) -> None:
    """Write the image's root as one tar, owners kept; every file gets the time `mtime_ns`, unless it is None."""
    sink = TarSink(lambda data: _write(out, data))
    join(dated(flatten(view), mtime_ns), sink, None)
    sink.finish()


def write_directory(view: View, dest: Path, *, uid: int, gid: int, mtime_ns: int | None = None) -> None:
    """Write the image's root below the directory `dest`, which is made if missing; everything belongs to `uid` and
    `gid`, and has the time `mtime_ns`, unless it is None.

    What is there already stays, unless the image has the same path. Devices are left out: a directory that a user
    copies around is no place for them.
    """
    try:
        os.makedirs(dest, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write to {dest}: {error.strerror}", hint="choose another dest") from error
    with TreeWriter(os.fsencode(dest)) as tree:
        owned = (
            entry._replace(uid=uid, gid=gid) for entry in flatten(view) if entry.kind not in (Kind.CHAR, Kind.BLOCK)
        )
        join(dated(owned, mtime_ns), None, tree)
        tree.finish()


def _write(out: BinaryIO, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[out.write(left) :]

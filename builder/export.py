"""Writes a finished image where `--output` wants it: the files of its root as a tar or a directory.

Archives of images (OCI layout, docker archive) are `layerstore.archive`'s; which outputs there are is the command's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from builder.errors import ExportError
from builder.reproducible import dated
from layerstore import View
from layerstore.compress import Piece
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


class Part(NamedTuple):
    """The root of an image, and where it goes: a directory of what is written, `b""` for the top. `label` names it."""

    view: View
    directory: bytes = b""
    label: str = ""


def assemble(parts: Sequence[Part]) -> Iterator[Entry]:
    """Yield every path of `parts`, parents before children.

    ExportError if two of them have something other than a directory in one place.
    """
    seen: dict[bytes, tuple[str, bool]] = {}
    for part in parts:
        if part.directory:
            yield Entry(part.directory, Kind.DIR, 0o755)
        for entry in flatten(part.view):
            path = part.directory + b"/" + entry.path if part.directory else entry.path
            is_directory = entry.kind is Kind.DIR
            if len(parts) > 1:
                label, both_directories = seen.setdefault(path, (part.label, is_directory))
                if label != part.label:
                    if both_directories and is_directory:
                        continue
                    raise ExportError(
                        f"/{os.fsdecode(path)} is in the image for {label} and in that for {part.label}",
                        hint="leave platform-split=false out",
                    )
            if part.directory and entry.kind is Kind.HARDLINK:
                yield entry._replace(path=path, target=part.directory + b"/" + entry.target)
            else:
                yield entry._replace(path=path)


def write_tar(parts: Sequence[Part], out: BinaryIO, *, mtime_ns: int | None = None) -> None:
    """Write the roots of images as one tar, owners kept; every file gets the time `mtime_ns`, unless it is None."""
    sink = TarSink(lambda data: _write(out, data))
    join(dated(assemble(parts), mtime_ns), sink, None)
    sink.finish()


def write_directory(
    parts: Sequence[Part], dest: Path, *, uid: int, gid: int, mtime_ns: int | None = None, delete: bool = False
) -> None:
    """Write the roots of images below the directory `dest`, which is made if missing; everything belongs to `uid` and
    `gid`, and has the time `mtime_ns`, unless it is None.

    What is there already stays, unless the image has the same path or `delete` is set. Devices are left out: a
    directory that a user copies around is no place for them.
    """
    try:
        os.makedirs(dest, exist_ok=True)
    except OSError as error:
        raise ExportError(f"cannot write to {dest}: {error.strerror}", hint="choose another dest") from error
    written: set[bytes] = set()

    def owned() -> Iterator[Entry]:
        for entry in assemble(parts):
            if entry.kind not in (Kind.CHAR, Kind.BLOCK):
                written.add(entry.path)
                yield entry._replace(uid=uid, gid=gid)

    with TreeWriter(os.fsencode(dest)) as tree:
        join(dated(owned(), mtime_ns), None, tree)
        tree.finish()
    if delete:
        _delete_others(os.fsencode(dest), b"", written)


def _delete_others(root: bytes, directory: bytes, kept: set[bytes]) -> None:
    """Remove what lies below `directory` of `root` and is not in `kept`, never through a symlink or into a mount."""
    here = os.path.join(root, directory) if directory else root
    device = os.lstat(here).st_dev
    with os.scandir(here) as items:
        found = list(items)
    for item in found:
        path = directory + b"/" + item.name if directory else item.name
        is_directory = item.is_dir(follow_symlinks=False)
        try:
            if is_directory and os.lstat(item.path).st_dev != device:
                raise ExportError(f"{os.fsdecode(item.path)} is a mount", hint="unmount it, or leave mode=delete out")
            if is_directory:
                _delete_others(root, path, kept)
            if path not in kept:
                (os.rmdir if is_directory else os.unlink)(item.path)
        except OSError as error:
            raise ExportError(f"cannot remove {os.fsdecode(item.path)}: {error.strerror}") from error


def _write(out: BinaryIO, data: Piece) -> None:
    left = memoryview(data)
    while left:
        left = left[out.write(left) :]

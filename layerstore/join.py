"""Joins a source of entries to the sinks of one layer in one pass: every file's data is read once.

Memory is bounded by the buffers here, whatever the size of a file or the number of entries.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator

from layerstore.digest import DiffId
from layerstore.entry import Entry, Inline, Kind, Stream
from layerstore.errors import SourceChanged, StoreError
from layerstore.tarwrite import END, header, padding
from layerstore.treewrite import TreeWriter

_BUFFER = 1 << 20
_SMALL = 1 << 18
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TarSink:
    """Hashes the tar of a layer; `forward` gets its bytes too, if given."""

    def __init__(self, forward: Callable[[bytes], None] | None = None) -> None:
        self._hash = hashlib.sha256()
        self._forward = forward
        self._parts: list[bytes] = []
        self._pending = 0
        self.size = 0

    def add(self, *parts: bytes) -> None:
        """Append bytes of the tar."""
        self._parts += parts
        for part in parts:
            self._pending += len(part)
        if self._pending >= _BUFFER:
            self._flush()

    def stream(self, data: memoryview) -> None:
        """Append bytes that are only lent."""
        if self._parts:
            self._flush()
        self.size += len(data)
        self._hash.update(data)
        if self._forward is not None:
            self._forward(bytes(data))

    def finish(self) -> DiffId:
        """Append the end of the tar and return the layer's diff ID."""
        self.add(END)
        self._flush()
        return DiffId("sha256:" + self._hash.hexdigest())

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._pending = 0
        self.size += len(data)
        self._hash.update(data)
        if self._forward is not None:
            self._forward(data)


def join(entries: Iterable[Entry], tar: TarSink | None, tree: TreeWriter | None) -> None:
    """Feed `entries`, in their order, to the sinks. SourceChanged for a file that changed, StoreError if unreadable."""
    for entry in entries:
        if entry.kind is not Kind.FILE:
            if tar is not None:
                tar.add(header(entry))
            if tree is not None:
                tree.entry(entry)
            continue
        size = entry.size
        if size > _SMALL or isinstance(entry.source, Stream):
            _pour(entry, tar, tree)
            continue
        data = _small(entry) if size else b""
        if tar is not None:
            tar.add(header(entry), data, padding(size))
        if tree is not None:
            tree.file(entry, data)


def _small(entry: Entry) -> bytes:
    """Return the whole data of a file, which has exactly the size it said."""
    source, size = entry.source, entry.size
    if isinstance(source, Inline):
        data = source.data
        assert len(data) == size, f"BUG: {entry.path!r} has {len(data)} bytes of {size}"
        return data
    assert isinstance(source, bytes)
    try:
        fd = os.open(source, _OPEN)
        try:
            data = os.read(fd, size + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise _unreadable(source, error) from error
    if len(data) != size:
        raise SourceChanged(source, "grew" if len(data) > size else "shrank")
    return data


def _pour(entry: Entry, tar: TarSink | None, tree: TreeWriter | None) -> None:
    if tar is not None:
        tar.add(header(entry))
    if tree is not None:
        tree.open_file(entry)
    for data in _chunks(entry):
        if tar is not None:
            tar.stream(data)
        if tree is not None:
            tree.data(data)
    if tar is not None:
        tar.add(padding(entry.size))
    if tree is not None:
        tree.close_file(entry)


def _chunks(entry: Entry) -> Iterator[memoryview]:
    """Yield the data of a file in pieces that are only valid until the next one."""
    source, left = entry.source, entry.size
    if isinstance(source, Inline):
        assert len(source.data) == left, f"BUG: {entry.path!r} has {len(source.data)} bytes of {left}"
        for at in range(0, left, _BUFFER):
            yield memoryview(source.data)[at : at + _BUFFER]
        return
    if isinstance(source, Stream):
        while left:
            data = source.file.read(min(left, _BUFFER))
            if not data:
                raise StoreError(f"the data of /{os.fsdecode(entry.path)} ends {left} bytes early")
            left -= len(data)
            yield memoryview(data)
        return
    try:
        fd = os.open(source, _OPEN)
    except OSError as error:
        raise _unreadable(source, error) from error
    try:
        buffer = memoryview(bytearray(min(_BUFFER, left)))
        while left:
            count = os.readv(fd, [buffer[: min(left, _BUFFER)]])
            if not count:
                raise SourceChanged(source, "shrank")
            left -= count
            yield buffer[:count]
        if os.read(fd, 1):
            raise SourceChanged(source, "grew")
    finally:
        os.close(fd)


def _unreadable(source: bytes, error: OSError) -> StoreError:
    if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
        return SourceChanged(source, "vanished")
    return StoreError(f"cannot read {os.fsdecode(source)}: {error.strerror}", hint="make it readable for this user")

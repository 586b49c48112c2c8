"""Joins a source of entries to the sinks of one layer in one pass: every file's data is read once.

Memory is bounded by the buffers here, whatever the size of a file or the number of entries.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerstore.digest import DiffId, Digest
from layerstore.entry import Entry, Inline, Kind, Stream
from layerstore.errors import SourceChanged, StoreError
from layerstore.tarwrite import END, header, padding
from layerstore.treewrite import TreeWriter
from layerstore.version import Contents, Version

if TYPE_CHECKING:
    from layerstore.compress import Piece
    from layerstore.conveyor import Conveyor

_BUFFER = 1 << 20
_BUFFERS = 6  # more than a Conveyor holds
_SMALL = 1 << 18
_WORTH_A_THREAD = 4 << 20
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class TarSink:
    """Hashes the tar of a layer; `forward` gets its bytes too, if given.

    With `digest`, which tells the digest of all that was forwarded, they are only forwarded: they are hashed there.
    As a context manager, it does both in a thread of its own once there is enough to make that worth while.
    """

    def __init__(
        self, forward: Callable[[Piece], None] | None = None, *, digest: Callable[[], Digest] | None = None
    ) -> None:
        self._hash = hashlib.sha256()
        self._digest = digest
        self._forward = forward
        self._parts: list[bytes] = []
        self._pending = 0
        self._managed = False
        self._conveyor: Conveyor[Piece] | None = None
        self.size = 0

    def __enter__(self) -> Self:
        self._managed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._conveyor is not None:
            self._conveyor.abandon()

    def add(self, *parts: bytes) -> None:
        """Append bytes of the tar."""
        self._parts += parts
        for part in parts:
            self._pending += len(part)
        if self._pending >= _BUFFER:
            self._flush()

    def stream(self, data: memoryview) -> None:
        """Append bytes that are only lent: they stay what they are until `_BUFFERS` - 1 more pieces were appended."""
        if self._parts:
            self._flush()
        self._pass(data)

    def finish(self) -> DiffId:
        """Append the end of the tar and return the layer's diff ID."""
        self.add(END)
        self._flush()
        if self._conveyor is not None:
            self._conveyor.finish()
        return DiffId("sha256:" + self._hash.hexdigest()) if self._digest is None else DiffId(self._digest())

    def _flush(self) -> None:
        data = b"".join(self._parts)
        self._parts.clear()
        self._pending = 0
        self._pass(data)

    def _pass(self, data: Piece) -> None:
        self.size += len(data)
        if self._conveyor is not None:
            self._conveyor.put(data)
            return
        self._take(data)
        if self._managed and self.size >= _WORTH_A_THREAD:
            from layerstore.conveyor import HELD, Conveyor  # noqa: PLC0415 - small layers need no thread

            assert HELD < _BUFFERS, "BUG: a buffer is read into while its data is still used"
            self._conveyor = Conveyor(self._take)

    def _take(self, data: Piece) -> None:
        if self._digest is None:
            self._hash.update(data)
        if self._forward is not None:
            self._forward(data)


def join(
    entries: Iterable[Entry],
    tar: TarSink | None,
    tree: TreeWriter | None,
    *,
    contents: Contents | None = None,
    version: Version | None = None,
) -> None:
    """Feed `entries`, in their order, to the sinks. SourceChanged for a file that changed, StoreError if unreadable.

    `contents` gets the digest of every file that is read. With `version`, which needs them, `tree` only gets what
    differs from the version before.
    """
    assert version is None or contents is not None, "BUG: a version without contents"
    buffers = _Buffers()
    for entry in entries:
        if entry.kind is not Kind.FILE:
            head = header(entry) if tar is not None or version is not None else b""
            if tar is not None:
                tar.add(head)
            if tree is not None and (version is None or version.differs(entry, head, b"")):
                _enter(entry, tree, version)
                tree.entry(entry)
            continue
        size = entry.size
        if size > _SMALL or isinstance(entry.source, Stream):
            _pour(entry, _chunks(entry, buffers), tar, tree, contents, version)
            continue
        recalled = contents.recall(entry) if contents is not None and contents.old is not None else None
        if recalled is not None:
            data, digest = recalled
        else:
            data = _small(entry, contents) if size else b""
            digest = hashlib.sha256(data).digest() if contents is not None else b""
        if contents is not None and contents.asks:
            entry = contents.told(entry) if size else _asked(entry, contents)  # noqa: PLW2901 - the same file
        head = header(entry) if tar is not None or version is not None else b""
        if tar is not None:
            tar.add(head, data, padding(size))
        if contents is not None:
            if isinstance(entry.source, bytes):
                contents.note(entry.source, digest)
            if contents.new is not None:
                contents.new.add(digest, data)
        if tree is not None and (version is None or version.differs(entry, head, digest)):
            _enter(entry, tree, version)
            tree.file(entry, data)


def _enter(entry: Entry, tree: TreeWriter, version: Version | None) -> None:
    """Write the directories that lead to something that is written."""
    if version is not None:
        for parent in version.parents(entry.path):
            tree.entry(parent)


def _asked(entry: Entry, contents: Contents | None) -> Entry:
    """Return `entry` with its capability, if it does not say that yet and `contents` asks for it."""
    if contents is None or not contents.asks or not isinstance(entry.source, bytes):
        return entry
    contents.ask(entry.source)
    return contents.told(entry)


def _small(entry: Entry, contents: Contents | None) -> bytes:
    """Return the whole data of a file, which has exactly the size it said, and ask for its capability."""
    source, size = entry.source, entry.size
    if isinstance(source, Inline):
        data = source.data
        assert len(data) == size, f"BUG: {entry.path!r} has {len(data)} bytes of {size}"
        return data
    assert isinstance(source, bytes)
    try:
        fd = os.open(source, _OPEN)
        try:
            if contents is not None and contents.asks:
                contents.ask(source, fd)
            data = os.read(fd, size + 1)
        finally:
            os.close(fd)
    except OSError as error:
        raise _unreadable(source, error) from error
    if len(data) != size:
        raise SourceChanged(source, "grew" if len(data) > size else "shrank")
    return data


def _pour(
    entry: Entry,
    chunks: Iterator[memoryview],
    tar: TarSink | None,
    tree: TreeWriter | None,
    contents: Contents | None,
    version: Version | None,
) -> None:
    """Feed a file that is not held in memory as a whole."""
    entry = _asked(entry, contents)
    head = header(entry) if tar is not None or version is not None else b""
    if tar is not None:
        tar.add(head)
    known = contents.known.get(entry.source) if contents is not None and isinstance(entry.source, bytes) else None
    if tree is not None and version is not None and known is not None and not version.differs(entry, head, known):
        tree = None
    if tree is not None:
        _enter(entry, tree, version)
        tree.open_file(entry)
    running = hashlib.sha256() if contents is not None else None
    for data in chunks:
        if running is not None:
            running.update(data)
        if tar is not None:
            tar.stream(data)
        if tree is not None:
            tree.data(data)
    if tar is not None:
        tar.add(padding(entry.size))
    if tree is not None:
        tree.close_file(entry)
    if contents is None or running is None:
        return
    digest = running.digest()
    if isinstance(entry.source, bytes):
        contents.note(entry.source, digest)
    if tree is not None and version is not None and known is None and not version.differs(entry, head, digest):
        # Only the end of the file has told that the version before has it already.
        tree.remove(entry.path)


class _Buffers:
    """Memory to read into, again and again: the pages of new memory cost more than what is done with them."""

    def __init__(self) -> None:
        self._buffers: deque[memoryview] = deque()

    def next(self) -> memoryview:
        """Return the buffer that was returned longest ago."""
        full = len(self._buffers) == _BUFFERS
        buffer = self._buffers.popleft() if full else memoryview(bytearray(_BUFFER))
        self._buffers.append(buffer)
        return buffer


def _chunks(entry: Entry, buffers: _Buffers) -> Iterator[memoryview]:
    """Yield the data of a file in pieces that are only valid until `_BUFFERS` - 1 more were yielded."""
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
        while left:
            buffer = buffers.next()
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

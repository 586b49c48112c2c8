"""A layer that is written while an earlier one like it is here: what of it has to be written, what the other one has.

A *listing* is a layer path by path, each with a fingerprint of all that its tar says of it, data included. A *delta* is
the tree of a layer as a difference: what its base's tree lacks or has otherwise, over that tree. Where either is kept
is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from layerstore.entry import Entry, Kind
from layerstore.errors import SourceChanged
from layerstore.files import CAPABILITY, capability

if TYPE_CHECKING:
    from layerstore.smallfiles import SmallFiles, SmallFilesWriter

_SIZE = 32
_WORTH_LISTING = 8
_MOST_GONE = 1000
_LISTED = frozenset({Kind.FILE, Kind.DIR, Kind.SYMLINK, Kind.CHAR, Kind.BLOCK, Kind.FIFO})

Listing = dict[bytes, bytes]
"""Fingerprints by path; a directory's path ends in a slash, so that another kind of thing is another path."""


class Contents:
    """The sha256 of files' data by host path: `known` from before, `read` while a layer was written.

    Data that is known is taken from `old` if it has it; the small files of the layer are given to `new`. With `asks`,
    entries do not say yet which files have capabilities: `capabilities` gets those by host path.
    """

    __slots__ = ("asks", "capabilities", "known", "new", "old", "read")

    def __init__(self, known: dict[bytes, bytes] | None = None, *, asks: bool = False) -> None:
        self.known = known or {}
        self.asks = asks
        self.capabilities: dict[bytes, bytes] = {}
        self.read: dict[bytes, bytes] = {}
        self.old: SmallFiles | None = None
        self.new: SmallFilesWriter | None = None

    def ask(self, source: bytes, opened: int | None = None) -> None:
        """See whether a file has a capability, by a descriptor if it is open."""
        for _, value in capability(source if opened is None else opened):
            self.capabilities[source] = value

    def told(self, entry: Entry) -> Entry:
        """Return `entry` with the capability that showed when it was asked for."""
        if not self.capabilities or not isinstance(entry.source, bytes):
            return entry
        value = self.capabilities.get(entry.source)
        return entry if value is None else entry._replace(xattrs=((CAPABILITY, value),))

    def recall(self, entry: Entry) -> tuple[bytes, bytes] | None:
        """Return the data of a file that is known, and its sha256, if it is at hand."""
        if self.old is None or not isinstance(entry.source, bytes):
            return None
        digest = self.known.get(entry.source)
        data = self.old.get(digest, entry.size) if digest is not None else None
        return None if digest is None or data is None else (data, digest)

    def note(self, source: bytes, digest: bytes) -> None:
        """Take note of what was read; SourceChanged if it is not what was known."""
        known = self.known.get(source)
        if known is not None and known != digest:
            raise SourceChanged(source, "changed")
        self.read[source] = digest


class Version:
    """Lists a layer while it is written, and tells what of it the earlier layer `base` has already."""

    def __init__(self, base: Listing | None = None) -> None:
        self.listing: Listing = {}
        self.written = 0
        self._base = base if base is not None else {}
        self._held: list[Entry] = []  # directories as in the base, written only if something below them is

    def differs(self, entry: Entry, head: bytes, digest: bytes) -> bool:
        """Say whether `entry`, with its tar header and the sha256 of its data, has to be written; call it once each."""
        path = entry.path
        directory = entry.kind is Kind.DIR
        key = path + b"/" if directory else path
        mark = self.listing[key] = hashlib.sha256(head + digest).digest()
        # The root that is seen is that of the uppermost tree.
        if self._base.get(key) != mark or not path:
            self.written += 1
            return True
        if directory:
            self._leave(path)
            self._held.append(entry)
        return False

    def parents(self, path: bytes) -> list[Entry]:
        """Return the directories that have to be written before `path` is, outermost first."""
        if not self._held:
            return []
        self._leave(path)
        held, self._held = self._held, []
        return held

    def _leave(self, path: bytes) -> None:
        while self._held and not path.startswith(self._held[-1].path + b"/"):
            self._held.pop()


def can_be_listed(ordered: Sequence[Entry]) -> bool:
    """Say whether versions of the layer can share files: it is worth it, and each entry stands for itself.

    Hard links, whiteouts and opaque directories do not.
    """
    return len(ordered) >= _WORTH_LISTING and all(entry.kind in _LISTED for entry in ordered)


def missing(base: Listing, ordered: Iterable[Entry]) -> tuple[bytes, ...] | None:
    """Return the paths of `base` that must not show through `ordered`; None if they are too many for a delta.

    What is below a directory that is gone, or that something else took the place of, is hidden with it.
    """
    keys = {entry.path + b"/" if entry.kind is Kind.DIR else entry.path for entry in ordered}
    gone = []
    for key in base.keys() - keys:
        path = key.rstrip(b"/")
        parent = path.rpartition(b"/")[0]
        if path and not (key != path and path in keys) and (not parent or parent + b"/" in keys):
            gone.append(path)
    return tuple(sorted(gone)) if len(gone) <= min(_MOST_GONE, len(base) // 2) else None


def whiteouts(gone: Iterable[bytes], ordered: Iterable[Entry]) -> list[Entry]:
    """Return what hides the paths that are `gone` in a delta, with the directories they are in.

    A directory that took a file's place hides the file by itself.
    """
    directories = {entry.path: entry for entry in ordered if entry.kind is Kind.DIR}
    found: dict[bytes, Entry] = {}
    for path in gone:
        if path in directories:
            continue
        parts = path.split(b"/")[:-1]
        for depth in range(1, len(parts) + 1):
            parent = b"/".join(parts[:depth])
            found[parent] = directories[parent]
        found[path] = Entry(path, Kind.WHITEOUT)
    return list(found.values())


def pack(listing: Listing) -> bytes:
    """Return a listing as bytes."""
    paths = b"\0".join(listing)
    return b"%d\0" % len(paths) + paths + b"".join(listing.values())


def unpack(data: bytes) -> Listing:
    """Return the listing that `pack` made bytes of."""
    length, _, rest = data.partition(b"\0")
    size = int(length)
    paths = rest[:size].split(b"\0") if size else []
    marks = rest[size:]
    return dict(zip(paths, [marks[at : at + _SIZE] for at in range(0, len(marks), _SIZE)], strict=True))

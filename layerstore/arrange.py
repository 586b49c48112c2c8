"""Entries in any parent-before-child order, put into the one order a layer's tar has."""

from __future__ import annotations

import os
from collections.abc import Iterable

from layerstore.entry import Entry, Kind
from layerstore.errors import StoreError
from layerstore.marks import MARK, unmask
from layerstore.xattrs import strip

_ROOT_MODE = 0o755


def arrange(entries: Iterable[Entry]) -> list[Entry]:
    """Return `entries` as a tree scanned from disk would give them.

    Sorted by the path's components; the last of several with one path counts; parents that are missing are 0755,
    root's, of time 0; of several names of one inode the first in order is the file; a plain root is left out.
    """
    found: dict[bytes, Entry] = {}
    opaque: set[bytes] = set()
    for given in entries:
        entry = given
        if MARK in given.path or given.kind is Kind.CHAR:
            plain = unmask(given)
            if plain is None:
                continue
            entry = plain
        path, kind = entry.path, entry.kind
        if kind is Kind.OPAQUE:
            opaque.add(path)
        elif kind is Kind.WHITEOUT:
            _remove(path, entry, found, opaque)
        else:
            before = found.get(path)
            if before is not None:
                _replace(before, entry, found, opaque)
            found[path] = entry if not entry.xattrs else entry._replace(xattrs=strip(entry.xattrs))
    _add_parents(found, opaque)
    root = found.pop(b"", None)
    links = [entry for entry in found.values() if entry.kind is Kind.HARDLINK]
    if links:
        _relink(found, links)
    ordered = [found[path] for path in sorted(found, key=_components)]
    if root is not None and (root.mode, root.uid, root.gid, root.xattrs) != (_ROOT_MODE, 0, 0, ()):
        ordered.insert(0, root._replace(mtime_ns=0))
    return _with_opaque(ordered, opaque) if opaque else ordered


def _components(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def _remove(path: bytes, entry: Entry, found: dict[bytes, Entry], opaque: set[bytes]) -> None:
    """A whiteout hides what is below; something of that name in the layer itself stays."""
    before = found.setdefault(path, entry)
    if before.kind is Kind.DIR:
        opaque.add(path)


def _replace(before: Entry, entry: Entry, found: dict[bytes, Entry], opaque: set[bytes]) -> None:
    """A later entry takes an earlier one's place, as if both were unpacked."""
    if before.kind is Kind.DIR and entry.kind is not Kind.DIR:
        below = entry.path + b"/"
        for path in [path for path in found if path.startswith(below)]:
            del found[path]
        opaque.difference_update([path for path in opaque if path == entry.path or path.startswith(below)])
    elif before.kind is not Kind.DIR and entry.kind is Kind.DIR:
        opaque.add(entry.path)


def _add_parents(found: dict[bytes, Entry], opaque: set[bytes]) -> None:
    known: set[bytes] = {b""}
    below = {path.rpartition(b"/")[0]: path for path in found}  # few directories hold many files
    below.update((path, path) for path in opaque)
    for lowest, path in below.items():
        parent = lowest
        while parent not in known:
            known.add(parent)
            entry = found.get(parent)
            if entry is None:
                found[parent] = Entry(parent, Kind.DIR, 0o755)
            elif entry.kind is Kind.WHITEOUT:
                found[parent] = Entry(parent, Kind.DIR, 0o755)
                opaque.add(parent)
            elif entry.kind is not Kind.DIR:
                raise StoreError(f"/{os.fsdecode(path)} lies below /{os.fsdecode(parent)}, which is no directory")
            parent = parent.rpartition(b"/")[0]


def _relink(found: dict[bytes, Entry], links: list[Entry]) -> None:
    """Make the first name in order the file and the others links to it."""
    groups: dict[bytes, list[bytes]] = {}
    for link in links:
        target = link.target
        seen = {link.path}
        while (aim := found.get(target)) is not None and aim.kind is Kind.HARDLINK:
            if target in seen:
                raise StoreError(f"/{os.fsdecode(link.path)} is a hard link to itself")
            seen.add(target)
            target = aim.target
        if aim is None or aim.kind in (Kind.DIR, Kind.WHITEOUT):
            raise StoreError(
                f"/{os.fsdecode(link.path)} is a hard link to /{os.fsdecode(target)}, which the layer does not hold"
            )
        groups.setdefault(target, [target]).append(link.path)
    for target, names in groups.items():
        file = found[target]
        names.sort(key=_components)
        for name in names:
            found[name] = file._replace(
                path=name, kind=Kind.HARDLINK, target=names[0], size=0, rdev=(0, 0), xattrs=(), inode=None
            )
        found[names[0]] = file._replace(path=names[0])


def _with_opaque(ordered: list[Entry], opaque: set[bytes]) -> list[Entry]:
    marked: list[Entry] = [Entry(b"", Kind.OPAQUE)] if b"" in opaque and not (ordered and not ordered[0].path) else []
    for entry in ordered:
        marked.append(entry)
        if entry.path in opaque:
            marked.append(Entry(entry.path, Kind.OPAQUE))
    return marked

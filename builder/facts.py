"""Facts: what a copied layer depends on in the image below it, and when a file is there already.

A layer is good for another image if that answers all its facts the same.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

from builder.chown import OwnerError, resolve_owner
from builder.errors import BuildError
from builder.filetree import EmptyTree, FileTree
from layerstore.entry import Entry, Inline, Kind, Stream
from layerstore.errors import SourceChanged, StoreError
from layerstore.files import CAPABILITY

_SECOND = 1_000_000_000
_OVER = "over "
_CHUNK = 1 << 20


class Fact(NamedTuple):
    """One thing that was looked up in the destination, and the answer; all three are text, for JSON.

    `what` is "entry" (everything a layer could take over from it), "absent-or-dir" (all that matters of a path where a
    directory is wanted), "over SIZE SECONDS" (what matters where a file of that size and time is written: whether the
    same is there), "resolve" (a path without links) or "owner" (the ids behind a --chown).
    """

    what: str
    path: str
    answer: str


def facts_hold(facts: Sequence[Sequence[str]] | None, dest: FileTree | None) -> bool:
    """Say whether `dest` answers every fact as it was answered then, so that the layer made then can be used again.

    Takes facts as they come out of JSON, too.
    """
    if facts is None:
        return False
    tree = dest if dest is not None else EmptyTree()
    return all(_answer(what, text, tree, dest) == answer for what, text, answer in facts)


def over(entry: Entry) -> str:
    """Return what is asked of a path before `entry`, which is no directory, is written there."""
    return f"{_OVER}{entry.size} {entry.mtime_ns // _SECOND}"


def describe(what: str, entry: Entry | None, digest: Callable[[Entry], bytes] | None = None) -> str:
    """Return what matters of `entry` for a fact of the kind `what`; `digest` hashes a file's data, if need be."""
    directory = entry is not None and entry.kind is Kind.DIR
    if what.startswith(_OVER):
        if entry is None or directory or what != over(entry):
            return "dir" if directory else "other"
        return f"{identity(entry)} {data_of(entry, digest or digest_of)}"
    if entry is None:
        return "absent"
    xattrs = " ".join(f"{key.hex()}={value.hex()}" for key, value in entry.xattrs)
    if what == "absent-or-dir":
        return f"dir {xattrs}" if directory else "other"
    target = entry.target.hex() if entry.kind is Kind.SYMLINK else ""
    return f"{entry.kind.name} {entry.mode:o} {entry.uid} {entry.gid} {target} {xattrs}"


def identity(entry: Entry) -> str:
    """Return what is compared of an entry and what the destination has there: all but names, times and data.

    Where these are equal too, BuildKit's differ takes an entry for no change (its sameDirent); of a directory neither
    time nor data counts.
    """
    # A symlink's mode says nothing.
    mode = 0 if entry.kind is Kind.SYMLINK else entry.mode
    capability = "".join(value.hex() for key, value in entry.xattrs if key == CAPABILITY)
    major, minor = entry.rdev
    return f"{entry.kind.name} {mode:o} {entry.uid}:{entry.gid} {major}:{minor} {capability}"


def data_of(entry: Entry, digest: Callable[[Entry], bytes]) -> str:
    """Return what an entry that is no directory holds: the sha256 of its data, or where it leads."""
    return entry.target.hex() if entry.kind is Kind.SYMLINK else digest(entry).hex() if entry.size else ""


def digest_of(entry: Entry) -> bytes:
    """Return the sha256 of a file's data; a stream can be read again afterwards. SourceChanged if it went away."""
    match entry.source:
        case Inline(data):
            return hashlib.sha256(data).digest()
        case Stream(file):
            running = hashlib.sha256()
            while data := file.read(_CHUNK):
                running.update(data)
            file.seek(0)
            return running.digest()
        case host:
            try:
                descriptor = os.open(host, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
            except FileNotFoundError as error:
                raise SourceChanged(host, "went away") from error
            except OSError as error:
                raise BuildError(f"cannot read {os.fsdecode(host)}: {error.strerror}") from error
            with open(descriptor, "rb") as opened:
                return hashlib.file_digest(opened, "sha256").digest()


def _answer(what: str, text: str, tree: FileTree, dest: FileTree | None) -> str:
    try:
        match what:
            case "owner":
                owner = resolve_owner(text, dest)
                return f"{owner.uid}:{owner.gid}"
            case "resolve":
                return os.fsdecode(tree.resolve(os.fsencode(text)))
            case _:
                return describe(what, tree.lstat(os.fsencode(text)))
    except (OwnerError, BuildError, StoreError, OSError):
        return "?"

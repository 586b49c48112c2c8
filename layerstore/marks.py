"""The names by which a layer's tar marks removed paths (OCI image-spec layer.md, "Whiteouts").

A file of a build context or archive may happen to have such a name: the reference passes it on, so that in the finished
image it is a deletion. Here it becomes one at once, whatever form the layer takes.
"""

from __future__ import annotations

import os

from layerstore.entry import Entry, Kind
from layerstore.errors import UnsafeLayer

MARK = b".wh."
OPAQUE_MARK = b".wh..wh..opq"
_AUFS = b".wh..wh."


def unmask(entry: Entry) -> Entry | None:
    """Return the WHITEOUT or OPAQUE that `entry` stands for by its name, `entry` itself if it stands for none.

    None for the bookkeeping files of aufs, which mean nothing. UnsafeLayer for a mark that names nothing, or that is a
    directory.
    """
    parent, slash, name = entry.path.rpartition(b"/")
    if not name.startswith(MARK):
        if entry.kind is Kind.CHAR and entry.rdev == (0, 0):
            return Entry(entry.path, Kind.WHITEOUT)
        return entry
    if entry.kind in (Kind.WHITEOUT, Kind.OPAQUE) or entry.kind is Kind.DIR:
        raise UnsafeLayer(f"/{os.fsdecode(entry.path)}: no image can hold a path of that name")
    if name == OPAQUE_MARK:
        return Entry(parent, Kind.OPAQUE)
    if name.startswith(_AUFS):
        return None
    gone = name[len(MARK) :]
    if gone in (b"", b".", b".."):
        raise UnsafeLayer(f"/{os.fsdecode(entry.path)} is a whiteout that names nothing")
    return Entry(parent + slash + gone, Kind.WHITEOUT)

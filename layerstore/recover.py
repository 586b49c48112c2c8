"""Content without a record: what a power cut or a crash leaves, and how it is taken away.

A record always goes before its content, so that at no time a record promises what is not there. Content that no record
claims is harmless: whoever makes it anew puts it in the same place.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence

from layerstore.home import Home

DELTA = b".delta"
"""What the name of a tree ends with that is only what its layer adds to another one's tree."""

SMALL = b".small"
"""What the name of a file beside a tree ends with that has the data of the layer's small files."""


def recover(home: Home) -> None:
    """Make the store trust nothing that another boot left unsynced; one read where that was done already.

    A killed process needs none of this, only a power cut or a crash of the machine does (docs/design.md "Durability").
    """
    db = home.db
    row = db.row("SELECT value FROM meta WHERE key = 'boot'")
    if row is not None and row[0] == home.boot:
        return
    paths: list[bytes] = []
    with db.transaction():
        for (text,) in db.rows("SELECT diff_id FROM layers WHERE boot IS NOT NULL AND boot != ?", (home.boot,)):
            paths += forget_layer(home, text)
        # A tree may have been made anew, on this boot, below a delta that was synced long ago.
        for (text,) in db.rows(
            "SELECT diff_id FROM deltas WHERE NOT EXISTS"
            "(SELECT 1 FROM layers WHERE layers.diff_id = deltas.base AND tree = 1)"
        ):
            paths += forget_layer(home, text)
        for (text,) in db.rows("SELECT digest FROM blobs WHERE boot IS NOT NULL AND boot != ?", (home.boot,)):
            paths.append(b"blobs/sha256/" + text[7:].encode())
            db.write("DELETE FROM blobs WHERE digest = ?", (text,))
            db.write("DELETE FROM packed WHERE digest = ?", (text,))
        db.write("DELETE FROM cache WHERE boot IS NOT NULL AND boot != ?", (home.boot,))
        db.write("DELETE FROM images WHERE boot IS NOT NULL AND boot != ?", (home.boot,))
        db.write("DELETE FROM indexes WHERE boot IS NOT NULL AND boot != ?", (home.boot,))
        db.write("DELETE FROM names WHERE image NOT IN (SELECT id FROM images UNION SELECT id FROM indexes)")
        db.write("INSERT OR REPLACE INTO meta(key, value) VALUES ('boot', ?)", (home.boot,))
    for aside in take_unrecorded(home, paths):
        home.disk.remove(aside)


def forget_layer(home: Home, diff_id: str) -> list[bytes]:
    """Delete the records of a layer, inside a transaction; return where its trees would be, below the store's root."""
    for table in ("layers", "packed", "deltas", "listings"):
        home.db.write(f"DELETE FROM {table} WHERE diff_id = ?", (diff_id,))  # noqa: S608 - fixed names
    tree = b"trees/" + diff_id[7:].encode()
    return [tree, tree + DELTA, tree + SMALL]


def take_unrecorded(home: Home, paths: Sequence[bytes], *, seize: bool = False) -> list[bytes]:
    """Move those of `paths` (below the store's root) that no record claims aside; return where they are now.

    With `seize` only what nobody holds a lock on.
    """
    if not paths:
        return []
    with home.db.transaction():
        moved = [
            _seize(home, path) if seize else home.disk.move_aside(home.disk.path(path))
            for path in paths
            if is_unrecorded(home, path)
        ]
    return [aside for aside in moved if aside is not None]


def is_unrecorded(home: Home, path: bytes) -> bool:
    """Return whether no record claims what lies at `path`."""
    place, _, name = path.rpartition(b"/")
    if place in (b"tmp", b"work"):
        return True
    text = "sha256:" + os.fsdecode(name.removesuffix(DELTA).removesuffix(SMALL))
    if place == b"trees" and name.endswith(DELTA):
        return home.db.row("SELECT 1 FROM deltas WHERE diff_id = ?", (text,)) is None
    if place == b"trees" and name.endswith(SMALL):
        return home.db.row("SELECT 1 FROM listings WHERE diff_id = ?", (text,)) is None
    if place == b"trees":
        return home.db.row("SELECT 1 FROM layers WHERE diff_id = ? AND tree = 1", (text,)) is None
    return home.db.row("SELECT 1 FROM blobs WHERE digest = ?", (text,)) is None


def _seize(home: Home, path: bytes) -> bytes | None:
    """Move litter aside if nobody holds it; the work directory beside an upper is held with it."""
    if path.endswith(b".work") and os.path.lexists(home.disk.path(path.removesuffix(b".work"))):
        return None
    try:
        fd = os.open(home.disk.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    else:
        return home.disk.move_aside(home.disk.path(path))
    finally:
        os.close(fd)

"""What is done once per boot: records whose content never reached the disk before the last one ended are dropped.

See docs/design.md "Durability". A killed process needs none of this, only a power cut or crash of the machine does.
"""

from __future__ import annotations

from layerstore.digest import DiffId, Digest
from layerstore.home import Home


def recover(home: Home) -> None:
    """Make the store trust nothing that another boot left unsynced; one read where that was done already."""
    db = home.db
    row = db.row("SELECT value FROM meta WHERE key = 'boot'")
    if row is not None and row[0] == home.boot:
        return
    gone: list[bytes | None] = []
    with db.transaction():
        for (text,) in db.rows("SELECT diff_id FROM layers WHERE boot IS NOT NULL AND boot != ?", (home.boot,)):
            gone.append(home.disk.move_aside(home.disk.path(b"trees", DiffId(text).hex.encode())))
            db.write("DELETE FROM layers WHERE diff_id = ?", (text,))
            db.write("DELETE FROM packed WHERE diff_id = ?", (text,))
        for (text,) in db.rows("SELECT digest FROM blobs WHERE boot IS NOT NULL AND boot != ?", (home.boot,)):
            gone.append(home.disk.move_aside(home.disk.path(b"blobs/sha256", Digest(text).hex.encode())))
            db.write("DELETE FROM blobs WHERE digest = ?", (text,))
            db.write("DELETE FROM packed WHERE digest = ?", (text,))
        db.write("DELETE FROM cache WHERE boot IS NOT NULL AND boot != ?", (home.boot,))
        db.write("DELETE FROM images WHERE boot IS NOT NULL AND boot != ?", (home.boot,))
        db.write("DELETE FROM names WHERE image NOT IN (SELECT id FROM images)")
        db.write("INSERT OR REPLACE INTO meta(key, value) VALUES ('boot', ?)", (home.boot,))
    for path in gone:
        if path is not None:
            home.disk.remove(path)

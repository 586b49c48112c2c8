"""A lease: what is read or made while it lives is safe from gc, and is on disk when it has ended.

A lease is a locked file in `locks/` whose name says when it began. Everything used since the oldest lease that is still
locked stays; each read or write of the store notes the time on the record it uses. The kernel drops the lock of a
process that died, so nothing has to be cleaned up for leases to end.
"""

from __future__ import annotations

import contextlib
import os
from types import TracebackType

from layerstore.home import Home
from layerstore.lock import clear, try_hold

PREFIX = b"lease-"


class Lease:
    """One running command's claim on the store; a context manager, entered by `Store.lease`."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._path = home.disk.path(b"locks", PREFIX + b"%d-" % home.clock() + home.disk.name())
        self._fd: int | None = None

    def __enter__(self) -> Lease:
        self._fd = try_hold(self._path)
        assert self._fd is not None, "BUG: two leases of one name"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.sync()
        finally:
            if self._fd is not None:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(self._path)
                os.close(self._fd)
                self._fd = None

    def sync(self) -> None:
        """Put everything the store has got so far on disk; nothing is done where nothing is new.

        Afterwards the records no longer depend on this boot. Images that got a name are certain to be there after a
        power cut; of cache records, the last few may be lost.
        """
        sync(self._home)


def sync(home: Home) -> None:
    """Write all content to disk and then free its records from the boot they were made in."""
    db = home.db
    new = db.rows(
        "SELECT 0, diff_id, '' FROM layers WHERE boot IS NOT NULL"
        " UNION ALL SELECT 1, digest, '' FROM blobs WHERE boot IS NOT NULL"
        " UNION ALL SELECT 2, id, '' FROM images WHERE boot IS NOT NULL"
        " UNION ALL SELECT 3, key, variant FROM cache WHERE boot IS NOT NULL"
        " UNION ALL SELECT 4, id, '' FROM indexes WHERE boot IS NOT NULL"
    )
    if not new:
        return
    home.disk.sync()
    with db.transaction(durable=any(row[0] in (2, 4) for row in new)):
        for number, sql in enumerate(
            (
                "UPDATE layers SET boot = NULL WHERE diff_id = ?",
                "UPDATE blobs SET boot = NULL WHERE digest = ?",
                "UPDATE images SET boot = NULL WHERE id = ?",
                "UPDATE cache SET boot = NULL WHERE key = ? AND variant = ?",
                "UPDATE indexes SET boot = NULL WHERE id = ?",
            )
        ):
            for row in new:
                if row[0] == number:
                    db.write(sql, row[1:3] if number == 3 else row[1:2])


def live(home: Home) -> int | None:
    """Return when the oldest living lease began (nanoseconds since the epoch), None if there is none.

    Lease files of dead processes are removed on the way.
    """
    began = (name[len(PREFIX) :].split(b"-", 1)[0] for name in clear(home.disk.path(b"locks"), PREFIX))
    return min((int(text) for text in began if text.isdigit()), default=None)

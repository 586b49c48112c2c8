"""A lease: what is read or made while it lives is safe from gc, and is on disk when it has ended.

A lease is a locked file in `locks/` whose name says since when it claims what was used: since it began, or longer.
Everything used since the earliest claim that is still locked stays; each read or write of the store notes the time on
the record it uses, unless that was noted since the claim. The kernel drops the lock of a process that died, so nothing
has to be cleaned up for leases to end. A sweep keeps new leases waiting: whoever finds a record without noting its use
has been seen by all sweeps that could take it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterable
from types import TracebackType

from layerstore.home import Home
from layerstore.lock import clear, hold, take

LOOKBACK_NS = 600 * 1_000_000_000
"""How long what was used counts as used for those that use it often: doing so again then writes nothing at all."""

PREFIX = b"lease-"
_SWEEP = b"sweep"


class Lease:
    """One running command's claim on the store; a context manager, entered by `Store.lease`."""

    def __init__(self, home: Home, *, sync: bool = True, lookback: int = 0) -> None:
        """`lookback` is how many nanoseconds before its beginning it claims what was used, too."""
        self._home = home
        self._sync = sync
        self._claim = home.clock() - lookback
        self._path = home.disk.path(b"locks", PREFIX + b"%d-" % self._claim + home.disk.name())
        self._fd: int | None = None

    def __enter__(self) -> Lease:
        self._fd = take(self._path)  # whoever looks for dead leases may hold it for a moment
        _wait_for_sweep(self._home)
        self._home.claims.append(self._claim)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._sync:
                self.sync()
        finally:
            self._home.claims.remove(self._claim)
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


def use_layers(home: Home, diff_ids: Iterable[str]) -> bool:
    """Keep layers from gc for as long as this process's leases live; False if one of them is not here."""
    db = home.db
    unclaimed = []
    for diff_id in diff_ids:
        row = db.row("SELECT used FROM layers WHERE diff_id = ?", (diff_id,))
        if row is None:
            return False
        if not home.is_claimed(row[0]):
            unclaimed.append(diff_id)
    if not unclaimed:
        return True
    now = home.clock()
    with db.transaction():
        return all(db.write("UPDATE layers SET used = ? WHERE diff_id = ?", (now, diff_id)) for diff_id in unclaimed)


def sweeping(home: Home) -> contextlib.AbstractContextManager[None]:
    """Hold back new leases, so that `live` stays true until the end of the block."""
    return hold(home.disk.path(b"locks", _SWEEP))


def _wait_for_sweep(home: Home) -> None:
    try:
        fd = os.open(home.disk.path(b"locks", _SWEEP), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # one that begins from now on sees this lease
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def live(home: Home) -> int | None:
    """Return since when living leases claim what was used (nanoseconds since the epoch), None if there are none.

    Lease files of dead processes are removed on the way.
    """
    began = (name[len(PREFIX) :].split(b"-", 1)[0] for name in clear(home.disk.path(b"locks"), PREFIX))
    return min((int(text) for text in began if text.isdigit()), default=None)

"""The store's SQLite database: its schema, one connection per thread, errors in words; knows no meaning of a row.

WAL lets readers and one writer work side by side. `synchronous = NORMAL` keeps the file whole over a power cut but may
lose the last transactions, which is what a record's boot id is for (docs/design.md "Durability").
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from layerstore.durable import step
from layerstore.errors import StoreUnusable
from layerstore.lock import hold

if TYPE_CHECKING:
    import sqlite3
else:
    import _sqlite3 as sqlite3  # without the adapters for dates, which take longer to load than all else here

FORMAT = 4
_BUSY_SECONDS = 60.0

_SCHEMA = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS layers(
    diff_id TEXT PRIMARY KEY, size INTEGER NOT NULL, tree INTEGER NOT NULL, outside INTEGER NOT NULL,
    used INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS blobs(
    digest TEXT PRIMARY KEY, size INTEGER NOT NULL, used INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS packed(
    diff_id TEXT NOT NULL, digest TEXT NOT NULL, compression TEXT NOT NULL, media_type TEXT NOT NULL,
    size INTEGER NOT NULL, verified INTEGER NOT NULL,
    PRIMARY KEY(diff_id, digest)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS packed_digest ON packed(digest);
CREATE TABLE IF NOT EXISTS deltas(
    diff_id TEXT PRIMARY KEY, base TEXT NOT NULL, gone BLOB NOT NULL, written INTEGER NOT NULL,
    total INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS deltas_base ON deltas(base);
CREATE TABLE IF NOT EXISTS listings(diff_id TEXT PRIMARY KEY, data BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS images(
    id TEXT PRIMARY KEY, config BLOB NOT NULL, layers TEXT NOT NULL, manifest TEXT, created INTEGER NOT NULL,
    boot TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS indexes(
    id TEXT PRIMARY KEY, members TEXT NOT NULL, manifest TEXT, created INTEGER NOT NULL, boot TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS names(name TEXT PRIMARY KEY, image TEXT NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS names_image ON names(image);
CREATE TABLE IF NOT EXISTS cache(
    key TEXT NOT NULL, variant TEXT NOT NULL, layers TEXT NOT NULL, facts TEXT NOT NULL, ingredients TEXT NOT NULL,
    result TEXT NOT NULL, created INTEGER NOT NULL, used INTEGER NOT NULL, boot TEXT,
    PRIMARY KEY(key, variant)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS plain_files(
    device INTEGER NOT NULL, bucket INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY(device, bucket)) WITHOUT ROWID;
DROP TABLE IF EXISTS files;
DROP TABLE IF EXISTS stamps;
CREATE TABLE IF NOT EXISTS selections(
    fingerprint BLOB PRIMARY KEY, digest TEXT NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS layers_boot ON layers(boot) WHERE boot IS NOT NULL;
CREATE INDEX IF NOT EXISTS blobs_boot ON blobs(boot) WHERE boot IS NOT NULL;
CREATE INDEX IF NOT EXISTS images_boot ON images(boot) WHERE boot IS NOT NULL;
CREATE INDEX IF NOT EXISTS indexes_boot ON indexes(boot) WHERE boot IS NOT NULL;
CREATE INDEX IF NOT EXISTS cache_boot ON cache(boot) WHERE boot IS NOT NULL;
PRAGMA user_version = {FORMAT};
COMMIT;
"""

Row = tuple[Any, ...]
Value = str | bytes | int | None


class Database:
    """Rows in and out of one SQLite file, from any thread of any process; raises StoreUnusable, never sqlite3's own."""

    def __init__(self, path: bytes, lock: bytes) -> None:
        """Open the database `path`, created if missing; `lock` is the lock file for that."""
        self._path = os.fsdecode(path)
        self._lock = lock
        self._local = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._closed = False
        with self._words():
            self._prepare(self._connection())

    def rows(self, sql: str, values: Sequence[Value] = ()) -> list[Row]:
        """Run one statement and return its rows; a write outside `transaction` is committed at once."""
        with self._words():
            return self._connection().execute(sql, values).fetchall()

    def row(self, sql: str, values: Sequence[Value] = ()) -> Row | None:
        """Run one statement and return its first row, if any."""
        found = self.rows(sql, values)
        return found[0] if found else None

    def write(self, sql: str, values: Sequence[Value] = ()) -> int:
        """Run one statement that writes; return how many rows it touched."""
        step("write")
        with self._words():
            return self._connection().execute(sql, values).rowcount

    def write_many(self, sql: str, rows: Iterable[Sequence[Value]]) -> None:
        """Run one statement for each of `rows`, in one transaction."""
        with self.transaction(), self._words():
            self._connection().executemany(sql, rows)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Hold the write lock: what is written inside is there wholly or not at all; inside another one, part of it.

        With `durable` the commit is on disk when this returns.
        """
        with self._words():
            connection = self._connection()
            if connection.in_transaction:
                nested = True
            else:
                nested = False
                if durable:
                    connection.execute("PRAGMA synchronous = FULL")
                step("begin")
                connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            if not nested:
                step("commit")
                with self._words():
                    connection.execute("COMMIT")
        except BaseException:
            if not nested and connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("ROLLBACK")
            raise
        finally:
            if durable and not nested:
                with contextlib.suppress(sqlite3.Error):
                    connection.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        """Close every thread's connection."""
        self._closed = True
        while self._all:
            with contextlib.suppress(sqlite3.Error):
                self._all.pop().close()

    def faults(self) -> list[str]:
        """Return what SQLite's own check finds wrong, nothing if all is well."""
        found = [str(row[0]) for row in self.rows("PRAGMA integrity_check")]
        return [] if found == ["ok"] else found

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._closed:
            assert not self._closed, "BUG: the store is used after it was closed"
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous = NORMAL")
            self._local.connection = connection
            self._all.append(connection)
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == FORMAT:
            return
        if version > FORMAT:
            raise StoreUnusable(
                f"{self._path} was written by a newer version (format {version}, this one knows {FORMAT})",
                hint="use that version, or another root for the store",
            )
        # SQLite's busy timeout does not cover two processes that switch a new database to WAL at once.
        with hold(self._lock):
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA)

    @contextlib.contextmanager
    def _words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            text = str(error)
            if "full" in text:
                hint = "free some space or choose another root for the store"
            elif "locked" in text:
                hint = "another process holds the database; try again when it is done"
            elif "readonly" in text or "unable to open" in text:
                hint = "choose a root that this user can write to"
            else:
                hint = f"move {self._path} away; images and cache are then built anew"
            raise StoreUnusable(f"the store's database {self._path}: {text}", hint=hint) from error

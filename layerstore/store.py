"""The store: one directory of images, layers, blobs and cache records, shared by many processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from layerstore.blobs import Blobs
from layerstore.cache import Cache
from layerstore.db import Database
from layerstore.durable import Disk, boot_id
from layerstore.files import Files
from layerstore.home import Home
from layerstore.images import Images
from layerstore.lease import Lease
from layerstore.lock import hold, lock_file, release, try_hold
from layerstore.recover import recover

if TYPE_CHECKING:
    from layerstore.check import Fault
    from layerstore.gc import Plan
    from layerstore.indexes import Indexes
    from layerstore.layers import Layers


class Store:
    """An open store; safe to use from several threads. Close it, or use it as a context manager."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.root = Path(os.fsdecode(home.disk.root))
        self.blobs = Blobs(home)
        self.images = Images(home)
        self.cache = Cache(home)
        self.files = Files(home)
        self._layers: Layers | None = None
        self._indexes: Indexes | None = None

    @classmethod
    def open(cls, root: Path, *, clock: Callable[[], int] = time.time_ns) -> Store:
        """Open the store in the directory `root`, made if missing; `clock` returns nanoseconds since the epoch.

        Content of another boot that never reached the disk is dropped. StoreUnusable.
        """
        disk = Disk(os.path.abspath(os.fsencode(root)))
        database = disk.path(b"store.db")
        if not os.path.exists(database):
            disk.create()
        home = Home(disk, Database(database, disk.path(b"locks/schema")), boot_id(), clock)
        recover(home)
        return cls(home)

    @property
    def layers(self) -> Layers:
        """The layers; their code is loaded when something asks for them."""
        if self._layers is None:
            from layerstore.layers import Layers  # noqa: PLC0415 - a build that is all cached touches no layer

            self._layers = Layers(self._home, self.blobs)
        return self._layers

    @property
    def indexes(self) -> Indexes:
        """The indexes of images for several platforms; their code is loaded when something asks for them."""
        if self._indexes is None:
            from layerstore.indexes import Indexes  # noqa: PLC0415 - most builds are for one platform

            self._indexes = Indexes(self._home, self.images)
        return self._indexes

    def close(self) -> None:
        """Close the database; using the store afterwards is a bug."""
        self._home.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def lease(self, *, sync: bool = True, lookback: int = 0) -> contextlib.AbstractContextManager[Lease]:
        """Keep what is read or made inside from gc; leaving puts it on disk with one sync.

        Without `sync` that is left to the next lease: for what can be made again from what is on disk. What others have
        used in the `lookback` nanoseconds before is kept meanwhile, too: reading that once more then writes nothing.
        """
        return Lease(self._home, sync=sync, lookback=lookback)

    def lock(self, name: str, *, shared: bool = False) -> contextlib.AbstractContextManager[None]:
        """Wait for the lock `name` and hold it against other processes and threads, or share it with others who do."""
        return hold(lock_file(self._home.disk.path(b"locks"), "key-" + name), shared=shared)

    def try_lock(self, name: str, held: contextlib.ExitStack, *, shared: bool = False) -> bool:
        """Take the lock `name` until `held` ends, if that needs no waiting; return whether it was to be had."""
        path = lock_file(self._home.disk.path(b"locks"), "key-" + name)
        fd = try_hold(path, shared=shared)
        if fd is None:
            return False
        if shared:
            held.callback(os.close, fd)
        else:
            held.callback(release, path, fd)
        return True

    def gc(self, *, keep_used_since: int = 0) -> Plan:
        """Return what could go: cache records not used since then (nanoseconds), and what nothing needs any more.

        `sweep` carries it out.
        """
        from layerstore.gc import plan  # noqa: PLC0415 - only `pybuild prune` needs it

        return plan(self._home, keep_used_since=keep_used_since)

    def sweep(self, plan: Plan) -> int:
        """Remove what `plan` lists and nobody has begun to use since; return the bytes that were freed."""
        from layerstore.gc import sweep  # noqa: PLC0415 - only `pybuild prune` needs it

        return sweep(self._home, plan)

    def check(self) -> list[Fault]:
        """Recompute everything and return all that is wrong; nothing is changed."""
        from layerstore.check import check  # noqa: PLC0415 - only `pybuild store check` needs it

        return check(self._home)

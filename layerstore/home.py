"""What every part of one open store shares: its directory, its database, this boot, the clock."""

from __future__ import annotations

from collections.abc import Callable

from layerstore.db import Database
from layerstore.durable import Disk


class Home:
    """One open store, without the nouns in it. `clock` returns nanoseconds since the epoch."""

    __slots__ = ("boot", "clock", "db", "disk")

    def __init__(self, disk: Disk, db: Database, boot: str, clock: Callable[[], int]) -> None:
        self.disk = disk
        self.db = db
        self.boot = boot
        self.clock = clock

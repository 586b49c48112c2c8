"""What every part of one open store shares: its directory, its database, this boot, the clock."""

from __future__ import annotations

from collections.abc import Callable

from layerstore.db import Database
from layerstore.durable import Disk


class Home:
    """One open store, without the nouns in it. `clock` returns nanoseconds since the epoch.

    `claims` are the times since when what was used is kept from gc, one for each living lease of this process.
    """

    __slots__ = ("boot", "claims", "clock", "db", "disk")

    def __init__(self, disk: Disk, db: Database, boot: str, clock: Callable[[], int]) -> None:
        self.disk = disk
        self.db = db
        self.boot = boot
        self.clock = clock
        self.claims: list[int] = []

    def is_claimed(self, used: int) -> bool:
        """Say whether what was `used` at that time need not be noted as used again: a lease keeps it anyway."""
        return bool(self.claims) and used >= max(self.claims)

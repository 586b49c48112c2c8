"""What the store can do without: a plan made by marking what is needed, and the sweep that carries it out.

Needed are images with their layers and manifests, cache records that were used lately with their layers, everything
used since the oldest living lease began. The sweep looks again, under the database's write lock, whether what it takes
was used since; content leaves its place in the same transaction as its record, so nobody finds one without the other.
Litter of dead processes is taken where it can be locked: whoever makes something in `tmp/` or `work/` locks it at once,
and what is younger than a minute is left alone because it may not have been locked yet.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from typing import NamedTuple

from layerstore.home import Home
from layerstore.lease import live

_YOUNG_NS = 60_000_000_000


class Plan(NamedTuple):
    """What may go: cache keys with variants, diff IDs, blob digests, and paths below the store's root."""

    horizon: int
    """Nothing that was used at this time (nanoseconds) or later is taken."""
    cache: tuple[tuple[str, str], ...]
    layers: tuple[str, ...]
    blobs: tuple[str, ...]
    litter: tuple[bytes, ...]

    def describe(self) -> list[str]:
        """Say in lines of text what would go."""
        return [
            *(f"cache record {key}" for key, _ in self.cache),
            *(f"layer {diff_id}" for diff_id in self.layers),
            *(f"blob {digest}" for digest in self.blobs),
            *(f"litter {os.fsdecode(path)}" for path in self.litter),
        ]


def plan(home: Home, *, keep_used_since: int = 0) -> Plan:
    """Return what may go; `keep_used_since` (nanoseconds) is the age at which a cache record is given up."""
    began = live(home)
    horizon = home.clock() if began is None else began
    db = home.db
    old = min(horizon, keep_used_since)
    cache: list[tuple[str, str]] = []
    layers = {text for (text,) in db.rows("SELECT diff_id FROM layers WHERE used < ?", (horizon,))}
    for key, variant, diff_ids, used in db.rows("SELECT key, variant, layers, used FROM cache"):
        if used < old:
            cache.append((key, variant))
        else:
            layers.difference_update(diff_ids.split())
    manifests = set()
    for diff_ids, manifest in db.rows(
        "SELECT (SELECT group_concat(value, ' ') FROM json_each(images.layers)), manifest FROM images"
    ):
        layers.difference_update((diff_ids or "").split())
        manifests.add(manifest)
    packed = {digest for digest, diff_id in db.rows("SELECT digest, diff_id FROM packed") if diff_id not in layers}
    blobs = [
        digest
        for (digest,) in db.rows("SELECT digest FROM blobs WHERE used < ? ORDER BY digest", (horizon,))
        if digest not in packed and digest not in manifests
    ]
    return Plan(horizon, tuple(cache), tuple(sorted(layers)), tuple(blobs), tuple(_litter(home, horizon)))


def sweep(home: Home, plan: Plan) -> int:
    """Carry out `plan`, except for what was used since; return the bytes freed."""
    gone: list[bytes | None] = []
    db, disk = home.db, home.disk
    with db.transaction():
        for key, variant in plan.cache:
            db.write("DELETE FROM cache WHERE key = ? AND variant = ? AND used < ?", (key, variant, plan.horizon))
        for diff_id in plan.layers:
            if db.write("DELETE FROM layers WHERE diff_id = ? AND used < ?", (diff_id, plan.horizon)):
                db.write("DELETE FROM packed WHERE diff_id = ?", (diff_id,))
                gone.append(disk.move_aside(disk.path(b"trees", diff_id[7:].encode())))
        for digest in plan.blobs:
            if db.write("DELETE FROM blobs WHERE digest = ? AND used < ?", (digest, plan.horizon)):
                db.write("DELETE FROM packed WHERE digest = ?", (digest,))
                gone.append(disk.move_aside(disk.path(b"blobs/sha256", digest[7:].encode())))
        gone.extend(_seize(home, path) for path in plan.litter if _unknown(home, path))
    freed = 0
    for aside in gone:
        if aside is not None:
            freed += _weigh(aside)
            disk.remove(aside)
    from layerstore.files import Files  # noqa: PLC0415 - avoids a circle

    Files(home).trim()
    return freed


def _litter(home: Home, horizon: int) -> list[bytes]:
    """Return what lies in the store without a record or an owner."""
    found = []
    for place in (b"tmp", b"work", b"trees", b"blobs/sha256"):
        with os.scandir(home.disk.path(place)) as items:
            for item in items:
                age = home.clock() - item.stat(follow_symlinks=False).st_ctime_ns
                path = place + b"/" + item.name
                if age > _YOUNG_NS and _unknown(home, path) and item.stat(follow_symlinks=False).st_ctime_ns < horizon:
                    found.append(path)
    return sorted(found)


def _unknown(home: Home, path: bytes) -> bool:
    """Return whether no record claims what lies at `path`."""
    place, _, name = path.rpartition(b"/")
    if place in (b"tmp", b"work"):
        return True
    text = "sha256:" + os.fsdecode(name)
    if place == b"trees":
        return home.db.row("SELECT 1 FROM layers WHERE diff_id = ? AND tree = 1", (text,)) is None
    return home.db.row("SELECT 1 FROM blobs WHERE digest = ?", (text,)) is None


def _seize(home: Home, path: bytes) -> bytes | None:
    """Move litter aside if nobody holds it; the work directory beside an upper is held with it."""
    if path.endswith(b".work"):
        owner = home.disk.path(path.removesuffix(b".work"))
        if os.path.lexists(owner):
            return None
    try:
        fd = os.open(home.disk.path(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    else:
        return home.disk.move_aside(home.disk.path(path))
    finally:
        os.close(fd)


def _weigh(path: bytes) -> int:
    """Return the bytes that a file or tree takes on disk."""
    total = 0
    todo = [path]
    while todo:
        at = todo.pop()
        with contextlib.suppress(OSError):
            status = os.lstat(at)
            total += status.st_blocks * 512
            if stat.S_ISDIR(status.st_mode):
                todo.extend(at + b"/" + name for name in os.listdir(at))
    return total

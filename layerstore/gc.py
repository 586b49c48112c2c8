"""What the store can do without: a plan made by marking what is needed, and the sweep that carries it out.

Needed are images and indexes with their layers and documents, cache records that were used lately with their layers,
everything used since the earliest claim of a living lease. The sweep looks again, while no lease can begin, what is
claimed, and under the database's write lock whether what it takes was used since. The record goes first, so that a
crash leaves litter rather than a record of nothing; the content leaves its place under the write lock, where it shows
whether somebody has made it anew meanwhile.
Litter of dead processes is taken where it can be locked: whoever makes something in `tmp/` or `work/` locks it at once,
and what is younger than a minute is left alone because it may not have been locked yet.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Sequence
from typing import NamedTuple

from layerstore.files import Files
from layerstore.home import Home
from layerstore.lease import live, sweeping
from layerstore.lock import clear
from layerstore.recover import forget_layer, is_unrecorded, take_unrecorded

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
    claimed = live(home)
    horizon = home.clock() if claimed is None else claimed
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
    manifests.update(manifest for (manifest,) in db.rows("SELECT manifest FROM indexes"))
    # A delta needs its base's tree.
    layers.difference_update(
        base for diff_id, base in db.rows("SELECT diff_id, base FROM deltas") if diff_id not in layers
    )
    packed = {digest for digest, diff_id in db.rows("SELECT digest, diff_id FROM packed") if diff_id not in layers}
    blobs = [
        digest
        for (digest,) in db.rows("SELECT digest FROM blobs WHERE used < ? ORDER BY digest", (horizon,))
        if digest not in packed and digest not in manifests
    ]
    return Plan(horizon, tuple(cache), tuple(sorted(layers)), tuple(blobs), tuple(_litter(home, horizon)))


def sweep(home: Home, plan: Plan) -> int:
    """Carry out `plan`, except for what was used since; return the bytes freed."""
    db = home.db
    paths: list[bytes] = []
    with sweeping(home), db.transaction():
        claimed = live(home)
        horizon = plan.horizon if claimed is None else min(plan.horizon, claimed)
        for key, variant in plan.cache:
            db.write("DELETE FROM cache WHERE key = ? AND variant = ? AND used < ?", (key, variant, horizon))
        for diff_id in _deltas_first(home, plan.layers):
            if db.row(
                "SELECT 1 FROM layers WHERE diff_id = ? AND used < ?"
                " AND NOT EXISTS(SELECT 1 FROM deltas WHERE base = layers.diff_id)",
                (diff_id, horizon),
            ):
                paths += forget_layer(home, diff_id)
        for digest in plan.blobs:
            if db.write("DELETE FROM blobs WHERE digest = ? AND used < ?", (digest, horizon)):
                db.write("DELETE FROM packed WHERE digest = ?", (digest,))
                paths.append(b"blobs/sha256/" + digest[7:].encode())
    gone = take_unrecorded(home, paths)
    gone += take_unrecorded(home, plan.litter, seize=True)
    freed = 0
    for aside in gone:
        freed += _weigh(aside)
        home.disk.remove(aside)
    Files(home).trim()
    for prefix in (b"key-", b"layer-", b"sha256-"):
        clear(home.disk.path(b"locks"), prefix)
    return freed


def _deltas_first(home: Home, diff_ids: Sequence[str]) -> list[str]:
    deltas = {diff_id for (diff_id,) in home.db.rows("SELECT diff_id FROM deltas")}
    return sorted(diff_ids, key=lambda diff_id: diff_id not in deltas)


def _litter(home: Home, horizon: int) -> list[bytes]:
    """Return what lies in the store without a record or an owner."""
    found = []
    for place in (b"tmp", b"work", b"trees", b"blobs/sha256"):
        with os.scandir(home.disk.path(place)) as items:
            for item in items:
                changed = item.stat(follow_symlinks=False).st_ctime_ns
                path = place + b"/" + item.name
                if changed < min(horizon, home.clock() - _YOUNG_NS) and is_unrecorded(home, path):
                    found.append(path)
    return sorted(found)


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

"""Times of files that depend on when a build ran, brought to SOURCE_DATE_EPOCH: in layers and in exported files.

The specification is https://reproducible-builds.org/specs/source-date-epoch/: no time is later than that moment.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from layerstore import CacheKey, CacheRecord, DiffId, Digest, Forms, Store
from layerstore.changes import scan
from layerstore.entry import Entry


def clamped(entries: Iterable[Entry], limit_ns: int | None) -> Iterator[Entry]:
    """Yield the entries with no time later than `limit_ns` (nanoseconds since 1970); None leaves them alone."""
    if limit_ns is None:
        return iter(entries)
    return (entry if entry.mtime_ns <= limit_ns else entry._replace(mtime_ns=limit_ns) for entry in entries)


def dated(entries: Iterable[Entry], moment_ns: int | None) -> Iterator[Entry]:
    """Yield the entries with `moment_ns` as the time of each, None leaves them alone.

    Exported files are all given it, as the reference does: a directory is no image whose base keeps its own times.
    """
    if moment_ns is None:
        return iter(entries)
    return (entry._replace(mtime_ns=moment_ns) for entry in entries)


def rewrite(store: Store, layers: Sequence[DiffId], limit_ns: int) -> tuple[DiffId, ...]:
    """Return layers like `layers` in which no file is later than `limit_ns`: those that hold none stay what they are.

    What a layer became is remembered, so that an image built again from the cache costs no reading. StoreError.
    """
    return tuple(_rewritten(store, diff_id, limit_ns) for diff_id in layers)


def _rewritten(store: Store, diff_id: DiffId, limit_ns: int) -> DiffId:
    ingredients = [["op", "rewrite-timestamp"], ["layer", str(diff_id)], ["limit", str(limit_ns)]]
    key = CacheKey(Digest.of("\0".join(text for pair in ingredients for text in pair).encode()))
    for record in store.cache.find(key):
        return record.layers[0]
    entries = list(scan(os.fsencode(store.layers.tree(diff_id))))
    made = diff_id
    if any(entry.mtime_ns > limit_ns for entry in entries):
        made = store.layers.write(clamped(entries, limit_ns), forms=Forms.TREE).diff_id
    store.cache.put(CacheRecord(key, layers=(made,), ingredients=ingredients))
    return made

"""What a COPY made the last time it was done, found by what it says and where it copies from.

A hint: whoever follows it saves work, and makes the same layer as without it.
"""

from __future__ import annotations

from builder.cachekey import definition, key_of
from builder.ops import CopyOp
from layerstore import CacheRecord, DiffId, Store

_MOST = 16


class Lineage:
    """The layers that the copies `op` from `source` made in `store`, the newest first, one for each `place`.

    `source` names what is copied from, `place` tells sources of one name apart: the host directory of a context.
    """

    def __init__(self, store: Store, op: CopyOp, source: str, place: str) -> None:
        self._store = store
        self._place = place
        self.key = key_of((("last layers of", source), *definition(op)))

    def is_known(self) -> bool:
        """Say whether the copy was ever done, from any place."""
        return bool(self._past())

    def latest(self) -> DiffId | None:
        """Return what it made the last time: from this place, else from any other; None if it never was done."""
        past = self._past()
        if not past:
            return None
        return DiffId(next((layer for place, layer in past if place == self._place), past[0][1]))

    def note(self, layer: DiffId) -> None:
        """Remember what it has made now."""
        past = [(place, diff_id) for place, diff_id in self._past() if place != self._place]
        past.insert(0, (self._place, layer))
        self._store.cache.put(CacheRecord(key=self.key, result=past[:_MOST]))

    def _past(self) -> list[tuple[str, str]]:
        records = self._store.cache.find(self.key)
        return [(place, layer) for place, layer in records[0].result] if records else []

"""What a COPY made and saw the last times it was done, found by what it says and where it copies from.

Hints: whoever follows them saves work, and makes the same layer as without them.
"""

from __future__ import annotations

from collections.abc import Sequence

from builder.cachekey import definition, key_of
from builder.ops import CopyOp
from layerstore import CacheRecord, DiffId, Store

_MOST = 16
_MOST_SAMPLES = 256


class Lineage:
    """The layers that the copies `op` from `source` made in `store`, the newest first, one for each `place`.

    `source` names what is copied from, `place` tells sources of one name apart: the host directory of a context.
    """

    def __init__(self, store: Store, op: CopyOp, source: str, place: str) -> None:
        self._store = store
        self._place = place
        self.key = key_of((("last layers of", source), *definition(op)))
        self._seen = key_of((("samples of", source), *definition(op)))

    def is_known(self) -> bool:
        """Say whether the copy was ever done, from any place."""
        return bool(self._past())

    def latest(self) -> DiffId | None:
        """Return what it made the last time: from this place, else from any other; None if it never was done."""
        past = self._past()
        if not past:
            return None
        return DiffId(next((layer for place, layer in past if place == self._place), past[0][1]))

    def has_seen(self, samples: Sequence[str]) -> bool:
        """Say whether a selection with each of these samples was ever copied, as far as that is remembered."""
        return not samples or set(samples) <= set(self._store.cache.note(self._seen) or ())

    def note(self, layer: DiffId, samples: Sequence[str]) -> None:
        """Remember what it has made now, and the samples of what that was a copy of."""
        past = [(place, diff_id) for place, diff_id in self._past() if place != self._place]
        past.insert(0, (self._place, layer))
        self._store.cache.put(CacheRecord(key=self.key, result=past[:_MOST]))
        if samples:
            seen = [one for one in self._store.cache.note(self._seen) or () if one not in samples]
            self._store.cache.keep_note(self._seen, [*samples, *seen][:_MOST_SAMPLES])

    def _past(self) -> list[tuple[str, str]]:
        records = self._store.cache.find(self.key)
        return [(place, layer) for place, layer in records[0].result] if records else []

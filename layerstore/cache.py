"""Cache records: what an operation with certain inputs made; knows no operation and reads no ingredient."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from layerstore.digest import CacheKey, DiffId, Digest
from layerstore.home import Home
from layerstore.lease import use_layers

Json = Any
"""What json.dumps takes and json.loads gives back: tuples come back as lists."""

_NOTE = "note"
"""The variant of what is no record of an operation."""
_DAY = 24 * 3600 * 1_000_000_000


class CacheRecord(NamedTuple):
    """What the operation `key` made.

    `layers` are the layers it added, lowest first. `facts` were looked up in the parent and have to hold for the
    record to be used; records of one key differ in them. `ingredients` are what the key was hashed from, for people.
    `result` is whatever else the operation yields. `created` is in nanoseconds since the epoch.
    """

    key: CacheKey
    layers: tuple[DiffId, ...] = ()
    facts: Json = None
    ingredients: Json = None
    result: Json = None
    created: int = 0


class Cache:
    """Finds and keeps cache records; part of a Store."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def find(self, key: CacheKey) -> list[CacheRecord]:
        """Return the records of `key`, newest first, whose layers are all here; they are kept from gc by a lease."""
        db = self._home.db
        rows = db.rows(
            "SELECT variant, layers, facts, ingredients, result, created, used FROM cache WHERE key = ?"
            " ORDER BY created DESC",
            (key,),
        )
        found = []
        for variant, layers, facts, ingredients, result, created, used in rows:
            diff_ids = tuple(DiffId(text) for text in layers.split())
            if not self._home.is_claimed(used):
                now = self._home.clock()
                if not db.write("UPDATE cache SET used = ? WHERE key = ? AND variant = ?", (now, key, variant)):
                    continue
            if use_layers(self._home, diff_ids):
                found.append(
                    CacheRecord(key, diff_ids, json.loads(facts), json.loads(ingredients), json.loads(result), created)
                )
        return found

    def put(self, record: CacheRecord) -> None:
        """Keep `record`, in place of one with the same key and facts."""
        facts = _text(record.facts)
        now = self._home.clock()
        self._home.db.write(
            "INSERT OR REPLACE INTO cache(key, variant, layers, facts, ingredients, result, created, used, boot)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                record.key,
                Digest.of(facts.encode()).hex,
                " ".join(record.layers),
                facts,
                _text(record.ingredients),
                _text(record.result),
                record.created or now,
                now,
                self._home.boot,
            ),
        )

    def note(self, key: CacheKey) -> Json:
        """Return what `keep_note` was given for `key`, None if it is not known."""
        db = self._home.db
        row = db.row("SELECT result, used FROM cache WHERE key = ? AND variant = ?", (key, _NOTE))
        if row is None:
            return None
        now = self._home.clock()
        # Only gc asks when a note was used, and counts in days: reading one writes at most once a day.
        if now - row[1] > _DAY:
            db.write("UPDATE cache SET used = ? WHERE key = ? AND variant = ?", (now, key, _NOTE))
        return json.loads(row[0])

    def keep_note(self, key: CacheKey, value: Json) -> None:
        """Keep a hint, or a value that follows from `key` alone: nothing on disk depends on it or is synced for it."""
        now = self._home.clock()
        self._home.db.write(
            "INSERT OR REPLACE INTO cache(key, variant, layers, facts, ingredients, result, created, used, boot)"
            " VALUES (?, ?, '', 'null', 'null', ?, ?, ?, NULL)",
            (key, _NOTE, _text(value), now, now),
        )

    def recent(self, limit: int = 1000) -> list[CacheRecord]:
        """Return the records used last, newest first: where a miss looks for what it nearly hit."""
        rows = self._home.db.rows(
            "SELECT key, layers, facts, ingredients, result, created FROM cache WHERE variant != ?"
            " ORDER BY used DESC LIMIT ?",
            (_NOTE, limit),
        )
        return [
            CacheRecord(
                CacheKey(key),
                tuple(DiffId(text) for text in layers.split()),
                json.loads(facts),
                json.loads(ingredients),
                json.loads(result),
                created,
            )
            for key, layers, facts, ingredients, result, created in rows
        ]

    def drop(self, key: CacheKey) -> None:
        """Forget all records of `key`."""
        self._home.db.write("DELETE FROM cache WHERE key = ?", (key,))

    def clear(self) -> int:
        """Forget every record; return how many there were."""
        return self._home.db.write("DELETE FROM cache")


def _text(value: Json) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))

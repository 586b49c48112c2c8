"""Times brought to a moment."""

from __future__ import annotations

from builder.reproducible import clamped, dated
from layerstore.entry import Entry, Kind

ENTRIES = [Entry(b"old", Kind.FILE, mtime_ns=5), Entry(b"new", Kind.FILE, mtime_ns=20)]


def test_clamped() -> None:
    """SOURCE_DATE_EPOCH is an upper bound for layers, not a time for everything."""
    assert [5, 10] == [entry.mtime_ns for entry in clamped(ENTRIES, 10)]
    assert ENTRIES == list(clamped(ENTRIES, None))


def test_dated() -> None:
    """Exported files all get the moment."""
    assert [10, 10] == [entry.mtime_ns for entry in dated(ENTRIES, 10)]
    assert ENTRIES == list(dated(ENTRIES, None))

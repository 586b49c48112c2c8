"""Images, cache records and remembered files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import layerstore
from layerstore import (
    AmbiguousName,
    CacheKey,
    CacheRecord,
    DiffId,
    Digest,
    Entry,
    Forms,
    Inline,
    Kind,
    Layer,
    NotFound,
    Stamp,
    Store,
    StoreUnusable,
)

SECOND = 1_000_000_000


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def layer(store: Store, text: bytes = b"x") -> Layer:
    return store.layers.write([Entry(b"f", Kind.FILE, size=len(text), source=Inline(text))], forms=Forms.TREE)


def test_image_by_name_id_and_prefix(store: Store) -> None:
    """An image is found by each of its names, its ID and any prefix that fits no other."""
    made = layer(store)
    image = store.images.put(b"{}", layers=[made.diff_id], names=["docker.io/library/a:1", "docker.io/library/b:1"])
    for name in (*image.names, image.id, image.id.hex, image.id.hex[:3], image.id[:12]):
        assert image == store.images.get(name)
    assert ("docker.io/library/a:1", "docker.io/library/b:1") == image.names
    assert None is store.images.get("docker.io/library/c:1")
    assert None is store.images.get("ab")


def test_ambiguous_prefix_names_the_candidates(store: Store) -> None:
    """A prefix that fits two images is an error that lists them."""
    images = [store.images.put(b"{%d}" % number, layers=[]) for number in range(5000)]
    by_prefix: dict[str, list[str]] = {}
    for image in images:
        by_prefix.setdefault(image.id.hex[:3], []).append(image.id)
    prefix, both = next((prefix, ids) for prefix, ids in by_prefix.items() if len(ids) > 1)
    with pytest.raises(AmbiguousName) as caught:
        store.images.get(prefix)
    assert tuple(sorted(both)) == caught.value.candidates


def test_names_move_and_go(store: Store) -> None:
    """A name points to one image; untag keeps the image, remove takes its names with it."""
    first = store.images.put(b"1", layers=[], names=["n:1"])
    second = store.images.put(b"2", layers=[], names=["n:1"])
    assert second == store.images.get("n:1")
    assert () == getattr(store.images.get(first.id), "names", None)
    assert ("m:1", "n:1") == store.images.tag(second, "m:1").names
    assert store.images.untag("n:1")
    assert not store.images.untag("n:1")
    store.images.remove(second)
    assert [first.id] == [image.id for image in store.images.list()]
    assert None is store.images.get("m:1")
    with pytest.raises(NotFound):
        store.images.tag(second, "m:1")


def test_manifest_stays_until_another_is_given(store: Store) -> None:
    """Putting the same config again without a manifest does not forget the one that was written."""
    manifest = store.blobs.put_bytes(b"manifest")
    assert manifest == store.images.put(b"1", layers=[], manifest=manifest).manifest
    assert manifest == store.images.put(b"1", layers=[]).manifest


def test_image_needs_its_layers(store: Store) -> None:
    """An image of layers that are not here is refused, and not half kept."""
    with pytest.raises(NotFound, match="layer"):
        store.images.put(b"1", layers=[DiffId.of(b"nowhere")], names=["n:1"])
    assert [] == store.images.list()


def test_cache_finds_what_was_put(store: Store) -> None:
    """A record comes back as it was put; one with the same key and facts takes its place."""
    made = layer(store)
    key = CacheKey.of(b"key")
    record = CacheRecord(key, (made.diff_id,), {"etc": ["dir", 493]}, [["COPY", "a"]], {"workdir": "/"}, 5)
    store.cache.put(record)
    assert [record] == store.cache.find(key)
    store.cache.put(record._replace(created=6))
    store.cache.put(record._replace(facts={"etc": None}, created=7))
    assert [7, 6] == [found.created for found in store.cache.find(key)]
    assert [] == store.cache.find(CacheKey.of(b"other"))


def test_cache_record_without_its_layer_is_no_hit(store: Store) -> None:
    """Where a layer is gone, the record that promises it is not found."""
    store.cache.put(CacheRecord(CacheKey.of(b"key"), (DiffId.of(b"gone"),)))
    assert [] == store.cache.find(CacheKey.of(b"key"))


def test_notes(store: Store) -> None:
    """A note is found until gc gives it up, is no record of an operation, and asks for nothing to be synced."""
    key = CacheKey("sha256:" + "1" * 64)
    assert store.cache.note(key) is None
    store.cache.keep_note(key, {"warnings": []})
    store.cache.keep_note(key, {"warnings": ["a"]})

    assert {"warnings": ["a"]} == store.cache.note(key)
    assert [] == store.cache.recent()
    assert [] == store.check()
    with Store.open(store.root) as other:
        assert {"warnings": ["a"]} == other.cache.note(key)
    store.sweep(store.gc(keep_used_since=2**62))
    assert store.cache.note(key) is None


@pytest.mark.parametrize("count", [3, 300])
def test_remembered_files(store: Store, tmp_path: Path, count: int) -> None:
    """A digest is remembered until any part of the stamp differs."""
    stamps = [Stamp(1 << 63, (1 << 64) - 1 - number, 10, 5 * SECOND, 6 * SECOND) for number in range(count)]
    digests = [Digest.of(b"%d" % number).raw for number in range(count)]
    store.files.remember(zip(stamps, digests, strict=True), scanned_ns=7 * SECOND)
    assert digests == store.files.lookup(stamps)
    for field in ("size", "mtime_ns", "ctime_ns", "inode", "device"):
        changed = [stamps[0]._replace(**{field: 1}), *stamps[1:]]
        assert [None, *digests[1:]] == store.files.lookup(changed)


def test_racy_files_are_not_remembered(store: Store) -> None:
    """A file touched in the tick it was read in may change again unseen, so its digest is not kept."""
    quiet = Stamp(1, 1, 1, 5 * SECOND, 5 * SECOND)
    racy = [
        Stamp(1, 2, 1, 7 * SECOND, 5 * SECOND),
        Stamp(1, 3, 1, 5 * SECOND, 7 * SECOND),
        Stamp(1, 4, 1, 7 * SECOND - 10_000_000, 5 * SECOND),
        Stamp(1, 5, 1, 9 * SECOND, 9 * SECOND),
    ]
    digest = Digest.of(b"x")
    store.files.remember([(stamp, digest.raw) for stamp in (quiet, *racy)], scanned_ns=7 * SECOND)
    assert [digest.raw, None, None, None, None] == store.files.lookup([quiet, *racy])
    store.files.remember_selection(b"print", digest, newest_ns=7 * SECOND, scanned_ns=7 * SECOND)
    assert None is store.files.selection(b"print")
    store.files.remember_selection(b"print", digest, newest_ns=5 * SECOND, scanned_ns=7 * SECOND)
    assert digest == store.files.selection(b"print")


def test_newer_format_is_refused(tmp_path: Path) -> None:
    """A store of a later version is left alone, with a hint."""
    Store.open(tmp_path / "store").close()
    import sqlite3

    with sqlite3.connect(tmp_path / "store/store.db") as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StoreUnusable, match="newer version"):
        Store.open(tmp_path / "store")


def test_damaged_database_is_an_error_in_words(tmp_path: Path) -> None:
    """A database that is no database says so and what to do."""
    Store.open(tmp_path / "store").close()
    (tmp_path / "store/store.db").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreUnusable, match=r"store\.db"):
        Store.open(tmp_path / "store")


def test_root_that_cannot_be_made(tmp_path: Path) -> None:
    """A root below a file is an error in words."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreUnusable, match="cannot create"):
        Store.open(tmp_path / "file/store")


def test_public_names() -> None:
    """`__all__` is sorted, unique, and every name in it exists."""
    assert sorted(set(layerstore.__all__)) == sorted(layerstore.__all__)
    for name in layerstore.__all__:
        assert getattr(layerstore, name) is not None
    with pytest.raises(AttributeError):
        layerstore.nothing  # noqa: B018


def test_opening_loads_little(tmp_path: Path) -> None:
    """What a cached build does not need is not imported by opening a store."""
    import subprocess
    import sys

    program = (
        "import sys\nfrom pathlib import Path\nimport layerstore\n"
        f"layerstore.Store.open(Path({str(tmp_path / 'store')!r})).close()\n"
        "print(*sorted(sys.modules))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]
    ).stdout.split()
    heavy = {"zstandard", "isal", "tarfile", "subprocess", "tempfile", "urllib3", "dataclasses", "ctypes", "asyncio"}
    assert set() == heavy & set(loaded) | ({"layerstore.layers"} & set(loaded))
    assert os.path.exists(tmp_path / "store/store.db")

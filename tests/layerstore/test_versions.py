"""Layers that are kept as what differs from an earlier version of them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from random import Random

import pytest

from layerstore import Compression, Contents, DiffId, Entry, Forms, Inline, Kind, Layer, SourceChanged, Store
from layerstore.version import Version, can_be_listed, missing, pack, unpack
from layerstore.view import View, flatten
from tests.layerstore.test_overlay import mounted, through_view

HOUR_NS = 3_600_000_000_000
SECOND = 1_000_000_000
BASE = [
    Entry(b"d", Kind.DIR, 0o750, 3, 4, 9 * SECOND),
    *(Entry(b"d/%d" % n, Kind.FILE, 0o644, 1, 2, n * SECOND, 2, source=Inline(b"%02d" % n)) for n in range(20)),
    Entry(b"d/sub", Kind.DIR, 0o755, 0, 0, 8 * SECOND),
    *(Entry(b"d/sub/%d" % n, Kind.FILE, 0o600, mtime_ns=SECOND, size=1, source=Inline(b"x")) for n in range(4)),
    Entry(b"link", Kind.SYMLINK, 0o777, target=b"d/1"),
]


def file(path: bytes, data: bytes, *, mode: int = 0o644, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> Entry:
    return Entry(path, Kind.FILE, mode, uid, gid, mtime_ns, len(data), source=Inline(data))


def changed(entries: Iterable[Entry], *new: Entry, without: Iterable[bytes] = ()) -> list[Entry]:
    """Return `entries` with others of the same paths in their place, and without the paths `without`."""
    by_path = {entry.path: entry for entry in (*entries, *new) if entry.path not in set(without)}
    return list(by_path.values())


def write(store: Store, entries: Iterable[Entry], like: DiffId | None = None) -> Layer:
    return store.layers.write(entries, forms=Forms.TREE, contents=Contents(), like=like)


def whole(root: Path, entries: Iterable[Entry]) -> Layer:
    """Write a layer to a store that has nothing else."""
    with Store.open(root) as store:
        return store.layers.write(entries, forms=Forms.TREE)


def paths(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def test_an_edited_file_alone_is_written(store: Store, tmp_path: Path) -> None:
    """The tree of the next version is the base's with a directory over it that holds what is new, and what leads there.

    Every digest is that of a layer written as a whole, blobs too, and `check` finds nothing wrong.
    """
    base = write(store, BASE)
    entries = changed(BASE, file(b"d/sub/2", b"edited"))
    layer = write(store, entries, base.diff_id)
    assert layer == whole(tmp_path / "other", entries)
    view = store.layers.view([layer.diff_id])
    assert (store.layers.tree(base.diff_id),) == view.trees[:1]
    assert {"d", "d/sub", "d/sub/2"} == paths(view.trees[1])
    assert b"edited" == view.read(b"d/sub/2")
    assert b"03" == view.read(b"d/3")
    directory = view.lstat(b"d")
    assert directory is not None
    assert (0o750, 3, 4, 9 * SECOND) == (directory.mode, directory.uid, directory.gid, directory.mtime_ns)
    with Store.open(tmp_path / "other") as other:
        assert other.layers.blob(layer.diff_id, Compression.ZSTD) == store.layers.blob(layer.diff_id, Compression.ZSTD)
    assert [] == store.check()
    tree = store.layers.tree(layer.diff_id)
    assert {entry.path for entry in entries} == {os.fsencode(path) for path in paths(tree)}
    assert (tree,) == store.layers.view([layer.diff_id]).trees
    assert [] == store.check()


def test_unchanged_files_keep_no_links_between_trees(store: Store) -> None:
    """No file of a version shares an inode with another name: a container would see that in its link count."""
    base = write(store, BASE)
    layer = write(store, changed(BASE, file(b"d/1", b"new")), base.diff_id)
    for tree in store.layers.view([layer.diff_id]).trees:
        assert {1} == {path.lstat().st_nlink for path in tree.rglob("*") if not path.is_dir()}


def test_a_version_of_a_version_has_the_same_base(store: Store) -> None:
    """However often a context is edited, a layer is two directories; one that differs in much is written as a whole."""
    first = write(store, BASE)
    latest, entries = first, BASE
    for number in range(5):
        entries = changed(entries, file(b"d/%d" % number, b"edit %d" % number))
        latest = write(store, entries, latest.diff_id)
        trees = store.layers.view([latest.diff_id]).trees
        assert (store.layers.tree(first.diff_id), 2) == (trees[0], len(trees))
    entries = changed(entries, *(file(b"d/%d" % number, b"again") for number in range(15)))
    latest = write(store, entries, latest.diff_id)
    assert 2 == len(store.layers.view([latest.diff_id]).trees)
    latest = write(store, changed(entries, file(b"d/0", b"last")), latest.diff_id)
    assert 1 == len(store.layers.view([latest.diff_id]).trees)
    assert [] == store.check()


def test_removed_files_do_not_hide_what_lies_below_the_layer(store: Store) -> None:
    """A path that is gone from a version is not gone from the layers below: where they have it, the tree is whole."""
    below = write(store, [file(b"d/sub/2", b"below"), file(b"other", b"o")])
    apart = write(store, [file(b"unrelated", b"u")])
    base = write(store, BASE)
    entries = changed(BASE, without=[b"d/sub/2", b"link"])
    layer = write(store, entries, base.diff_id)
    view = store.layers.view([apart.diff_id, layer.diff_id])
    assert 3 == len(view.trees)
    assert None is view.lstat(b"d/sub/2")
    assert None is view.lstat(b"link")
    assert b"01" == view.read(b"d/1")
    assert [] == store.check()
    view = store.layers.view([below.diff_id, layer.diff_id])
    assert 2 == len(view.trees)
    assert b"below" == view.read(b"d/sub/2")
    view = store.layers.view([base.diff_id, layer.diff_id])
    assert b"x" == view.read(b"d/sub/2")
    assert [] == store.check()


@pytest.mark.parametrize(
    ("new", "without"),
    [
        ([Entry(b"d/1", Kind.DIR, 0o755), file(b"d/1/in", b"in")], []),
        ([file(b"d/sub", b"now a file")], [b"d/sub/%d" % n for n in range(4)]),
        ([Entry(b"d/1", Kind.SYMLINK, 0o777, target=b"2")], []),
        ([Entry(b"link", Kind.FIFO, 0o644)], []),
        ([], [b"d/sub", *(b"d/sub/%d" % n for n in range(4))]),
        ([Entry(b"d", Kind.DIR, 0o700, 3, 4, 9 * SECOND)], []),
        ([Entry(b"", Kind.DIR, 0o700, 5, 6)], []),
        ([file(b"d/1", b"01", uid=1, gid=2, mtime_ns=77 * SECOND)], []),
        ([file(b"d/1", b"01", uid=1, gid=2, mtime_ns=SECOND, mode=0o755)], []),
        ([file(b"d/1", b"01", uid=9, gid=2, mtime_ns=SECOND)], []),
        ([file(b"d/1", b"01", uid=1, gid=2, mtime_ns=SECOND)._replace(xattrs=((b"user.a", b"b"),))], []),
        ([file(b"d/new", bytes(400_000)), Entry(b"d/deep", Kind.DIR), file(b"d/deep/er", b"")], []),
    ],
    ids=["dir", "file", "symlink", "fifo", "no dir", "mode", "root", "time", "x", "owner", "xattr", "new"],
)
def test_any_difference_counts(store: Store, tmp_path: Path, new: list[Entry], without: list[bytes]) -> None:
    """A change of kind, mode, owner, time or attributes is one, as is a path more or less; the layer is the same."""
    base = write(store, BASE)
    entries = changed(BASE, *new, without=without)
    layer = write(store, entries, base.diff_id)
    assert layer == whole(tmp_path / "other", entries)
    trees = store.layers.view([layer.diff_id]).trees
    assert store.layers.tree(base.diff_id) == trees[0]
    assert [] == store.check()
    with Store.open(tmp_path / "other") as other:
        expected = list(flatten(View([other.layers.tree(layer.diff_id)])))
    assert [entry._replace(source=Inline(b"")) for entry in expected] == [
        entry._replace(source=Inline(b"")) for entry in flatten(View(trees))
    ]


def test_a_root_of_its_own_stays(store: Store) -> None:
    """The owner and mode of a layer's root are seen though only a file below it has changed."""
    entries = [Entry(b"", Kind.DIR, 0o711, 5, 6), *BASE]
    layer = write(store, changed(entries, file(b"d/1", b"new")), write(store, entries).diff_id)
    view = store.layers.view([layer.diff_id])
    root = view.lstat(b"")
    assert root is not None
    assert (2, 0o711, 5, 6) == (len(view.trees), root.mode, root.uid, root.gid)
    assert [] == store.check()


def test_random_versions(store: Store, tmp_path: Path) -> None:
    """Forty versions at random, over layers that have some of the same paths: each as if it were written as a whole."""
    random = Random(4)
    names = [b"a", b"b", b"c", b"d"]
    below = write(store, [file(b"a/b", b"below"), file(b"c", b"below"), file(b"z", b"z")])
    latest: Layer | None = None
    entries: dict[bytes, Entry] = {}
    deltas = 0
    for number in range(40):
        for _ in range(random.randint(1, 4) if entries else 60):
            path = b"/".join(random.choices(names, k=random.randint(1, 4)))
            entries = {at: entry for at, entry in entries.items() if at != path and not at.startswith(path + b"/")}
            if random.random() < 0.7:
                for depth in range(1, path.count(b"/") + 1):
                    parent = b"/".join(path.split(b"/")[:depth])
                    if parent not in entries or entries[parent].kind is not Kind.DIR:
                        entries[parent] = Entry(parent, Kind.DIR, random.choice([0o755, 0o700]), mtime_ns=SECOND)
                entries[path] = random.choice(
                    [
                        file(path, random.randbytes(random.randint(0, 9)), mode=random.choice([0o644, 0o755])),
                        Entry(path, Kind.SYMLINK, 0o777, target=random.choice(names)),
                        Entry(path, Kind.DIR, 0o750),
                    ]
                )
        ordered = sorted(entries.values(), key=lambda entry: entry.path.split(b"/"))
        latest = write(store, ordered, latest.diff_id if latest is not None else None)
        other = tmp_path / f"other-{number}"
        assert latest == whole(other, ordered)
        with Store.open(other) as alone:
            alone_below = alone.layers.write(
                [file(b"a/b", b"below"), file(b"c", b"below"), file(b"z", b"z")], forms=Forms.TREE
            )
            expected = through_view(alone.layers.view([alone_below.diff_id, latest.diff_id]))
            alone_only = through_view(alone.layers.view([latest.diff_id]))
        only = store.layers.view([latest.diff_id])
        deltas += len(only.trees) == 2
        assert alone_only == through_view(only)
        assert expected == through_view(store.layers.view([below.diff_id, latest.diff_id]))
    assert deltas > 5
    assert [] == store.check()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="overlay mounts need CAP_SYS_ADMIN")
def test_the_kernel_shows_a_version_as_the_view_does(store: Store, tmp_path: Path) -> None:
    """Mounted, base and difference are the layer: files gone are not there, directories have their own attributes."""
    base = write(store, BASE)
    entries = changed(
        BASE,
        Entry(b"d/sub", Kind.DIR, 0o711, 0, 0, 5 * SECOND),
        file(b"d/sub/new", b"new"),
        Entry(b"d/1", Kind.DIR, 0o755),
        file(b"d/1/in", b"in"),
        without=[b"d/sub/2", b"link"],
    )
    layer = write(store, entries, base.diff_id)
    below = write(store, [file(b"below", b"b")])
    view = store.layers.view([below.diff_id, layer.diff_id])
    assert 3 == len(view.trees)
    upper = store.layers.prepare(view)
    with mounted(view.trees, upper.path, upper.work, tmp_path / "merged") as merged:
        assert {entry.path for entry in entries} | {b"below"} == {os.fsencode(path) for path in paths(merged)}
        assert b"new" == (merged / "d/sub/new").read_bytes()
        status = (merged / "d/sub").stat()
        assert (0o711, 5) == (status.st_mode & 0o777, int(status.st_mtime))
        (merged / "d/sub/3").unlink()
        (merged / "d/2").write_bytes(b"changed by a step")
    top = store.layers.commit(upper, view)
    over = store.layers.view([below.diff_id, layer.diff_id, top.diff_id])
    assert (None, b"changed by a step") == (over.lstat(b"d/sub/3"), over.read(b"d/2"))
    assert [] == store.check()


def test_gc_keeps_the_base_of_what_is_needed(store: Store) -> None:
    """A base stays while any version of it is needed, and goes with the last."""
    with Store.open(store.root, clock=lambda: time.time_ns() + HOUR_NS) as later:
        base = write(store, BASE)
        layer = write(store, changed(BASE, file(b"d/1", b"new")), base.diff_id)
        image = store.images.put(b"{}", layers=[layer.diff_id], names=["n:1"])
        later.sweep(later.gc())
        assert b"new" == store.layers.view([layer.diff_id]).read(b"d/1")
        assert b"02" == store.layers.view([layer.diff_id]).read(b"d/2")
        assert [] == store.check()
    with Store.open(store.root, clock=lambda: time.time_ns() + 2 * HOUR_NS) as later:
        store.images.remove(image)
        later.sweep(later.gc())
        assert [] == os.listdir(store.root / "trees")
        assert [(0,), (0,), (0,)] == [
            store._home.db.row(f"SELECT count(*) FROM {table}") for table in ("layers", "deltas", "listings")
        ]
        assert [] == later.check()


def test_check_finds_a_damaged_base(store: Store) -> None:
    """A change to the tree of a base is told of the layers that need it, and they are not packed."""
    base = write(store, BASE)
    layer = write(store, changed(BASE, file(b"d/1", b"new")), base.diff_id)
    (store.layers.tree(base.diff_id) / "d/2").write_bytes(b"??")
    assert {str(base.diff_id), str(layer.diff_id)} == {fault.what for fault in store.check()}
    (store.layers.tree(base.diff_id) / "d/1").write_bytes(b"not seen in the version")


def test_a_base_lost_in_a_power_cut_takes_its_versions_along(store: Store) -> None:
    """A version whose base never reached the disk is dropped with it, even if it was synced itself."""
    base = write(store, BASE)
    layer = write(store, changed(BASE, file(b"d/1", b"new")), base.diff_id)
    store._home.db.write("UPDATE layers SET boot = 'another' WHERE diff_id = ?", (base.diff_id,))
    store._home.db.write("UPDATE layers SET boot = NULL WHERE diff_id = ?", (layer.diff_id,))
    store._home.db.write("UPDATE meta SET value = 'another' WHERE key = 'boot'")
    with Store.open(store.root) as opened:
        assert (None, None) == (opened.layers.find(base.diff_id), opened.layers.find(layer.diff_id))
        assert [] == os.listdir(store.root / "trees")
        assert [] == opened.check()


def test_contents_are_what_was_read(store: Store, tmp_path: Path) -> None:
    """Each file's digest is that of the bytes in the layer; a file that is not what it was known to be is an error."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"small")
    large.write_bytes(bytes(range(256)) * 4096)
    entries = [
        Entry(b"large", Kind.FILE, size=1 << 20, source=os.fsencode(large)),
        Entry(b"small", Kind.FILE, size=5, source=os.fsencode(small)),
    ]
    contents = Contents()
    store.layers.write(entries, forms=Forms.BLOB, contents=contents)
    for path in (small, large):
        with pytest.raises(SourceChanged):
            store.layers.write(entries, contents=Contents({**contents.read, os.fsencode(path): bytes(32)}))
    assert [] == os.listdir(store.root / "tmp")


@pytest.mark.parametrize("known", [True, False])
def test_large_files_of_a_version(store: Store, tmp_path: Path, known: bool) -> None:
    """A large file that has not changed is in the base only, whether its digest was known before it was read or not."""
    large = tmp_path / "large"
    large.write_bytes(bytes(range(256)) * 4096)
    entries = [*BASE, Entry(b"d/large", Kind.FILE, size=1 << 20, source=os.fsencode(large))]
    contents = Contents()
    base = store.layers.write(entries, forms=Forms.TREE, contents=contents)
    again = Contents(contents.read if known else {})
    layer = store.layers.write(changed(entries, file(b"d/1", b"new")), contents=again, like=base.diff_id)
    assert contents.read == again.read
    assert {"d", "d/1"} == paths(store.layers.view([layer.diff_id]).trees[1])
    assert [] == store.check()


def test_listings_survive_being_packed() -> None:
    """A listing comes back as it was, empty or with names of any bytes."""
    for listing in ({}, {b"/": b"a" * 32}, {b"a\n/\xff": b"1" * 32, b"b/": b"2" * 32}):
        assert listing == unpack(pack(listing))


def test_what_cannot_be_listed() -> None:
    """Hard links, whiteouts and opaque directories make a layer one that is written as a whole, as do few entries."""
    assert can_be_listed(BASE)
    assert not can_be_listed(BASE[:3])
    for entry in (Entry(b"x", Kind.HARDLINK, target=b"link"), Entry(b"x", Kind.WHITEOUT), Entry(b"d", Kind.OPAQUE)):
        assert not can_be_listed([*BASE, entry])


def test_too_much_is_gone_for_a_delta() -> None:
    """A version that lacks most of its base is none."""
    version = Version()
    for entry in BASE:
        version.differs(entry, b"head", b"digest")
    assert None is missing(version.listing, BASE[:3])
    assert (b"link",) == missing(version.listing, BASE[:-1])

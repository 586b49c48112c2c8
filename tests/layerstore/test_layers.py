"""Layers made from entries and upper directories, and each form from the other."""

from __future__ import annotations

import io
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerstore import (
    Compression,
    CorruptContent,
    DiffId,
    Digest,
    Entry,
    Forms,
    Inline,
    Kind,
    NotFound,
    SourceChanged,
    Store,
    StoreError,
    Stream,
    UnsafeLayer,
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


def file(path: bytes, data: bytes = b"", **fields: Any) -> Entry:
    return Entry(path, Kind.FILE, size=len(data), source=Inline(data))._replace(**fields)


SAMPLE = [
    Entry(b"usr", Kind.DIR, 0o755, mtime_ns=1_600_000_000_000_000_000),
    Entry(b"usr/bin", Kind.DIR, 0o1777, 3, 4, 1_600_000_001_500_000_000),
    file(b"usr/bin/tool", b"#!/bin/sh\n", mode=0o6755, uid=1000, gid=3_000_000, mtime_ns=1_600_000_002_000_000_000),
    Entry(b"usr/bin/twin", Kind.HARDLINK, target=b"usr/bin/tool"),
    Entry(b"usr/bin/link", Kind.SYMLINK, 0o777, target=b"../" * 40 + b"etc"),
    file(b"usr/" + b"n" * 150 + b"/" + b"m" * 120, b"deep"),
    file("usr/ünï".encode(), b"text", xattrs=((b"user.k", b"v\0\n="),)),
    file(b"usr/\xff\xfe", b"raw"),
    Entry(b"usr/pipe", Kind.FIFO, 0o600),
    Entry(b"usr/null", Kind.CHAR, 0o666, rdev=(1, 3)),
    Entry(b"usr/disk", Kind.BLOCK, 0o660, 0, 6, rdev=(8, 1)),
    Entry(b"usr/gone", Kind.WHITEOUT),
    Entry(b"opaque", Kind.DIR, 0o700),
    Entry(b"opaque", Kind.OPAQUE),
    file(b"big", bytes(range(256)) * 5000),
    file(b"old", b"", mtime_ns=-5_000_000_000),
]


def listing(store: Store, diff_id: DiffId) -> dict[str, tarfile.TarInfo]:
    with store.blobs.open(store.layers.blob(diff_id, Compression.NONE).digest) as blob:
        data = blob.read()
    with tarfile.open(fileobj=io.BytesIO(data), errorlevel=2) as archive:
        return {member.name: member for member in archive}


def test_same_content_in_any_order_is_the_same_layer(store: Store) -> None:
    """The tar is a function of the entries: the order in which a source yields them changes nothing."""
    expected = store.layers.write(SAMPLE, forms=Forms.BLOB).diff_id
    links = [entry for entry in SAMPLE if entry.kind in (Kind.HARDLINK, Kind.OPAQUE)]
    for seed in range(5):
        others = [entry for entry in SAMPLE if entry not in links]
        random.Random(seed).shuffle(others)
        assert expected == store.layers.write([*others, *links], forms=Forms.TREE).diff_id


def test_tree_and_blob_are_made_from_each_other(tmp_path: Path) -> None:
    """A tree packs to the blob that was hashed when it was made; a blob unpacks to a tree that packs to itself."""
    with Store.open(tmp_path / "one") as one, Store.open(tmp_path / "two") as two:
        layer = one.layers.write(SAMPLE, forms=Forms.TREE)
        for compression in Compression:
            packed = one.layers.blob(layer.diff_id, compression)
            with one.blobs.open(packed.digest) as stream:
                assert (packed.digest, packed.size) == two.blobs.put(stream, expected=packed.digest)
            adopted = two.layers.adopt(packed.digest, packed.media_type, layer.diff_id, packed.size)
            assert layer.diff_id == adopted.diff_id
        two.layers.tree(layer.diff_id)
        assert layer.size == getattr(two.layers.find(layer.diff_id), "size", None)
        assert _walk(one.layers.tree(layer.diff_id)) == _walk(two.layers.tree(layer.diff_id))
        assert [] == one.check()
        assert [] == two.check()


def _walk(root: Path) -> list[tuple[object, ...]]:
    found: list[tuple[object, ...]] = []
    for folder, names, files in os.walk(os.fsencode(root)):
        for name in sorted([*names, *files]):
            path = folder + b"/" + name
            status = os.lstat(path)
            data = Path(os.fsdecode(path)).read_bytes() if os.path.isfile(path) and not os.path.islink(path) else b""
            found.append(
                (
                    os.path.relpath(path, os.fsencode(root)),
                    status.st_mode,
                    status.st_uid,
                    status.st_gid,
                    status.st_mtime_ns,
                    status.st_rdev,
                    status.st_nlink if not os.path.isdir(path) else 0,
                    sorted(os.listxattr(path, follow_symlinks=False)),
                    data,
                )
            )
    return sorted(found, key=lambda item: str(item[0]))


def test_standard_library_reads_our_tar(store: Store) -> None:
    """tarfile sees every entry with its type, owner, mode, target and attributes."""
    layer = store.layers.write(SAMPLE, forms=Forms.BLOB)
    members = listing(store, layer.diff_id)
    tool = members["usr/bin/tool"]
    assert (0o6755, 1000, 3_000_000, 1_600_000_002, 10) == (tool.mode, tool.uid, tool.gid, tool.mtime, tool.size)
    assert "usr/bin/tool" == members["usr/bin/twin"].linkname
    assert "../" * 40 + "etc" == members["usr/bin/link"].linkname
    assert "v\0\n=" == members["usr/ünï"].pax_headers["SCHILY.xattr.user.k"]
    assert (1, 3) == (members["usr/null"].devmajor, members["usr/null"].devminor)
    assert members["usr/.wh.gone"].size == 0
    assert members["opaque/.wh..wh..opq"].isreg()
    assert -5 == members["old"].mtime
    assert ["big", "old", "opaque", "opaque/.wh..wh..opq", "usr"] == list(members)[:5]


def test_gnu_tar_reads_our_tar(store: Store, tmp_path: Path) -> None:
    """GNU tar extracts the same files."""
    entries = [entry for entry in SAMPLE if entry.kind not in (Kind.CHAR, Kind.BLOCK, Kind.OPAQUE, Kind.WHITEOUT)]
    layer = store.layers.write(entries, forms=Forms.TREE | Forms.BLOB)
    with store.blobs.open(store.layers.blob(layer.diff_id, Compression.NONE).digest) as blob:
        (tmp_path / "layer.tar").write_bytes(blob.read())
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["tar", "-xpf", tmp_path / "layer.tar", "-C", tmp_path / "out", "--xattrs", "--numeric-owner"],
        check=True,
        capture_output=True,
    )
    ours = store.layers.tree(layer.diff_id)
    missing = {item[0] for item in _walk(ours)} ^ {item[0] for item in _walk(tmp_path / "out")}
    assert set() == missing
    assert (ours / "big").read_bytes() == (tmp_path / "out/big").read_bytes()


@pytest.mark.parametrize("form", ["gnu", "posix", "ustar"])
def test_tars_of_gnu_tar_are_read(store: Store, tmp_path: Path, form: str) -> None:
    """Layers in the formats GNU tar writes unpack to what was packed: long names, sparse files, links."""
    source = tmp_path / "source"
    deep = source / ("d" * 90) / ("e" * 60)
    deep.mkdir(parents=True)
    (deep / "name").write_bytes(b"x" * 700)
    if form != "ustar":
        (deep / ("f" * 200)).write_bytes(b"long")
        with open(source / "sparse", "wb") as sparse:
            for part in range(30):
                sparse.seek(part * 1_000_000)
                sparse.write(b"data%d" % part)
            sparse.truncate(40_000_000)
    (source / "link").symlink_to("d" * 95)
    os.link(deep / "name", source / "zhard")
    tar = tmp_path / "layer.tar"
    subprocess.run(
        ["tar", "-cf" if form == "ustar" else "-cSf", tar, f"--format={form}", "-C", source, "."], check=True
    )
    data = tar.read_bytes()
    digest = store.blobs.put_bytes(data)
    store.layers.adopt(digest, "application/vnd.oci.image.layer.v1.tar", DiffId(Digest.of(data)), len(data))
    tree = store.layers.tree(DiffId(Digest.of(data)))
    for path in source.rglob("*"):
        copy = tree / path.relative_to(source)
        assert os.lstat(path).st_mode == os.lstat(copy).st_mode
        if path.is_file():
            assert path.read_bytes() == copy.read_bytes()
    assert os.stat(tree / "zhard").st_nlink == 2


def test_stream_sources_make_the_same_layer(store: Store) -> None:
    """Data that can be read only once makes the layer that the same data in memory makes."""
    expected = store.layers.write(SAMPLE, forms=Forms.BLOB)
    streamed = [
        entry._replace(source=Stream(io.BytesIO(entry.source.data)))
        if entry.kind is Kind.FILE and isinstance(entry.source, Inline)
        else entry
        for entry in SAMPLE
    ]
    assert expected.diff_id == store.layers.write(streamed, forms=Forms.TREE | Forms.BLOB).diff_id


def test_missing_parents_are_part_of_the_layer(store: Store) -> None:
    """A tar without its parents would not be the tar of its tree: they are added, plain."""
    layer = store.layers.write([file(b"a/b/c", b"x")], forms=Forms.TREE | Forms.BLOB)
    assert ["a", "a/b", "a/b/c"] == list(listing(store, layer.diff_id))
    assert [] == store.check()


def test_whiteout_names_in_a_source_become_whiteouts(store: Store) -> None:
    """A context file called .wh.x is a deletion in the finished image, in both forms."""
    layer = store.layers.write([file(b"d/.wh.x", b"data"), file(b"d/.wh..wh.plnk"), file(b"d/y")], forms=Forms.TREE)
    assert [b"y"] == store.layers.view([layer.diff_id]).listdir(b"d")
    assert ["d", "d/.wh.x", "d/y"] == list(listing(store, layer.diff_id))


def test_whiteout_beside_its_own_name(store: Store) -> None:
    """A whiteout hides what lies below; a directory of that name in the layer itself becomes opaque."""
    below = store.layers.write([file(b"d/x/old", b"1"), file(b"d/f", b"1")], forms=Forms.TREE)
    layer = store.layers.write(
        [
            Entry(b"d/x", Kind.WHITEOUT),
            file(b"d/x/new", b"2"),
            file(b"d/f", b"2"),
            Entry(b"d/f", Kind.WHITEOUT),
        ],
        forms=Forms.TREE,
    )
    view = store.layers.view([below.diff_id, layer.diff_id])
    assert [b"new"] == view.listdir(b"d/x")
    assert b"2" == view.read(b"d/f")


@pytest.mark.parametrize(("size", "change"), [(10, -1), (10, 1), (1 << 20, -1), (1 << 20, 1)])
def test_file_that_changes_while_read_is_named(store: Store, tmp_path: Path, size: int, change: int) -> None:
    """Size differs from what stat said: an error that names the file, and nothing is kept."""
    path = tmp_path / "moving"
    path.write_bytes(bytes(size + change))
    with pytest.raises(SourceChanged, match="moving.*" + ("grew" if change > 0 else "shrank")):
        store.layers.write([Entry(b"f", Kind.FILE, size=size, source=os.fsencode(path))], forms=Forms.TREE | Forms.BLOB)
    assert [] == os.listdir(store.root / "tmp") + os.listdir(store.root / "trees") + os.listdir(
        store.root / "blobs/sha256"
    )


def test_source_that_became_a_symlink_is_not_followed(store: Store, tmp_path: Path) -> None:
    """A file swapped for a symlink after the walk is an error, not a way to read another file."""
    (tmp_path / "swapped").symlink_to("/etc/hostname")
    with pytest.raises(SourceChanged, match="swapped"):
        store.layers.write([Entry(b"f", Kind.FILE, size=5, source=os.fsencode(tmp_path / "swapped"))], forms=Forms.BLOB)


@pytest.mark.parametrize(
    "entries",
    [
        [Entry(b"l", Kind.HARDLINK, target=b"nowhere")],
        [file(b"a", b"x"), file(b"a/b", b"y")],
        [Entry(b".wh.dir", Kind.DIR)],
        [file(b".wh.", b"")],
        [Entry(b"a", Kind.HARDLINK, target=b"b"), Entry(b"b", Kind.HARDLINK, target=b"a")],
    ],
)
def test_what_no_layer_can_hold_is_refused(store: Store, entries: list[Entry]) -> None:
    """Entries that contradict each other are an error in words."""
    with pytest.raises(StoreError):
        store.layers.write(entries, forms=Forms.TREE)
    assert [] == os.listdir(store.root / "tmp")


def test_wrong_diff_id_is_refused_and_forgotten(store: Store) -> None:
    """A blob that is not the layer it was said to be: refused by name, gone from the records, nothing unpacked."""
    data = store.layers.write(SAMPLE, forms=Forms.BLOB, compression=Compression.GZIP)
    packed = store.layers.blob(data.diff_id, Compression.GZIP)
    claimed = DiffId.of(b"something else")
    store.layers.adopt(packed.digest, packed.media_type, claimed, packed.size)
    with pytest.raises(CorruptContent, match=claimed):
        store.layers.tree(claimed)
    assert None is store.layers.find(claimed)
    with pytest.raises(NotFound):
        store.layers.tree(claimed)
    store.layers.adopt(packed.digest, packed.media_type, claimed, packed.size)
    with pytest.raises(CorruptContent, match=claimed):
        store.layers.blob(claimed, Compression.GZIP)
    assert [] == os.listdir(store.root / "trees") + os.listdir(store.root / "tmp")


def test_truncated_and_damaged_blobs(store: Store) -> None:
    """Compressed streams that end early or are damaged are refused, whatever the compression."""
    layer = store.layers.write(SAMPLE, forms=Forms.TREE)
    for compression in (Compression.GZIP, Compression.ZSTD):
        with store.blobs.open(store.layers.blob(layer.diff_id, compression).digest) as blob:
            data = blob.read()
        for broken in (data[: len(data) // 2], data[:200] + b"\xaa\x55\xaa" + data[203:]):
            digest = store.blobs.put_bytes(broken)
            claimed = DiffId.of(broken)
            store.layers.adopt(digest, compression.media_type, claimed, len(broken))
            with pytest.raises((CorruptContent, UnsafeLayer)):
                store.layers.tree(claimed)


def test_sparse_data_stays_sparse(store: Store) -> None:
    """A hole is a hole again in the tree, and zeros in the layer."""
    layer = store.layers.write([file(b"disk", b"boot" + bytes(9_000_000))], forms=Forms.TREE)
    status = os.stat(store.layers.tree(layer.diff_id) / "disk")
    assert 9_000_004 == status.st_size
    assert status.st_blocks * 512 < 3_000_000


def test_blob_in_another_compression(store: Store) -> None:
    """A layer from outside is repacked from its blob; without a wish, the blob that is here is the answer."""
    layer = store.layers.write(SAMPLE, forms=Forms.BLOB, compression=Compression.GZIP)
    assert Compression.GZIP.media_type == store.layers.blob(layer.diff_id).media_type
    zstd = store.layers.blob(layer.diff_id, Compression.ZSTD, level=9)
    with store.blobs.open(zstd.digest) as blob:
        assert b"\x28\xb5\x2f\xfd" == blob.read(4)
    assert zstd == store.layers.blob(layer.diff_id, Compression.ZSTD)


@pytest.mark.parametrize(("compressible", "expected"), [(0.0, "NONE"), (0.2, "ZSTD"), (1.0, "ZSTD")])
def test_noise_is_not_compressed(store: Store, tmp_path: Path, compressible: float, expected: str) -> None:
    """Where it was not said how, a blob is compressed if its data gets smaller; its tree is the same either way."""
    noise = random.Random(1).randbytes(9 << 20)
    kept = round(len(noise) * compressible)
    path = tmp_path / "large"
    path.write_bytes(noise[kept:] + b"text" * (kept // 4))
    entries = [
        file(b"small", b"text" * 1000),
        Entry(b"large", Kind.FILE, 0o644, size=path.stat().st_size, source=os.fsencode(path)),
    ]
    layer = store.layers.write(entries, forms=Forms.BLOB, compression=None)
    blob = store.layers.blob(layer.diff_id)
    assert Compression[expected].media_type == blob.media_type
    assert (expected == "NONE") == (blob.digest == layer.diff_id)
    assert layer == store.layers.write(entries, forms=Forms.BLOB, compression=None)
    assert blob == store.layers.blob(layer.diff_id)
    tree = store.layers.tree(layer.diff_id)
    assert path.read_bytes() == (tree / "large").read_bytes()
    assert layer.diff_id == store.layers.write(entries, forms=Forms.TREE).diff_id
    assert [] == store.check()


def test_a_plain_blob_of_a_tree_has_the_diff_id_as_its_digest(store: Store) -> None:
    """What is not compressed is the tar itself, in whatever form it was made."""
    layer = store.layers.write(SAMPLE, forms=Forms.TREE)
    assert layer.diff_id == store.layers.blob(layer.diff_id, Compression.NONE).digest
    assert [] == store.check()


def test_many_large_files_in_one_layer(store: Store, tmp_path: Path) -> None:
    """Memory that is read into again is not in use any more: every file has its own bytes in tar and tree."""
    entries = []
    for number in range(20):
        path = tmp_path / f"{number}"
        path.write_bytes(random.Random(number).randbytes(number * 333_333))
        entries.append(Entry(b"%02d" % number, Kind.FILE, size=path.stat().st_size, source=os.fsencode(path)))
    layer = store.layers.write(entries, forms=Forms.TREE | Forms.BLOB, compression=Compression.NONE)
    with store.blobs.open(store.layers.blob(layer.diff_id, Compression.NONE).digest) as blob:
        data = blob.read()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for number, member in enumerate(tar):
            read = tar.extractfile(member)
            assert read is not None
            expected = (tmp_path / f"{number}").read_bytes()
            assert expected == read.read()
            assert expected == (store.layers.tree(layer.diff_id) / f"{number:02}").read_bytes()
    assert [] == store.check()


@pytest.mark.parametrize(
    ("data", "expected"), [(random.Random(1).randbytes(9 << 20), "NONE"), (bytes(9 << 20), "GZIP")]
)
def test_noise_is_not_compressed_when_it_is_packed(store: Store, data: bytes, expected: str) -> None:
    """A layer that has a tree gets its blob later, compressed unless that is in vain or something else is asked for."""
    layer = store.layers.write([file(b"large", data)], forms=Forms.TREE)
    blob = store.layers.blob(layer.diff_id)
    assert Compression[expected].media_type == blob.media_type
    assert (expected == "NONE") == (blob.digest == layer.diff_id)
    assert Compression.GZIP.media_type == store.layers.blob(layer.diff_id, Compression.GZIP).media_type
    assert [] == store.check()

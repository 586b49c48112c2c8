"""Small files that are kept together: read in few pieces, verified, and never needed."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import pytest

from layerstore import Contents, Entry, Forms, Inline, Kind, SourceChanged, Store
from layerstore.entry import Stream
from layerstore.smallfiles import LARGEST, SmallFiles, SmallFilesWriter

CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
SOME = [b"", b"one", b"two" * 1000, bytes(LARGEST), *(b"%d" % number * 2000 for number in range(500))]


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """A file with SOME, each given twice, and something that is too large."""
    path = tmp_path / "small"
    with path.open("wb") as file:
        writer = SmallFilesWriter(file.fileno())
        for data in (*SOME, *SOME, bytes(LARGEST + 1)):
            writer.add(sha256(data), data)
        writer.finish()
    return path


def test_what_was_added_is_found(kept: Path) -> None:
    """In any order, by digest and size, each kept once; nothing else is."""
    with SmallFiles(os.fsencode(kept)) as small:
        for data in (*SOME, *SOME[::-1]):
            assert data == small.get(sha256(data), len(data))
        assert small.get(sha256(b"one"), 4) is None
        assert small.get(sha256(b"three"), 5) is None
        assert small.get(sha256(bytes(LARGEST + 1)), LARGEST + 1) is None
    assert kept.stat().st_size < sum(map(len, SOME)) + 40 * len(SOME)


def test_damage_is_seen(kept: Path) -> None:
    """Data that is not what it was is not found, and a file that is cut off, or none, has nothing."""
    data = kept.read_bytes()
    kept.write_bytes(data.replace(b"one", b"One"))
    with SmallFiles(os.fsencode(kept)) as small:
        assert small.get(sha256(b"one"), 3) is None
        assert SOME[2] == small.get(sha256(SOME[2]), len(SOME[2]))
    for length in (0, 10, 1000, len(data) - 1):
        kept.write_bytes(data[:length])
        with SmallFiles(os.fsencode(kept)) as small:
            assert small.get(sha256(SOME[2]), len(SOME[2])) is None
    kept.unlink()
    with SmallFiles(os.fsencode(kept)) as small:
        assert small.get(sha256(b"one"), 3) is None


def entries(root: Path) -> list[Entry]:
    return [
        Entry(b"%d" % n, Kind.FILE, mtime_ns=n * 10**9, size=len(b"data %d" % n), source=os.fsencode(root / str(n)))
        for n in range(20)
    ]


def contents(edited: dict[int, bytes], root: Path) -> Contents:
    """The digests of the files of `entries`, as if they were read before."""
    return Contents({os.fsencode(root / str(n)): sha256(edited.get(n, b"data %d" % n)) for n in range(20)})


def test_a_version_reads_what_is_new(store: Store, tmp_path: Path) -> None:
    """Files that are known, and that the version before has, are not looked for; those that are not there are."""
    for n in range(20):
        (tmp_path / str(n)).write_bytes(b"data %d" % n)
    first = store.layers.write(entries(tmp_path), contents=contents({}, tmp_path))
    for n in range(20):
        (tmp_path / str(n)).unlink()
    (tmp_path / "7").write_bytes(b"DATA 7")
    edited = contents({7: b"DATA 7"}, tmp_path)
    second = store.layers.write(entries(tmp_path), contents=edited, like=first.diff_id)
    assert edited.known == edited.read
    view = store.layers.view([second.diff_id])
    assert [b"data 6", b"DATA 7", b"data 8"] == [view.read(b"%d" % n) for n in (6, 7, 8)]
    assert [] == store.check()
    with pytest.raises(SourceChanged):
        store.layers.write(entries(tmp_path), contents=contents({}, tmp_path), like=None)
    with pytest.raises(SourceChanged):
        store.layers.write(entries(tmp_path), contents=Contents(), like=first.diff_id)


def test_they_go_with_their_layer(store: Store, tmp_path: Path) -> None:
    """They are part of what gc takes."""
    for n in range(20):
        (tmp_path / str(n)).write_bytes(b"data %d" % n)
    layer = store.layers.write(entries(tmp_path), forms=Forms.TREE, contents=Contents())
    [small] = (store.root / "trees").glob("*.small")
    assert f"{layer.diff_id.hex}.small" == small.name
    assert [] == store.check()
    assert small.exists()
    store.sweep(store.gc())
    assert not small.exists()


@pytest.mark.root
@pytest.mark.parametrize("streamed", [False, True])
def test_capabilities_are_asked_for(store: Store, tmp_path: Path, streamed: bool) -> None:
    """Where entries do not say what capabilities files have, the layer has them, and the contents tell of them."""
    for n in range(20):
        (tmp_path / str(n)).write_bytes(b"data %d" % n)
    source = os.fsencode(tmp_path / "7")
    os.setxattr(source, "security.capability", CAPABILITY)
    last = Stream(io.BytesIO(b"data")) if streamed else Inline(b"data")
    asking = Contents(asks=True)
    listed = [*entries(tmp_path), Entry(b"last", Kind.FILE, size=4, source=last)]
    layer = store.layers.write(listed, contents=asking)
    assert {source: CAPABILITY} == asking.capabilities
    assert contents({}, tmp_path).known == asking.read
    view = store.layers.view([layer.diff_id])
    found = {path: entry.xattrs for path in view.listdir(b"") if (entry := view.lstat(path)) is not None}
    assert {b"7": ((b"security.capability", CAPABILITY),)} == {path: xattrs for path, xattrs in found.items() if xattrs}

"""Layers that nobody vouches for: refused by name, with nothing outside the store's tmp touched."""

from __future__ import annotations

import io
import os
import random
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from layerstore import CorruptContent, DiffId, Store, StoreError, UnsafeLayer
from layerstore.tarread import read_tar


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


Member = tuple[tarfile.TarInfo, bytes]


def member(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.type = kind
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def tar(*members: Member) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def unpack(store: Store, data: bytes) -> Path:
    diff_id = DiffId.of(data)
    digest = store.blobs.put_bytes(data)
    store.layers.adopt(digest, "application/vnd.oci.image.layer.v1.tar", diff_id, len(data))
    return store.layers.tree(diff_id)


TRAVERSALS = {
    "dotdot": [member("../escape", data=b"x")],
    "inner dotdot": [member("a/../../escape", data=b"x")],
    "through an absolute symlink": [member("l", tarfile.SYMTYPE, linkname="/tmp"), member("l/escape", data=b"x")],
    "through a relative symlink": [member("l", tarfile.SYMTYPE, linkname=".."), member("l/escape", data=b"x")],
    "through a file": [member("f", data=b"x"), member("f/escape", data=b"x")],
    "hard link out": [member("h", tarfile.LNKTYPE, linkname="../../../etc/passwd")],
    "hard link to nothing": [member("h", tarfile.LNKTYPE, linkname="etc/passwd")],
    "hard link through a symlink": [
        member("l", tarfile.SYMTYPE, linkname="/etc"),
        member("h", tarfile.LNKTYPE, linkname="l/passwd"),
    ],
    "hard link to a directory": [member("d", tarfile.DIRTYPE), member("h", tarfile.LNKTYPE, linkname="d")],
    "whiteout of nothing": [member("d/.wh.")],
    "whiteout of dot": [member("d/.wh..")],
    "whiteout of dotdot": [member("d/.wh...")],
    "whiteout that is a directory": [member(".wh.d", tarfile.DIRTYPE)],
    "whiteout through a symlink": [member("l", tarfile.SYMTYPE, linkname="/tmp"), member("l/.wh.x")],
    "opaque through a symlink": [member("l", tarfile.SYMTYPE, linkname="/tmp"), member("l/.wh..wh..opq")],
    "file as root": [member("./", data=b"")],
    "too long a name": [member("n" * 300, data=b"x")],
}


def attribute(key: str, value: str) -> list[Member]:
    return [member("f", data=b"x", pax_headers={f"SCHILY.xattr.{key}": value})]


SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
NONSENSE = {
    "owner beyond 32 bits": [member("f", pax_headers={"uid": "9" * 19})],
    "owner that chown takes for none": [member("f", uid=0xFFFFFFFF)],
    "group that chown takes for none": [member("f", gid=0xFFFFFFFF)],
    "device number": [member("d", tarfile.BLKTYPE, devmajor=5000, devminor=1)],
    "attribute without a name": attribute("", "x"),
    "attribute with a zero byte": attribute("user.a\0b", "x"),
    "attribute of no namespace": attribute("none.such", "x"),
    "attribute with a long name": attribute("user." + "a" * 300, "x"),
    "attribute that is too large": attribute("user.a", "x" * 70_000),
    "capabilities that are none": attribute("security.capability", "x"),
    "too many levels": [member("d/" * 600 + "f")],
    "too long a path": [member(("n" * 200 + "/") * 20 + "f")],
    "sparse beyond all disks": [
        member("f", data=b"1\n0\n0\n".ljust(512, b"\0"), pax_headers={**SPARSE, "GNU.sparse.realsize": str(1 << 50)})
    ],
}


@pytest.mark.root
@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused_in_words(store: Store, name: str) -> None:
    """Numbers, names and attributes that no system has end in one error that names the layer, and leave nothing."""
    data = tar(*NONSENSE[name])
    with pytest.raises(UnsafeLayer, match=DiffId.of(data)):
        unpack(store, data)
    assert [] == os.listdir(store.root / "trees") + os.listdir(store.root / "tmp")
    assert [] == store.check()


@pytest.mark.parametrize("time", ["9" * 20, "9223372037", "-9" + "9" * 18])
def test_times_out_of_range_count_as_zero(store: Store, time: str) -> None:
    """A time that does not fit into 64 bits of nanoseconds is the epoch, as for the reference."""
    tree = unpack(store, tar(member("f", pax_headers={"mtime": time}), member("d", tarfile.DIRTYPE)))
    assert 0 == (tree / "f").stat().st_mtime_ns


@pytest.mark.root
def test_check_reads_whatever_was_unpacked(store: Store) -> None:
    """Whiteouts written as devices are no fault; a tar that the standard library gives up on is, in words."""
    unpack(store, tar(member("gone", tarfile.CHRTYPE), member("kept", data=b"x")))
    assert [] == store.check()
    head = tar(member("f"))[:512]
    shared = bytearray(head[:156] + b"g" + head[157:])
    shared[124:136] = b"%011o\0" % 9
    header = _resum(bytes(shared)) + b"9 k=abcd\n".ljust(512, b"\0")
    unpack(store, header * 3000 + tar(member("f", data=b"x")))
    assert ["cannot be read as a layer"] == [
        fault.fault.partition(": ")[0].partition(" ")[2].partition(" ")[2] for fault in store.check()
    ]


@pytest.mark.parametrize("name", TRAVERSALS)
def test_refused_by_name_and_digest(store: Store, tmp_path: Path, name: str) -> None:
    """Every way out of the root or through a link ends in one error that names the layer."""
    before = sorted(os.listdir(tmp_path))
    data = tar(*TRAVERSALS[name])
    if name == "file as root":
        data = data.replace(b"./\0", b".\0\0", 1)
        data = _resum(data)
    with pytest.raises(UnsafeLayer, match=DiffId.of(data)):
        unpack(store, data)
    assert before == sorted(os.listdir(tmp_path))
    assert [] == os.listdir(store.root / "trees") + os.listdir(store.root / "tmp")
    assert not os.path.lexists("/tmp/escape")


def _resum(data: bytes) -> bytes:
    block = data[:148] + b"        " + data[156:512]
    return data[:148] + b"%06o\0 " % sum(block) + data[156:]


def test_absolute_names_stay_inside(store: Store) -> None:
    """A leading slash is taken off, as every unpacker does."""
    tree = unpack(store, tar(member("/etc/inside", data=b"x")))
    assert b"x" == (tree / "etc/inside").read_bytes()


def test_symlinks_out_are_kept_but_not_followed(store: Store) -> None:
    """A symlink's text is content; replacing it replaces the link, not what it points to."""
    tree = unpack(
        store,
        tar(
            member("l", tarfile.SYMTYPE, linkname="/etc/hostname"),
            member("l", data=b"replaced"),
        ),
    )
    assert not (tree / "l").is_symlink()
    assert b"replaced" == (tree / "l").read_bytes()


def test_later_entries_replace_earlier_ones(store: Store) -> None:
    """Directories replace files and files directories; a directory that replaced something hides what is below."""
    tree = unpack(
        store,
        tar(
            member("x", data=b"file"),
            member("x", tarfile.DIRTYPE, mode=0o755),
            member("x/in", data=b"1"),
            member("y", tarfile.DIRTYPE, mode=0o755),
            member("y/deep/er", data=b"1"),
            member("y", data=b"now a file"),
        ),
    )
    assert ["in"] == os.listdir(tree / "x")
    assert b"y" == os.getxattr(tree / "x", "trusted.overlay.opaque")
    assert b"now a file" == (tree / "y").read_bytes()


def test_overlay_attributes_of_a_layer_are_dropped(store: Store) -> None:
    """A layer cannot speak to overlayfs: redirects and opaque marks come from its whiteouts alone."""
    info, data = member("d", tarfile.DIRTYPE, mode=0o755)
    info.pax_headers = {"SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.fine": "1"}
    tree = unpack(store, tar((info, data)))
    assert ["user.fine"] == os.listxattr(tree / "d")


@pytest.mark.parametrize("size", [1 << 33, 1 << 62])
def test_declared_sizes_are_not_believed(size: int) -> None:
    """A header that announces terabytes costs nothing but an error."""
    info, _ = member("bomb")
    info.size = size
    data = info.tobuf(tarfile.GNU_FORMAT) + bytes(1024)
    tracemalloc.start()
    with pytest.raises(UnsafeLayer, match="ends within"):
        list(read_tar(io.BytesIO(data)))
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_extended_headers_are_bounded() -> None:
    """A PAX header of a gigabyte is refused before it is read."""
    info, _ = member("x", tarfile.XHDTYPE)
    info.size = 1 << 30
    with pytest.raises(UnsafeLayer, match="extended header"):
        list(read_tar(io.BytesIO(info.tobuf(tarfile.GNU_FORMAT))))


def test_random_damage_never_ends_in_a_traceback() -> None:
    """Flipped bytes make another archive or an UnsafeLayer, nothing else."""
    good = tar(
        member("a/b", data=b"x" * 700),
        member("long/" * 40, data=b"y"),
        member("s", tarfile.SYMTYPE, linkname="t" * 120),
    )
    randomness = random.Random(7)
    for _ in range(3000):
        data = bytearray(good)
        for _ in range(randomness.randint(1, 4)):
            data[randomness.randrange(len(data))] = randomness.randrange(256)
        if randomness.random() < 0.5:
            data[:512] = _resum(bytes(data))[:512]
        try:
            for entry in read_tar(io.BytesIO(bytes(data)), layer=True):
                assert not entry.path.startswith(b"/")
                assert b".." not in entry.path.split(b"/")
        except UnsafeLayer:
            pass


def test_damaged_blob_file_is_named(store: Store) -> None:
    """A blob that changed on disk is refused by digest when it is read, and listed by check."""
    digest = store.blobs.put_bytes(b"content" * 100)
    path = store.root / "blobs/sha256" / digest.hex
    path.write_bytes(b"CONTENT" * 100)
    with pytest.raises(CorruptContent, match=digest):
        store.blobs.read(digest)
    assert [str(digest)] == [fault.what for fault in store.check()]
    path.write_bytes(b"short")
    with pytest.raises(CorruptContent, match=digest):
        store.blobs.read(digest)


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda tree: (tree / "f").write_bytes(b"other"),
        lambda tree: os.chmod(tree / "f", 0o600),
        lambda tree: os.chown(tree / "f", 1, 1),
        lambda tree: (tree / "f").unlink(),
        lambda tree: (tree / "f").rename(tree / "g"),
    ],
)
@pytest.mark.parametrize("outside", [False, True])
def test_check_finds_a_changed_tree(store: Store, damage: Damage, outside: bool) -> None:
    """Whatever is changed in a tree, check lists the layer, made here or not."""
    data = tar(member("f", data=b"data", mode=0o644))
    if outside:
        tree, diff_id = unpack(store, data), DiffId.of(data)
    else:
        from layerstore import Entry, Forms, Inline, Kind

        layer = store.layers.write([Entry(b"f", Kind.FILE, size=4, source=Inline(b"data"))], forms=Forms.TREE)
        tree, diff_id = store.layers.tree(layer.diff_id), layer.diff_id
    assert [] == store.check()
    damage(tree)
    assert {str(diff_id)} == {fault.what for fault in store.check()}
    if not outside:
        with pytest.raises(StoreError):
            store.layers.blob(diff_id)


def _swap(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


FAULTS: dict[str, Damage] = {
    "another file": lambda tree: (tree / "d/x").write_text(""),
    "an attribute": lambda tree: os.setxattr(tree / "d/f", "user.a", b"w"),
    "no attribute": lambda tree: os.removexattr(tree / "d/f", "user.a"),
    "a time": lambda tree: os.utime(tree / "d/f", (5, 5)),
    "a link": lambda tree: _swap(tree / "d/h", Path.touch),
    "an opaque mark": lambda tree: os.removexattr(tree / "d", "trusted.overlay.opaque"),
    "a whiteout": lambda tree: _swap(tree / "gone", Path.touch),
    "a device": lambda tree: _swap(tree / "n", lambda path: os.mknod(path, 0o20644, os.makedev(1, 5))),
    "a file for a symlink": lambda tree: _swap(tree / "s", Path.touch),
    "a file for a device": lambda tree: _swap(tree / "n", Path.touch),
    "a fifo for a file": lambda tree: _swap(tree / "d/f", os.mkfifo),
}


@pytest.mark.root
@pytest.mark.parametrize("name", FAULTS)
def test_check_compares_all_of_a_tree_with_its_blob(store: Store, name: str) -> None:
    """What an unpacked layer has too much, too little or otherwise is listed, marks and attributes included."""
    data = tar(
        member("d", tarfile.DIRTYPE, mtime=1000, mode=0o755),
        member("d/f", mtime=1000, pax_headers={"SCHILY.xattr.user.a": "v"}),
        member("d/h", tarfile.LNKTYPE, linkname="d/f"),
        member("d/.wh..wh..opq"),
        member("s", tarfile.SYMTYPE, linkname="d"),
        member("n", tarfile.CHRTYPE, devmajor=1, devminor=3),
        member(".wh.gone"),
    )
    tree = unpack(store, data)
    assert [] == store.check()
    FAULTS[name](tree)
    assert {str(DiffId.of(data))} == {fault.what for fault in store.check()}

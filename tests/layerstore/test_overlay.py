"""Trees under a real overlay mount, and what a real overlay writes, made into layers."""

from __future__ import annotations

import ctypes
import itertools
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from layerstore import Compression, Entry, Forms, Inline, Kind, Layer, Store, StoreError, View

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="overlay mounts need CAP_SYS_ADMIN"),
]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "store") as opened:
        yield opened


@contextmanager
def mounted(lowers: tuple[Path, ...], upper: Path, work: Path, where: Path) -> Iterator[Path]:
    """Mount an overlay with the options the runner uses; `lowers` are lowest first."""
    libc = ctypes.CDLL(None, use_errno=True)
    where.mkdir(exist_ok=True)
    options = (
        f"lowerdir={':'.join(str(path) for path in reversed(lowers))},upperdir={upper},workdir={work},"
        "redirect_dir=off,metacopy=off,index=off,xino=off"
    )
    if libc.mount(b"overlay", os.fsencode(where), b"overlay", 0, options.encode()) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), options)
    try:
        yield where
    finally:
        assert libc.umount2(os.fsencode(where), 0) == 0


def file(path: bytes, data: bytes = b"") -> Entry:
    return Entry(path, Kind.FILE, size=len(data), source=Inline(data))


def base(store: Store) -> Layer:
    return store.layers.write(
        [
            Entry(b"d", Kind.DIR, 0o755, mtime_ns=1_000_000_000_000_000_000),
            file(b"d/a", b"a"),
            file(b"d/b", b"b"),
            Entry(b"d/sub", Kind.DIR, 0o750, 7, 8, 1_100_000_000_000_000_000),
            file(b"d/sub/c", b"c"),
            Entry(b"e", Kind.DIR, 0o755),
            file(b"e/keep", b"k"),
            Entry(b"l", Kind.SYMLINK, 0o777, target=b"d"),
        ],
        forms=Forms.TREE,
    )


def names(store: Store, layer: Layer) -> list[str]:
    import io
    import tarfile

    with store.blobs.open(store.layers.blob(layer.diff_id, Compression.NONE).digest) as blob:
        data = blob.read()
    with tarfile.open(fileobj=io.BytesIO(data), errorlevel=2) as archive:
        return [
            f"{member.name} -> {member.linkname}" if member.islnk() else member.name for member in archive.getmembers()
        ]


def run(store: Store, lower: View, tmp_path: Path, work: object) -> Layer:
    upper = store.layers.prepare(lower)
    with mounted(lower.trees, upper.path, upper.work, tmp_path / "merged") as merged:
        work(merged)  # type: ignore[operator]
    return store.layers.commit(upper, lower)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for path in sorted(root.rglob("*")):
        status = os.lstat(path)
        content: object = os.readlink(path) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        found[str(path.relative_to(root))] = (status.st_mode, status.st_uid, status.st_gid, content)
    return found


def through_view(view: View, path: bytes = b"") -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for name in view.listdir(path):
        inner = path + b"/" + name if path else name
        entry = view.lstat(inner)
        assert entry is not None
        assert isinstance(entry.source, bytes)
        content = os.fsdecode(entry.target) if entry.kind is Kind.SYMLINK else view.read(inner)
        found[os.fsdecode(inner)] = (os.lstat(entry.source).st_mode, entry.uid, entry.gid, content)
        if entry.kind is Kind.DIR:
            found |= through_view(view, inner)
    return found


def test_upper_of_a_real_overlay_becomes_the_right_tar(store: Store, tmp_path: Path) -> None:
    """Deletions, replaced directories, new files, hard links and attributes are in the layer, and nothing else."""
    lower = store.layers.view([base(store).diff_id])

    def work(root: Path) -> None:
        (root / "d/a").unlink()
        (root / "new").write_bytes(b"n")
        os.link(root / "new", root / "z-twin")
        import shutil

        shutil.rmtree(root / "d/sub")
        (root / "d/sub").mkdir()
        (root / "d/sub/fresh").write_bytes(b"f")
        (root / "l").unlink()
        (root / "l").write_bytes(b"no link")

    layer = run(store, lower, tmp_path, work)
    assert [
        "d",
        "d/.wh.a",
        "d/sub",
        "d/sub/.wh.c",
        "d/sub/fresh",
        "l",
        "new",
        "z-twin -> new",
    ] == names(store, layer)
    assert [] == store.check()


def test_directory_made_anew_keeps_what_came_back(store: Store, tmp_path: Path) -> None:
    """What a directory that was removed and made again holds as before is no change, and is still there."""
    first = base(store)
    lower = store.layers.view([first.diff_id])

    def work(root: Path) -> None:
        import shutil

        shutil.copytree(root / "d", root / "t", symlinks=True)
        os.chown(root / "t/sub", 7, 8)
        shutil.rmtree(root / "d")
        shutil.copytree(root / "t", root / "d", symlinks=True)
        os.chown(root / "d/sub", 7, 8)
        shutil.rmtree(root / "t")
        (root / "d/b").unlink()
        (root / "d/sub/fresh").write_bytes(b"f")

    second = run(store, lower, tmp_path, work)
    assert ["d", "d/.wh.b", "d/sub", "d/sub/fresh"] == names(store, second)
    view = store.layers.view([first.diff_id, second.diff_id])
    assert [b"a", b"sub"] == view.listdir(b"d")
    assert [b"c", b"fresh"] == view.listdir(b"d/sub")
    assert b"c" == view.read(b"d/sub/c")
    assert [] == store.check()


def test_view_and_kernel_agree(store: Store, tmp_path: Path) -> None:
    """A chain of trees shows the same through View as mounted, after being packed and unpacked elsewhere too."""
    first = base(store)
    lower = store.layers.view([first.diff_id])

    def work(root: Path) -> None:
        (root / "d/a").unlink()
        import shutil

        shutil.rmtree(root / "d/sub")
        (root / "d/sub").mkdir()
        (root / "d/sub/fresh").write_bytes(b"f")
        shutil.rmtree(root / "e")
        (root / "e").write_bytes(b"a file now")

    second = run(store, lower, tmp_path, work)
    chain = [first.diff_id, second.diff_id]
    with Store.open(tmp_path / "other") as other:
        for layer in (first, second):
            packed = store.layers.blob(layer.diff_id, Compression.GZIP)
            with store.blobs.open(packed.digest) as blob:
                other.blobs.put(blob, expected=packed.digest)
            other.layers.adopt(packed.digest, packed.media_type, layer.diff_id, packed.size)
        for one in (store, other):
            view = one.layers.view(chain)
            upper = one.layers.prepare(view)
            with mounted(view.trees, upper.path, upper.work, tmp_path / "merged") as merged:
                expected = snapshot(merged)
            one.layers.discard(upper)
            assert expected == through_view(view)
            assert [] == one.check()


def test_unchanged_directories_are_no_change(store: Store, tmp_path: Path) -> None:
    """Opening a file for writing copies its parents up; with the file gone from the upper, nothing is left to say."""
    lower = store.layers.view([base(store).diff_id])

    def touch_mode(root: Path) -> None:
        os.chmod(root / "d/sub", 0o700)
        os.chmod(root / "d/sub", 0o750)

    nothing = store.layers.commit(store.layers.prepare(), lower)
    assert nothing.diff_id == run(store, lower, tmp_path, touch_mode).diff_id

    def change_mode(root: Path) -> None:
        os.chmod(root / "d/sub", 0o700)

    assert ["d", "d/sub"] == names(store, run(store, lower, tmp_path, change_mode))


def test_file_called_like_a_whiteout_in_a_step(store: Store, tmp_path: Path) -> None:
    """A step that makes a file called .wh.a has deleted a, in the tree as in the tar."""
    first = base(store)
    lower = store.layers.view([first.diff_id])
    layer = run(store, lower, tmp_path, lambda root: (root / "d/.wh.a").write_bytes(b""))
    assert ["d", "d/.wh.a"] == names(store, layer)
    assert [b"b", b"sub"] == store.layers.view([first.diff_id, layer.diff_id]).listdir(b"d")
    assert [] == store.check()


def test_root_keeps_its_mode_and_owner(store: Store, tmp_path: Path) -> None:
    """The root's own attributes come from the topmost tree, so every upper starts with those below."""
    first = store.layers.write([Entry(b"", Kind.DIR, 0o711, 5, 6), file(b"x")], forms=Forms.TREE)
    lower = store.layers.view([first.diff_id])
    second = run(store, lower, tmp_path, lambda root: (root / "y").write_bytes(b""))
    root = store.layers.view([first.diff_id, second.diff_id]).lstat(b"")
    assert root is not None
    assert (0o711, 5, 6) == (root.mode, root.uid, root.gid)


def test_capabilities_and_setid_bits_survive(store: Store, tmp_path: Path) -> None:
    """chown clears set-id bits and capabilities, so the tree sets them afterwards."""
    capability = b"\x01\x00\x00\x02\x00\x20\x00\x00" + bytes(12)
    entry = file(b"ping", b"#!")._replace(mode=0o6755, uid=9, gid=9, xattrs=((b"security.capability", capability),))
    layer = store.layers.write([entry], forms=Forms.BLOB)
    found = store.layers.view([layer.diff_id]).lstat(b"ping")
    assert found is not None
    assert (0o6755, 9, 9, entry.xattrs) == (found.mode, found.uid, found.gid, found.xattrs)


def test_path_that_no_image_can_hold(store: Store, tmp_path: Path) -> None:
    """A step that goes down further than a path can be long gets an error in words, and its upper is gone."""
    lower = store.layers.view([base(store).diff_id])

    def work(root: Path) -> None:
        here = os.open(root, os.O_RDONLY)
        for _ in range(40):
            os.mkdir("n" * 200, dir_fd=here)
            below = os.open("n" * 200, os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = below
        os.close(here)

    with pytest.raises(StoreError, match="too long for an image"):
        run(store, lower, tmp_path, work)
    assert [] == os.listdir(store.root / "work")


def change_at_random(random: Random, root: Path) -> None:
    """Do one thing that a step may do, somewhere below `root`; what cannot be done is left out."""

    def place() -> Path:
        return root.joinpath(*(random.choice("abcde") for _ in range(random.randint(1, 3))))

    path = place()
    with suppress(OSError):
        match random.randrange(10):
            case 0 | 1:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"%d" % random.randrange(10))
            case 2:
                path.mkdir(parents=True)
            case 3:
                path.symlink_to(random.choice(["a", "/b", "../c", "/d/e", ".", ".."]))
            case 4:
                path.unlink()
            case 5:
                shutil.rmtree(path)
            case 6:
                os.link(place(), path, follow_symlinks=False)
            case 7:
                path.chmod(random.choice([0o755, 0o700, 0o600, 0o4755]))
            case 8:
                path.rename(place())
            case _:
                os.chown(path, random.choice([0, 1, 1000]), 5, follow_symlinks=False)


@pytest.mark.parametrize("seed", range(25))
def test_random_steps_look_the_same_everywhere(store: Store, tmp_path: Path, seed: int) -> None:
    """What a step saw at its end is what View shows of its layers, here and in a store that unpacked their tars."""
    random = Random(seed)
    chain = [base(store).diff_id]
    for _ in range(random.randint(1, 4)):
        lower = store.layers.view(chain)
        upper = store.layers.prepare(lower)
        with mounted(lower.trees, upper.path, upper.work, tmp_path / "merged") as merged:
            for _ in range(random.randint(1, 30)):
                change_at_random(random, merged)
            expected = snapshot(merged)
        chain.append(store.layers.commit(upper, lower).diff_id)
        assert expected == through_view(store.layers.view(chain))
    with Store.open(tmp_path / "other") as other:
        for diff_id in dict.fromkeys(chain):
            packed = store.layers.blob(diff_id, Compression.NONE)
            with store.blobs.open(packed.digest) as blob:
                other.blobs.put(blob, expected=packed.digest)
            other.layers.adopt(packed.digest, packed.media_type, diff_id, packed.size)
        view = other.layers.view(chain)
        assert expected == through_view(view)
        upper = other.layers.prepare(view)
        with mounted(view.trees, upper.path, upper.work, tmp_path / "merged") as merged:
            assert expected == snapshot(merged)
        other.layers.discard(upper)
        assert [] == store.check() + other.check()


def test_a_view_upon_another_is_the_view_of_all(tmp_path: Path) -> None:
    """Random trees one upon the other, each asked before the next: every answer is that of a view made at once."""
    rng = Random(11)
    names = (b"a", b"b", b"c")
    paths = [b"/".join(parts) for depth in (1, 2, 3) for parts in itertools.product(names, repeat=depth)]
    for number in range(40):
        view = View([])
        trees: list[Path] = []
        for layer in range(6):
            tree = tmp_path / f"{number}-{layer}"
            _random_tree(rng, os.fsencode(tree), names, depth=3)
            trees.append(tree)
            for path in rng.sample(paths, rng.randrange(len(paths))):
                view.lstat(path)
                view.listdir(path)
            view = view.upon(tree)
            whole = View(trees)
            assert whole.trees == view.trees
            for path in (b"", *rng.sample(paths, len(paths))):
                assert whole.lstat(path) == view.lstat(path), (number, layer, path)
                assert whole.listdir(path) == view.listdir(path), (number, layer, path)
                assert whole.directories(path) == view.directories(path), (number, layer, path)
    assert View([*trees[:2], trees[0]]).trees == View(trees[:2]).upon(trees[0]).trees


def _random_tree(rng: Random, at: bytes, names: tuple[bytes, ...], *, depth: int) -> None:
    """Make a directory of files, whiteouts, links and directories, some of them opaque."""
    os.mkdir(at)
    if rng.random() < 0.15:
        os.setxattr(at, b"trusted.overlay.opaque", b"y")
    for name in names:
        path = at + b"/" + name
        match rng.randrange(6 if depth > 1 else 3):
            case 0:
                Path(os.fsdecode(path)).write_bytes(b"x")
            case 1:
                os.mknod(path, stat.S_IFCHR, 0)
            case 3 | 4 | 5:
                _random_tree(rng, path, names, depth=depth - 1)
            case _:
                pass

"""Merged lowers show what the layers show that they were made of, under a real overlay mount."""

from __future__ import annotations

import os
import resource
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

import pytest

from layerstore import Entry, Forms, Inline, Kind, Store, View
from layerstore.lowers import Lowers
from runner.overlay import overlay

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="overlay mounts need CAP_SYS_ADMIN"),
]

LAYERS = 75
ENOUGH = 20
"""Uses after which what can be merged is."""


@contextmanager
def mounted(lowers: tuple[Path, ...], upper: Path, work: Path) -> Iterator[Path]:
    """Give the root of a detached overlay mount; `lowers` are topmost first."""
    fd = overlay(tuple(map(os.fsencode, lowers)), os.fsencode(upper), os.fsencode(work))
    try:
        yield Path(f"/proc/self/fd/{fd}/.")
    finally:
        os.close(fd)


def shown(store: Store, lowers: tuple[Path, ...]) -> dict[str, tuple[object, ...]]:
    """All that a step on these directories can see, but for numbers of inodes and times of change."""
    upper = store.layers.prepare()
    found: dict[str, tuple[object, ...]] = {}
    with mounted(lowers, upper.path, upper.work) as root:
        for folder, directories, files in os.walk(root):
            for name in (*directories, *files):
                path = Path(folder, name)
                status = os.lstat(path)
                content: object = None
                if stat.S_ISREG(status.st_mode):
                    content = path.read_bytes()
                elif stat.S_ISLNK(status.st_mode):
                    content = os.readlink(path)
                xattrs = {key: os.getxattr(path, key) for key in os.listxattr(path, follow_symlinks=False)}
                fields = (status.st_mode, status.st_nlink, status.st_uid, status.st_gid, status.st_size, status.st_rdev)
                times = (status.st_mtime_ns, status.st_dev == os.lstat(root).st_dev)
                found[os.path.relpath(path, root)] = (*fields, *times, content, xattrs)
    store.layers.discard(upper)
    return found


def step(store: Store, view: View, work: Callable[[Path], None]) -> View:
    """The view with a layer on top that `work` makes under a real mount."""
    upper = store.layers.prepare(view)
    with mounted(view.trees[::-1], upper.path, upper.work) as root:
        work(root)
    layer = store.layers.commit(upper, view)
    return view.upon(store.layers.tree(layer.diff_id))


def number(root: Path, layer: int) -> None:
    (root / f"file{layer}").write_text(str(layer))


def chain(store: Store, layers: int = LAYERS, begin: Callable[[Path], object] = lambda _: None) -> View:
    """A view of so many layers with a file each; the first one has what `begin` makes as well."""
    layer = store.layers.write([Entry(b"base", Kind.FILE, size=4, source=Inline(b"base"))], forms=Forms.TREE)
    view = store.layers.view([layer.diff_id])
    for count in range(1, layers):

        def work(root: Path, count: int = count) -> None:
            number(root, count)
            if count == 1:
                begin(root)

        view = step(store, view, work)
    return view


def settled(lowers: Lowers, view: View) -> tuple[Path, ...]:
    """The directories for a view that was used many times."""
    for _ in range(ENOUGH):
        found = lowers.of(view)
    return found


def test_small_layers_are_merged(store: Store) -> None:
    """Those of whole runs are, after some uses; a layer more changes nothing for them; nothing is left in the end."""
    with store.lease():
        view = chain(store)
        before = set((store.root / "work").iterdir())
        lowers = store.layers.lowers()

        first = lowers.of(view)
        found = settled(lowers, view)
        longer = lowers.of(step(store, view, lambda root: number(root, LAYERS)))

        assert view.trees[::-1] == first
        merged = LAYERS // 32
        assert merged + LAYERS % 32 == len(found)
        assert view.trees[: 32 * merged - 1 : -1] == found[:-merged]
        assert found == longer[1:]
        assert shown(store, first) == shown(store, found)
        lowers.close()
        assert before == set((store.root / "work").iterdir())


def test_copies_that_cannot_be_made_are_done_without(store: Store) -> None:
    """A step is not refused because a copy found no room: it mounts all layers, and what was begun goes in the end."""
    with store.lease():
        view = chain(store)
        before = set((store.root / "work").iterdir())
        lowers = store.layers.lowers()
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
        try:
            found = settled(lowers, view)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

        assert view.trees[::-1] == found == settled(lowers, view)
        assert before < set((store.root / "work").iterdir())
        lowers.close()
        assert before == set((store.root / "work").iterdir())


def test_short_chains_are_left_alone(store: Store) -> None:
    """Most images have few layers, and nothing is copied for them."""
    with store.lease():
        view = chain(store, 63)
        lowers = store.layers.lowers()

        assert view.trees[::-1] == settled(lowers, view)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_shown_stays_the_same(store: Store, seed: int) -> None:
    """Whatever steps do: times to the nanosecond, owners, modes, links, attributes, devices, what is removed."""
    with store.lease():
        random = Random(seed)
        view = chain(store, 40)
        for _ in range(90):
            view = step(store, view, lambda root: change(root, random, rare=0.05))
        lowers = store.layers.lowers()
        for _ in range(4):  # what was found unfit moves the runs
            found = settled(lowers, view)

        assert len(found) < len(view.trees)
        assert shown(store, view.trees[::-1]) == shown(store, found)
        lowers.close()


def change(root: Path, random: Random, *, rare: float) -> None:
    """Do something of what steps do; now and then something that few do."""
    names = [f"{folder}{name}" for folder in ("", "d/", "d/e/", "f/") for name in ("a", "b", "c")]
    for folder in ("d/e", "f"):
        with suppress(FileExistsError, NotADirectoryError):
            (root / folder).mkdir(parents=True)
    path, other = (root / random.choice(names) for _ in range(2))
    with suppress(OSError):  # much of it is impossible where it is tried
        if random.random() < rare:
            match random.randrange(6):
                case 0:
                    os.mknod(path, random.choice([stat.S_IFIFO, stat.S_IFCHR]) | 0o600, os.makedev(1, 3))
                case 1:
                    os.link(path, other)
                case 2:
                    os.setxattr(path, "user.seen", random.randbytes(3))
                case 3:
                    shutil.rmtree(root / "f")
                    (root / "f").mkdir()
                case 4:
                    path.unlink()
                    path.mkdir()
                case 5:
                    path.write_bytes(bytes(200_000))
            return
        match random.randrange(7):
            case 0 | 1:
                path.write_bytes(random.randbytes(random.randrange(3000)))
            case 2:
                path.unlink()
            case 3:
                path.symlink_to(random.choice(names))
            case 4:
                path.chmod(random.randrange(0o10000))
            case 5:
                os.chown(path, random.randrange(9), random.randrange(9), follow_symlinks=False)
            case 6:
                path.rename(other)


UNFIT: dict[str, Callable[[Path], object]] = {
    "a hard link": lambda root: os.link(root / "file1", root / "linked"),
    "an attribute": lambda root: os.setxattr(root / "file1", "user.name", b"value"),
    "a device": lambda root: os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3)),
    "a fifo": lambda root: os.mkfifo(root / "fifo"),
    "many files": lambda root: [(root / f"many{n}").write_bytes(b"") for n in range(20)],
    "many bytes": lambda root: (root / "large").write_bytes(bytes(200_000)),
    "what was a file and is a directory": lambda root: replace(root / "base"),
}


def replace(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("what", UNFIT)
def test_what_a_copy_could_not_show_is_mounted_as_it_is(store: Store, what: str) -> None:
    """A layer that is not plain stays itself, the others are merged around it."""
    with store.lease():
        view = chain(store, begin=UNFIT[what])
        lowers = store.layers.lowers()
        for _ in range(2):
            found = settled(lowers, view)

        assert view.trees[1] in found
        assert len(found) < LAYERS // 2
        assert shown(store, view.trees[::-1]) == shown(store, found)
        lowers.close()


def test_opaque_directories_are_mounted_as_they_are(store: Store) -> None:
    """They hide what lies below, also below what is merged."""
    entries = [Entry(b"d", Kind.DIR, 0o755), Entry(b"d/below", Kind.FILE, size=1, source=Inline(b"b"))]
    opaque = [entries[0], Entry(b"d", Kind.OPAQUE), Entry(b"d/above", Kind.FILE, size=1, source=Inline(b"a"))]
    with store.lease():
        bottom, top = (store.layers.write(one, forms=Forms.TREE) for one in (entries, opaque))
        view = store.layers.view([bottom.diff_id, top.diff_id])
        for count in range(LAYERS):
            view = step(store, view, lambda root, count=count: number(root, count))  # type: ignore[misc]
        lowers = store.layers.lowers()
        for _ in range(2):
            found = settled(lowers, view)

        assert store.layers.tree(top.diff_id) in found
        assert len(found) < LAYERS // 2
        assert {"d/above"} == {path for path in shown(store, found) if path.startswith("d/")}
        lowers.close()

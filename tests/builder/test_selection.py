"""Content digests of what copies select: what changes them, what does not, and what is read for them."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from builder.context import LocalContext
from builder.copy import CopySpec, FileSource, PathSource, TextSource, select
from builder.dockerignore import IgnoreFile
from builder.selection import Selection
from layerstore.digest import Digest
from layerstore.store import Store
from layerstore.view import View

LATER = 1 << 62


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A small context."""
    top = tmp_path / "context"
    (top / "src" / "sub").mkdir(parents=True)
    (top / "src" / "a").write_text("alpha")
    (top / "src" / "sub" / "b").write_text("beta")
    (top / "src" / "link").symlink_to("a")
    (top / "other").write_text("other")
    return top


def digest(
    store: Store, root: Path, *sources: str, rules: bytes = b"", exclude: tuple[str, ...] = (), parents: bool = False
) -> Digest:
    """Return the digest that a new build would find."""
    paths = tuple(PathSource(source.encode()) for source in sources)
    spec = CopySpec(sources=paths, dest=b"/", exclude=exclude, parents=parents)
    return select(spec, LocalContext(root, IgnoreFile(rules), opened_ns=LATER)).digest(store.files)


def test_what_does_not_count(store: Store, root: Path) -> None:
    """Times, inodes, the place on the host, files that are not selected or not copied."""
    before = digest(store, root, "src")
    os.utime(root / "src" / "a", ns=(1, 1))
    data = (root / "src" / "sub" / "b").read_bytes()
    (root / "src" / "sub" / "b").unlink()
    (root / "src" / "sub" / "b").write_bytes(data)
    (root / "other").write_text("changed")
    (root / "src").chmod(0o700)
    (root / "src" / "new.log").write_text("")
    moved = root.parent / "moved"
    root.rename(moved)

    assert before == digest(store, moved, "src", rules=b"**/*.log") == digest(store, moved, "src", exclude=("*.log",))
    assert before != digest(store, moved, "src")


@pytest.mark.parametrize(
    "change", ["data", "mode", "name", "type", "target", "empty", "added", "removed", "linked", "directory"]
)
def test_what_counts(store: Store, root: Path, change: str) -> None:
    """Data, modes, names, types, link targets, empty directories, hard links."""
    src = root / "src"
    before = digest(store, root, "src")
    match change:
        case "data":
            (src / "a").write_text("ALPHA")
        case "mode":
            (src / "a").chmod(0o600)
        case "name":
            (src / "a").rename(src / "c")
        case "type":
            (src / "a").unlink()
            os.mkfifo(src / "a")
        case "target":
            (src / "link").unlink()
            (src / "link").symlink_to("sub")
        case "empty":
            (src / "void").mkdir()
        case "added":
            (src / "new").touch()
        case "removed":
            (src / "sub" / "b").unlink()
        case "linked":
            os.link(src / "a", src / "sub" / "a")
            one = digest(store, root, "src")
            (src / "sub" / "a").unlink()
            (src / "sub" / "a").write_text("alpha")
            assert one != digest(store, root, "src")
        case "directory":
            (src / "sub").chmod(0o700)

    assert before != digest(store, root, "src")


def test_same_content_by_another_way_is_the_same(store: Store, root: Path) -> None:
    """A directory by its name, with slashes, through a link; but a file's name counts, it may land in a directory."""
    (root / "way").symlink_to("src")
    (root / "copy").write_text("other")

    assert digest(store, root, "src") == digest(store, root, "/src/") == digest(store, root, "way")
    assert digest(store, root, "other") != digest(store, root, "copy")
    assert digest(store, root, "other", "src") != digest(store, root, "src", "other")


def test_parents_take_only_what_matches(store: Store, root: Path) -> None:
    """With --parents other files do not count, the directories passed through do."""
    before = digest(store, root, "src/sub/b", parents=True)
    (root / "src" / "a").write_text("changed")
    assert before == digest(store, root, "src/sub/b", parents=True)
    (root / "src" / "sub").chmod(0o711)

    assert before != digest(store, root, "src/sub/b", parents=True)


def test_nothing_is_read_twice(store: Store, root: Path) -> None:
    """An unchanged selection is known by its stamps, a changed one reads only the changed file."""
    before = digest(store, root, "src")
    (root / "src" / "sub" / "b").chmod(0)
    stamp = os.stat(root / "src" / "a")
    os.truncate(root / "src" / "a", 0)
    (root / "src" / "a").write_text("ALPHA")
    os.utime(root / "src" / "a", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

    assert before != digest(store, root, "src")  # the change time gives it away
    after = digest(store, root, "src")
    context = LocalContext(root, opened_ns=LATER)
    selection = select(CopySpec(sources=(PathSource(b"src"),), dest=b"/"), context)
    assert after == selection.digest(store.files)
    assert not context._children  # known from the stamps alone: no entry was made


def test_young_files_are_not_remembered(store: Store, root: Path) -> None:
    """A file that changed after the context was opened may change again within the same tick."""
    spec = CopySpec(sources=(PathSource(b"src"),), dest=b"/")
    young = LocalContext(root, opened_ns=os.stat(root / "src" / "a").st_mtime_ns)
    select(spec, young).digest(store.files)
    again = LocalContext(root, opened_ns=LATER)
    select(spec, again).digest(store.files)

    assert again._children  # had to be hashed


def test_layers_downloads_and_heredocs(store: Store, root: Path) -> None:
    """Trees of layers are known by their layers; downloads and heredocs count by name and content."""
    spec = CopySpec(sources=(PathSource(b"src"),), dest=b"/")
    view = View([root])
    assert select(spec, view).digest(store.files) == select(spec, View([root])).digest(store.files)

    def of(name: bytes, data: bytes) -> Digest:
        text = CopySpec(sources=(TextSource(name, data),), dest=b"/")
        return select(text, None).digest(store.files)

    def download(name: bytes) -> Digest:
        file = CopySpec(sources=(FileSource(name, root / "other", 5),), dest=b"/")
        return select(file, None).digest(store.files)

    assert of(b"a", b"x") == of(b"a", b"x")
    assert 4 == len({of(b"a", b"x"), of(b"b", b"x"), of(b"a", b"y"), download(b"a")})
    before = download(b"a")
    (root / "other").write_text("changed")
    assert before != download(b"a")


@pytest.fixture
def coarse(tmp_path: Path) -> Iterator[Path]:
    """A directory whose times are those of the kernel's clock tick; other file systems have finer ones (Linux 6.13)."""
    where = tmp_path / "coarse"
    where.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "ramfs", where], check=True)
    try:
        yield where
    finally:
        subprocess.run(["umount", where], check=True)


@pytest.mark.root
@pytest.mark.parametrize("told", [True, False])
def test_a_file_edited_twice_within_one_tick(store: Store, coarse: Path, told: bool) -> None:
    """Racy clean: a second edit that keeps size, mtime and ctime is seen all the same.

    Whether the digest was made for the key, or told by whoever wrote the layer.
    """
    path = coarse / "src" / "a"
    path.parent.mkdir()
    spec = CopySpec(sources=(PathSource(b"src"),), dest=b"/")

    def write(data: bytes) -> tuple[int, ...]:
        path.write_bytes(data)
        os.utime(path, ns=(1_000_000_000, 1_000_000_000))
        status = path.stat()
        return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns

    same = 0
    for _ in range(200):
        opened = time.time_ns()
        first = write(b"one")
        selection = select(spec, LocalContext(coarse, opened_ns=opened))
        read = {os.fsencode(path): hashlib.sha256(b"one").digest()} if told else None
        before = selection.digest(store.files, read)
        second = write(b"two")
        assert before != select(spec, LocalContext(coarse, opened_ns=time.time_ns())).digest(store.files)
        same += first == second
        if same > 2:
            return
    raise AssertionError("no two edits within one tick of the file system's clock")


def test_digests_that_were_told(store: Store, root: Path) -> None:
    """A digest made of what somebody else has read is the same; nothing is read for it, and it is remembered."""
    expected = digest(store, root, "src")
    read = {
        os.fsencode(root / "src" / name): hashlib.sha256((root / "src" / name).read_bytes()).digest()
        for name in ("a", "sub/b")
    }
    spec = CopySpec(sources=(PathSource(b"src"),), dest=b"/")
    with Store.open(root.parent / "another") as another:
        selection = select(spec, LocalContext(root, opened_ns=LATER))
        assert None is selection.remembered(another.files)
        assert expected == selection.digest(another.files, read)
        assert read == selection.data
        assert expected == select(spec, LocalContext(root, opened_ns=LATER)).remembered(another.files)
        wrong = {name: bytes(32) for name in read}
        assert expected != select(spec, LocalContext(root, opened_ns=LATER)).digest(another.files, wrong)


def test_samples(store: Store, root: Path) -> None:
    """Pieces of large files tell some contents apart, and never tell equal ones apart; small files have no sample."""

    def sample(data: bytes) -> tuple[str, ...]:
        (root / "src" / "large").write_bytes(data)
        context = LocalContext(root, opened_ns=LATER)
        return select(CopySpec(sources=(PathSource(b"src"),), dest=b"/"), context).samples(store.files)

    large = bytes(8 << 20)
    assert () == sample(large[:-1])
    known = sample(large)
    assert 1 == len(known)
    assert known == sample(large)
    for other in (b"1" + large[1:], large[:-1] + b"1", large + b"\0"):
        assert known != sample(other)
    # One byte of a piece that is not looked at.
    assert known == sample(large[:5000] + b"1" + large[5001:])


def test_samples_of_many_files_that_were_never_seen(store: Store, root: Path) -> None:
    """Where nothing is remembered, a few files tell contents apart; a context that was edited has no such sample."""

    def fill(word: str) -> None:
        for number in range(600):
            path = root / "src" / str(number)
            path.unlink(missing_ok=True)
            path.write_text(f"{word} {number}")

    def selection() -> Selection:
        spec = CopySpec(sources=(PathSource(b"src"),), dest=b"/")
        return select(spec, LocalContext(root, opened_ns=LATER))

    fill("one")
    one = selection().samples(store.files)
    assert 1 == len(one)
    fill("two")
    assert one != selection().samples(store.files)
    fill("one")
    assert one == selection().samples(store.files)
    selection().digest(store.files)
    for number in range(200):
        (root / "src" / str(number)).write_text("edited")
    assert () == selection().samples(store.files)


@pytest.mark.root
def test_remembered_files_have_no_capability(store: Store, root: Path) -> None:
    """A file that gets a capability is looked at again, one that has it always; the others need not be."""
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    host = os.fsencode(os.path.realpath(root / "src" / "ping"))
    (root / "src" / "ping").write_text("ping")

    def recalled() -> tuple[bool, tuple[tuple[bytes, bytes], ...]]:
        context = LocalContext(root, opened_ns=LATER)
        seen = select(CopySpec(sources=(PathSource(b"src"),), dest=b"/"), context)
        seen.recall(store.files)
        [entry] = [entry for entry in context.children(b"src") if entry.path == b"src/ping"]
        seen.digest(store.files)
        return host in context.recalled, entry.xattrs

    assert (False, ()) == recalled()
    assert (True, ()) == recalled()
    os.setxattr(host, "security.capability", capability)
    for _ in range(2):
        assert (False, ((b"security.capability", capability),)) == recalled()
    os.removexattr(host, "security.capability")
    assert (False, ()) == recalled()
    assert (True, ()) == recalled()

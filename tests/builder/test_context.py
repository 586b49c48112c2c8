"""The build context as a file tree."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from builder.context import LocalContext
from builder.dockerignore import IgnoreFile
from builder.errors import SourceError
from layerstore.entry import Kind


def fill(root: Path, *paths: str) -> None:
    """Make files, and directories for paths that end in a slash."""
    for path in paths:
        at = root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith("/"):
            at.mkdir(exist_ok=True)
        else:
            at.write_text(path)


def everything(context: LocalContext) -> list[str]:
    """List every visible path, by the walk that fingerprints use."""
    return sorted(f"{directory}/{name}".lstrip("/") for directory, names in context.scan(b"") for name in names)


def test_walk_and_exact_match_agree(tmp_path: Path) -> None:
    """The fast walk shows exactly the paths that no rule hides, and the parents of those brought back."""
    fill(tmp_path, "a.log", "src/a.c", "src/x.tmp", "src/lib/needed.tmp", "src/old/gone", "src/old/keep/me", "b/c/d")
    fill(tmp_path, "q/deep/inner/x", "q/deep/outer/x", "void/", "node_modules/a/b", "w/node_modules/c")
    rules = b"**/*.tmp\n!src/lib/needed.tmp\nsrc/old\n!src/old/keep/me\n*.log\nb\n**/deep/inner\n**/node_modules\n"
    ignore = IgnoreFile(rules)
    visible = []
    for folder, names, files in os.walk(tmp_path):
        for name in [*names, *files]:
            path = os.path.relpath(os.path.join(folder, name), tmp_path)
            if ignore.explain(path.encode()) is None:
                visible.append(path)

    assert sorted([*visible, "src/old", "src/old/keep"]) == everything(LocalContext(tmp_path, ignore))


def test_entries(tmp_path: Path) -> None:
    """Owners are root's, sockets are empty files, hard links can be told, modes and times are kept."""
    fill(tmp_path, "file")
    (tmp_path / "file").chmod(0o4711)
    os.utime(tmp_path / "file", ns=(5, 1_234_567_890_123_456_789))
    os.link(tmp_path / "file", tmp_path / "other")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe", 0o620)
    os.chmod(tmp_path / "pipe", 0o620)
    if os.geteuid() == 0:
        os.chown(tmp_path / "pipe", 5, 6)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "sock"))
    context = LocalContext(tmp_path)

    file = context.lstat(b"file")
    other = context.lstat(b"other")
    assert file is not None
    assert other is not None
    assert (Kind.FILE, 0o4711, 1_234_567_890_123_456_789, 4) == (file.kind, file.mode, file.mtime_ns, file.size)
    assert file.inode == other.inode is not None
    link = context.lstat(b"link")
    assert link is not None
    assert (Kind.SYMLINK, b"file") == (link.kind, link.target)
    pipe = context.lstat(b"pipe")
    assert pipe is not None
    assert (Kind.FIFO, 0o620, 0, 0) == (pipe.kind, pipe.mode, pipe.uid, pipe.gid)
    sock = context.lstat(b"sock")
    assert sock is not None
    assert (Kind.FILE, 0) == (sock.kind, sock.size)
    assert [b"file", b"link", b"other", b"pipe", b"sock"] == context.listdir(b"")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"to-dir/x", b"dir/x"),
        (b"absolute/x", b"dir/x"),
        (b"climb", b"dir"),
        (b"chain/x", b"dir/x"),
        (b"dangling/x", b"no/where/x"),
        (b"dir/../dir/./x", b"dir/x"),
        (b"../../dir", b"dir"),
        (b"hidden-way", b"secret"),
        (b"", b""),
    ],
)
def test_resolve(tmp_path: Path, path: bytes, expected: bytes) -> None:
    """Links are followed inside the root, whatever they say, and never outside of it."""
    fill(tmp_path, "dir/x", "secret")
    for name, target in {
        "to-dir": "dir",
        "absolute": "/dir",
        "climb": "../../../dir",
        "chain": "to-dir",
        "dangling": "no/where",
        "hidden-way": "secret",
    }.items():
        (tmp_path / name).symlink_to(target)

    assert expected == LocalContext(tmp_path, IgnoreFile(b"secret")).resolve(path)
    assert b"to-dir" == LocalContext(tmp_path).resolve(b"to-dir", follow_last=False)


def test_loop_of_links(tmp_path: Path) -> None:
    """A loop is an error with a hint, no endless search."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(SourceError, match="too many links in"):
        LocalContext(tmp_path).resolve(b"a")


def test_read_goes_through_links_and_rules(tmp_path: Path) -> None:
    """What is ignored cannot be read, not through a link either."""
    fill(tmp_path, "file", "secret")
    (tmp_path / "link").symlink_to("/file")
    (tmp_path / "way").symlink_to("secret")
    context = LocalContext(tmp_path, IgnoreFile(b"secret"))

    assert b"file" == context.read(b"link")
    assert b"fi" == context.read(b"file", limit=2)
    assert context.read(b"secret") is None
    assert context.read(b"way") is None


def test_a_context_is_seen_once(tmp_path: Path) -> None:
    """What changes after the first look does not change what a build sees."""
    fill(tmp_path, "a")
    context = LocalContext(tmp_path)
    before = everything(context)
    fill(tmp_path, "b")

    assert before == everything(context) == ["a"]


def test_ignored_directories_are_not_read(tmp_path: Path) -> None:
    """A directory that nothing can bring back is not entered: it may be unreadable or huge."""
    fill(tmp_path, "kept/x", "closed/x", "back/x")
    context = LocalContext(tmp_path, IgnoreFile(b"closed\nback\n!back/x\n"))
    everything(context)

    assert ["", "back", "kept"] == sorted(context._directories)


def test_no_context(tmp_path: Path) -> None:
    """A context that is missing or no directory is said to be so."""
    fill(tmp_path, "file")

    with pytest.raises(SourceError, match="not a directory"):
        LocalContext(tmp_path / "file")
    with pytest.raises(SourceError, match="cannot read the build context"):
        LocalContext(tmp_path / "none")

"""Planning copies: what recorded cases do not show."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest
import zstandard

from builder.context import LocalContext
from builder.copy import (
    DEST,
    FLAGS,
    CopyError,
    CopyPlan,
    CopySpec,
    FileSource,
    PathSource,
    TextSource,
    plan_copy,
    plan_mkdir,
    select,
)
from builder.dockerignore import IgnoreFile
from builder.facts import facts_hold
from builder.filetree import EmptyTree, FileTree
from layerstore.entry import Entry, Inline, Kind, Stream
from layerstore.store import Store
from layerstore.view import View


def fill(root: Path, files: dict[str, str]) -> Path:
    """Write files."""
    for path, content in files.items():
        at = root / path
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(content)
    return root


def spec_of(*sources: str, dest: str, chown: str = "", exclude: tuple[str, ...] = (), unpack: bool = False) -> CopySpec:
    """Make a spec of path sources."""
    paths = tuple(PathSource(source.encode(), word) for word, source in enumerate(sources))
    return CopySpec(sources=paths, dest=dest.encode(), chown=chown, exclude=exclude, unpack=unpack)


def plan(spec: CopySpec, tree: FileTree | None, dest: FileTree | None = None) -> CopyPlan:
    """Select and plan."""
    return plan_copy(spec, select(spec, tree), dest, created_ns=7)


def listing(entries: Sequence[Entry]) -> list[str]:
    """Say in short what a layer holds."""
    return [f"{entry.kind.name} {os.fsdecode(entry.path)}" for entry in entries]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A directory for a context."""
    root = tmp_path / "context"
    root.mkdir()
    return root


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A directory for the image below."""
    root = tmp_path / "image"
    root.mkdir()
    return root


def test_missing_source_says_why(context: Path) -> None:
    """The error has the reference's words and the word at fault; the hint names the rule or the near name."""
    fill(context, {"src/server.py": "", "secret.txt": ""})
    tree = LocalContext(context, IgnoreFile(b"# x\nsecret*\n"))

    with pytest.raises(CopyError, match=r'"/secret\.txt": not found') as hidden:
        select(spec_of("src", "secret.txt", dest="/x/"), tree)
    with pytest.raises(CopyError, match=r'"/src/sever\.py": not found') as mistyped:
        select(spec_of("src/sever.py", dest="/x/"), tree)
    with pytest.raises(CopyError) as far:
        select(spec_of("nothing-like-it", dest="/x/"), tree)

    assert (1, "line 2 of .dockerignore leaves it out: secret*") == (hidden.value.word, hidden.value.hint)
    assert (0, "did you mean src/server.py?") == (mistyped.value.word, mistyped.value.hint)
    assert not far.value.hint


def test_malformed_wildcard(context: Path) -> None:
    """A wildcard that is none is an error at its word."""
    with pytest.raises(CopyError, match="syntax error in pattern") as caught:
        select(spec_of("a", "b[", dest="/"), LocalContext(fill(context, {"a": ""})))

    assert caught.value.word == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="capabilities need root")
def test_capabilities_are_the_only_attributes(context: Path) -> None:
    """A file's capability reaches the layer, a user attribute does not."""
    fill(context, {"src/ping": "ping"})
    capability = bytes.fromhex("0100000200200000000000000000000000000000")
    os.setxattr(context / "src" / "ping", "security.capability", capability)
    os.setxattr(context / "src" / "ping", "user.shade", b"oak")

    entries = list(plan(spec_of("src", dest="/d"), LocalContext(context)).entries())

    assert ((b"security.capability", capability),) == entries[-1].xattrs


def test_order_is_that_of_the_layer(context: Path) -> None:
    """Entries come sorted by path, a directory before what is in it and before names that only begin alike."""
    fill(context, {"b/x": "", "b-c/y": "", "a": ""})

    entries = list(plan(spec_of(".", dest="/d"), LocalContext(context)).entries())

    assert ["DIR d", "FILE d/a", "DIR d/b", "FILE d/b/x", "DIR d/b-c", "FILE d/b-c/y"] == listing(entries)
    assert [7] == [entry.mtime_ns for entry in entries if entry.path == b"d"]


def test_later_source_takes_a_hard_link_apart(context: Path) -> None:
    """When a later source replaces one name of a file, the other names keep the old content."""
    fill(context, {"pair/a": "old", "other/a": "new"})
    os.link(context / "pair" / "a", context / "pair" / "b")
    os.link(context / "pair" / "a", context / "pair" / "c")

    entries = list(plan(spec_of("pair", "other", dest="/d/"), LocalContext(context)).entries())

    assert ["DIR d", "FILE d/a", "FILE d/b", "HARDLINK d/c"] == listing(entries)
    assert [os.fsencode(context) + b"/other/a", os.fsencode(context) + b"/pair/b"] == [
        entry.source for entry in entries if entry.kind is Kind.FILE
    ]
    assert b"d/b" == entries[-1].target


def test_downloads_and_heredocs() -> None:
    """A download is 0600 with its own time, a heredoc 0644; heredocs come last, as in the reference."""
    here = Path(__file__)
    spec = CopySpec(
        sources=(TextSource(b"EOF", b"text"), FileSource(b"f", here, 5_000_000_000), TextSource(b"f", b"wins")),
        dest=b"d/",
    )

    entries = {entry.path: entry for entry in plan(spec, None).entries()}

    assert (0o644, Inline(b"wins")) == (entries[b"d/f"].mode, entries[b"d/f"].source)
    assert Inline(b"text") == entries[b"d/EOF"].source
    alone = CopySpec(sources=spec.sources[1:2], dest=b"x", workdir=b"/w")
    entry = list(plan(alone, None).entries())[-1]
    assert (b"w/x", 0o600, 5_000_000_000, os.fsencode(here)) == (entry.path, entry.mode, entry.mtime_ns, entry.source)


class TestFacts:
    """A layer can be used again behind another image exactly if what it was made of there is the same."""

    def made(self, context: Path, image: Path, spec: CopySpec) -> list[list[str]]:
        """Plan over `image`; return the facts as a record gives them back."""
        facts = plan(spec, LocalContext(context), View([image])).facts
        assert facts is not None
        kept: list[list[str]] = json.loads(json.dumps(facts))
        return kept

    def test_unrelated_changes_do_not_matter(self, context: Path, image: Path, tmp_path: Path) -> None:
        """New files beside what is copied, and other content of what is overwritten, leave the layer good."""
        fill(context, {"src/a": "1", "src/sub/b": "2"})
        fill(image, {"app/a": "old", "etc/passwd": "x"})
        facts = self.made(context, image, spec_of("src", dest="/app"))
        other = fill(tmp_path / "other", {"app/a": "changed", "app/node_modules/x": "", "bin/new": ""})

        assert facts_hold(facts, View([image]))
        assert facts_hold(facts, View([other]))

    @pytest.mark.parametrize("change", ["mode", "link", "gone", "file", "below"])
    def test_changes_that_matter(self, context: Path, image: Path, change: str) -> None:
        """Another mode of an ancestor, a link or a file in its place, its absence, a directory where a file goes."""
        fill(context, {"src/a": "1", "src/sub/b": "2"})
        fill(image, {"app/keep": ""})
        facts = self.made(context, image, spec_of("src", dest="/app"))
        (image / "app" / "keep").unlink()
        match change:
            case "mode":
                (image / "app").chmod(0o700)
            case "below":
                (image / "app" / "a").mkdir()
            case _:
                (image / "app").rmdir()
        if change == "link":
            (image / "app").symlink_to("elsewhere")
        elif change == "file":
            (image / "app").touch()

        assert not facts_hold(facts, View([image]))

    def test_owner_names(self, context: Path, image: Path) -> None:
        """Of passwd and group only the ids behind the names count."""
        fill(context, {"a": "1"})
        fill(image, {"etc/passwd": "alma:x:5:6::/:/bin/sh\n"})
        facts = self.made(context, image, spec_of("a", dest="/a", chown="alma"))
        fill(image, {"etc/passwd": "root:x:0:0::/:/bin/sh\nalma:x:5:6:Alma:/home:/bin/sh\n"})
        assert facts_hold(facts, View([image]))
        fill(image, {"etc/passwd": "alma:x:5:7::/:/bin/sh\n"})

        assert not facts_hold(facts, View([image]))

    def test_link_depends_on_nothing(self, context: Path, image: Path) -> None:
        """A copy with --link has no facts but those of an empty image."""
        fill(context, {"a": "1"})
        spec = CopySpec(sources=(PathSource(b"a"),), dest=b"/deep/er/a", link=True)

        assert not self.made(context, image, spec)

    def test_scratch_is_not_an_image(self, context: Path) -> None:
        """A name that an empty image resolves to 0 is an error on scratch, so no layer goes from one to the other."""
        fill(context, {"a": "1"})
        spec = spec_of("a", dest="/a", chown="alma")
        facts = plan(spec, LocalContext(context), EmptyTree()).facts

        assert facts_hold(facts, EmptyTree())
        assert not facts_hold(facts, None)
        with pytest.raises(CopyError, match="invalid user index: -1") as caught:
            plan(spec, LocalContext(context), None)
        assert FLAGS == caught.value.word

    def test_layer_made_on_scratch(self, context: Path, image: Path) -> None:
        """On scratch every directory on the way is new; where an image has one already, the layer is another."""
        fill(context, {"a": "1"})
        spec = spec_of("a", dest="/app/a")
        facts = plan(spec, LocalContext(context), None).facts
        fill(image, {"etc/x": ""})
        assert facts_hold(facts, None)
        assert facts_hold(facts, View([image]))
        (image / "app").mkdir(mode=0o700)

        assert not facts_hold(facts, View([image]))

    def test_too_many_to_keep(self, context: Path, image: Path) -> None:
        """A copy over thousands of existing files is good for its image only."""
        names = {f"d/f{number}": "" for number in range(5002)}
        fill(context, names)
        fill(image, {"d/x": ""})

        assert plan(spec_of("d", dest="/d"), LocalContext(context), View([image])).facts is None
        assert not facts_hold(None, View([image]))


def test_all_missing_sources_are_named(context: Path) -> None:
    """Who mistyped two sources hears of both; the place is the first one's."""
    fill(context, {"there": ""})
    with pytest.raises(CopyError) as caught:
        select(spec_of("no", "there", "nor", dest="/d/"), LocalContext(context))

    assert ('"/no": not found' in caught.value.message, '"/nor": not found' in caught.value.message) == (True, True)
    assert caught.value.word == 0


class TestThereAlready:
    """What the image has already is no part of a copy's layer."""

    def both(self, context: Path, image: Path) -> None:
        """The same files on both sides, with the same times."""
        for root in (context, image):
            fill(root, {"d/a": "one", "d/sub/b": "two"})
            (root / "d" / "l").symlink_to("a")
            for path in ("d/a", "d/sub/b", "d/l"):
                os.utime(root / path, ns=(0, 1_600_000_000_000_000_000), follow_symlinks=False)

    def copied(self, context: Path, image: Path) -> list[str]:
        """Return the paths of the layer."""
        return [
            os.fsdecode(one.path)
            for one in plan(spec_of("d", dest="/d"), LocalContext(context), View([image])).entries()
        ]

    def test_nothing_new(self, context: Path, image: Path) -> None:
        """The same again is an empty layer, whatever the times of directories."""
        self.both(context, image)
        os.utime(image / "d", (5, 5))

        assert not self.copied(context, image)

    @pytest.mark.parametrize("change", ["data", "time", "mode", "target", "new", "directory"])
    def test_what_differs(self, context: Path, image: Path, change: str) -> None:
        """Data of the same size, times, modes, where links lead: what differs is there, with what is above it."""
        self.both(context, image)
        b = context / "d" / "sub" / "b"
        when = (0, 1_600_000_000_000_000_000)
        match change:
            case "data":
                b.write_text("TWO")
                os.utime(b, ns=when)
            case "time":
                os.utime(b, (5, 5))
            case "mode":
                b.chmod(0o600)
            case "target":
                (context / "d" / "l").unlink()
                (context / "d" / "l").symlink_to("b")
                os.utime(context / "d" / "l", ns=when, follow_symlinks=False)
            case "new":
                (context / "d" / "sub" / "new").touch()
            case _:
                (context / "d" / "sub").chmod(0o700)
        found = {"target": ["d", "d/l"], "new": ["d", "d/sub", "d/sub/new"], "directory": ["d", "d/sub"]}

        assert found.get(change, ["d", "d/sub", "d/sub/b"]) == self.copied(context, image)

    def test_layer_is_good_where_the_same_is_there(self, context: Path, image: Path, tmp_path: Path) -> None:
        """A layer without a file is not for an image without it, nor one with it for an image that has it."""
        self.both(context, image)
        lacking = fill(tmp_path / "lacking", {"d/other": ""})
        spec = spec_of("d", dest="/d")
        without = plan(spec, LocalContext(context), View([image])).facts
        made = plan(spec, LocalContext(context), View([lacking])).facts
        assert facts_hold(without, View([image]))
        assert facts_hold(made, View([lacking]))

        assert not facts_hold(without, View([lacking]))
        assert not facts_hold(made, View([image]))

    def test_links_to_what_is_there(self, context: Path, image: Path) -> None:
        """Of two names of one file, one of which the image has as it is, the other becomes a file of its own."""
        self.both(context, image)
        os.link(context / "d" / "a", context / "d" / "sub" / "a2")
        entries = list(plan(spec_of("d", dest="/d"), LocalContext(context), View([image])).entries())

        assert [(b"d/sub/a2", Kind.FILE)] == [(one.path, one.kind) for one in entries if one.kind is not Kind.DIR]

    def test_archive_again(self, context: Path, image: Path) -> None:
        """What is unpacked over itself is compared, and what is not the same can still be read."""
        (context / "t.tar").write_bytes(archive([member("a", data=b"one"), member("b", data=b"two")]))
        fill(image, {"o/a": "one", "o/b": "TWO"})
        for name in "ab":
            (image / "o" / name).chmod(0o640)
            os.utime(image / "o" / name, (0, 0))
        made = plan(spec_of("t.tar", dest="/o", unpack=True), LocalContext(context), View([image]))

        assert [(b"o", b""), (b"o/b", b"two")] == [
            (one.path, one.source.file.read() if isinstance(one.source, Stream) else b"") for one in made.entries()
        ]


def test_directory_for_workdir(image: Path) -> None:
    """WORKDIR makes what is missing, owned by the user, leaves what exists alone, and fails on a file."""
    fill(image, {"had/x": "", "etc/passwd": "alma:x:5:6::/:/bin/sh\n"})
    (image / "alias").symlink_to("/had")

    made = list(plan_mkdir(b"/alias/new/er", "alma", View([image]), created_ns=9).entries())
    there = plan_mkdir(b"/alias", "alma", View([image]))

    assert [("had", 0), ("had/new", 5), ("had/new/er", 5)] == [(os.fsdecode(one.path), one.uid) for one in made]
    assert [9, 9] == [one.mtime_ns for one in made[1:]]
    assert not list(there.entries())
    assert facts_hold(there.facts, View([image]))
    with pytest.raises(CopyError, match="lstat /etc/passwd/x: not a directory") as caught:
        plan_mkdir(b"/etc/passwd/x", "", View([image]))
    assert DEST == caught.value.word


def archive(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """Return the bytes of a tar."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in members:
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(
    name: str, kind: bytes = tarfile.REGTYPE, data: bytes = b"", target: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    """Return one member."""
    info = tarfile.TarInfo(name)
    info.type = kind
    info.mode = 0o755 if kind == tarfile.DIRTYPE else 0o640
    info.linkname = target
    return info, data


class TestArchives:
    """ADD of local archives."""

    def unpacked(self, context: Path, image: Path | None, data: bytes) -> list[Entry]:
        """Unpack `data` over /d of `image`."""
        (context / "a").write_bytes(data)
        spec = spec_of("a", dest="/d", unpack=True)
        return list(plan(spec, LocalContext(context), View([image]) if image is not None else None).entries())

    def test_zstd_and_large_data(self, context: Path, tmp_path: Path) -> None:
        """Compressed with zstd, more data than is kept in memory: the layer has every byte of it."""
        data = os.urandom(1 << 20) * 9
        (context / "a").write_bytes(
            zstandard.compress(archive([member("big", data=data), member("small", data=b"x"), member("empty")]))
        )
        made = plan(spec_of("a", dest="/d", unpack=True), LocalContext(context))
        with Store.open(tmp_path / "store") as store:
            layer = store.layers.write(made.entries())
            tree = store.layers.tree(layer.diff_id)

        assert data == (tree / "d" / "big").read_bytes()
        assert b"x" == (tree / "d" / "small").read_bytes()

    def test_last_member_of_a_name_counts(self, context: Path) -> None:
        """A file replaced by a directory within the archive, and one named twice."""
        entries = self.unpacked(
            context,
            None,
            archive(
                [
                    member("x", data=b"1"),
                    member("y/z"),
                    member("x", data=b"22"),
                    member("y", data=b"now a file"),
                ]
            ),
        )

        assert ["DIR d", "FILE d/x", "FILE d/y"] == listing(entries)
        assert [2, 10] == [entry.size for entry in entries[1:]]

    def test_directory_that_was_replaced_hides_what_was_below(self, context: Path, image: Path) -> None:
        """The image's directory is removed by a file and made again: nothing of the old one shows through."""
        fill(image, {"d/x/old": ""})
        entries = self.unpacked(
            context, image, archive([member("x", data=b"1"), member("x", tarfile.DIRTYPE), member("x/new")])
        )

        assert ["DIR d", "DIR d/x", "OPAQUE d/x", "FILE d/x/new"] == listing(entries)

    def test_hard_link_to_a_file_of_the_image(self, context: Path, image: Path) -> None:
        """A link whose target only the image has takes that file into the layer."""
        fill(image, {"d/there": "content"})
        entries = self.unpacked(context, image, archive([member("name", tarfile.LNKTYPE, target="there")]))

        assert ["DIR d", "FILE d/name", "HARDLINK d/there"] == listing(entries)
        assert os.fsencode(image / "d" / "there") == entries[1].source
        spec = spec_of("a", dest="/d", unpack=True)
        assert plan(spec, LocalContext(context), View([image])).facts is None  # it holds the image's data

    def test_parents_that_are_links(self, context: Path, image: Path) -> None:
        """Links among the parents lead below the destination, not elsewhere."""
        fill(image, {"d/real/x": ""})
        (image / "d" / "alias").symlink_to("/real")
        entries = self.unpacked(context, image, archive([member("alias/new")]))

        assert ["DIR d", "DIR d/real", "FILE d/real/new"] == listing(entries)

    @pytest.mark.parametrize(
        ("data", "fragment"),
        [
            (archive([member("x", data=b"y" * 2000)])[:1200], "unexpected EOF"),
            (archive([member("x"), member("y")])[:700], "unexpected EOF"),
            (archive([member("x"), member("../../y")]), 'invalid entry name "../../y": it leads out'),
            (archive([member("../y")]), "invalid entry name"),
            (archive([member("x", tarfile.LNKTYPE, target="../y")]), "invalid hardlink target"),
            (archive([member("x", tarfile.LNKTYPE, target="none")]), "no such file or directory"),
            (archive([member("x"), member("x/y")]), "not a directory"),
        ],
    )
    def test_bad_archives(self, context: Path, data: bytes, fragment: str) -> None:
        """Damage and paths that lead out are errors at the source's word."""
        with pytest.raises(CopyError, match=fragment) as caught:
            self.unpacked(context, None, data)

        assert (0, "cannot unpack a: ") == (caught.value.word, caught.value.message[:17])

    def test_source_that_went_away(self, context: Path) -> None:
        """A file that is gone when it is unpacked is an error, not a crash."""
        (context / "a").write_bytes(b"text")
        spec = spec_of("a", dest="/d", unpack=True)
        selection = select(spec, LocalContext(context))
        (context / "a").unlink()

        with pytest.raises(CopyError, match="cannot read a: No such file"):
            plan_copy(spec, selection, None)

    @pytest.mark.parametrize("data", [b"", b"text", bytes(10240), b"\x1f\x8b\x08 no gzip", b"BZh nor bzip2"])
    def test_what_is_no_archive(self, context: Path, data: bytes) -> None:
        """What has no readable first header is copied."""
        assert ["FILE d"] == listing(self.unpacked(context, None, data))

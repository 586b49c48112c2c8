"""ADD of git repositories against a real server: what lands in the image, what is fetched again, what is refused."""

from __future__ import annotations

import base64
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from builder.build import BuildOptions, Built, build
from builder.copy import plan_copy
from builder.errors import BuildError, Canceled, LocatedError
from builder.events import Completed, Planned
from builder.git import Git
from builder.ops import GitOp
from builder.plan import PlanOptions
from builder.repositories import Repositories
from layerstore import Store, StoreError
from tests.builder.casekit import PLATFORM, Recording, layer_tars, no_registry
from tests.gitserver import COMMITTED, Repository, Server, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server for the repositories that a test makes."""
    with serving(tmp_path / "repositories") as made:
        yield made


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An empty store."""
    with Store.open(tmp_path / "store") as opened:
        yield opened


@dataclass
class Result:
    """A build, with its events."""

    built: Built
    recording: Recording
    store: Store

    @property
    def cached(self) -> dict[str, bool]:
        """Whether each vertex was found, by its name."""
        names = {event.vertex: event.name for event in self.recording.events if isinstance(event, Planned)}
        return {
            names[event.vertex].partition("] ")[2]: event.cached
            for event in self.recording.events
            if isinstance(event, Completed) and names[event.vertex].startswith("[")
        }

    @property
    def members(self) -> dict[str, tarfile.TarInfo]:
        """What the last layer has, by name."""
        with self._tar() as tar:
            return {member.name: member for member in tar}

    @property
    def files(self) -> dict[str, str]:
        """The regular files of the last layer."""
        with self._tar() as tar:
            return {one.name: tar.extractfile(one).read().decode(errors="replace") for one in tar if one.isreg()}  # type: ignore[union-attr]

    def _tar(self) -> tarfile.TarFile:
        return tarfile.open(fileobj=io.BytesIO(layer_tars(self.store, self.built.image.layers)[-1]))


def run(store: Store, *lines: str, place: Path | None = None, **options: Any) -> Result:
    """Build FROM scratch with `lines`."""
    recording = Recording()
    plan = {"platform": PLATFORM, "build_platform": PLATFORM, "context": place, **options.pop("plan", {})}
    given = BuildOptions(
        plan=PlanOptions(**plan),
        dockerfile="\n".join(
            (*(() if lines[0].startswith(("FROM", "ARG")) else ("FROM scratch",)), *lines, "")
        ).encode(),
        state=store.root / "state",
        network="none",
        environ={"PATH": os.environ["PATH"]},
        **options,
    )
    return Result(build(store, given, progress=recording, clock=time.time, client=no_registry), recording, store)


def refused(store: Store, *lines: str, **options: Any) -> LocatedError:
    """Build, which must fail at a place of the Dockerfile."""
    with pytest.raises(LocatedError) as caught:
        run(store, *lines, **options)
    return caught.value


# -- what lands in the image ----------------------------------------------------------------------------------------


def test_a_tree_as_the_reference_makes_it(store: Store, server: Server) -> None:
    """Modes 0644 and 0755, links as links, root's, no .git; history shows the URL as written."""
    repository = server.repository("a.git")
    repository.write("program", "#!", mode=0o700)
    repository.write("dir/file", "text", mode=0o600)
    (repository.path / "link").symlink_to("dir/file")
    repository.commit()
    before = time.time()

    made = run(store, f"ADD {repository.url} /x/")

    found = {name: (member.type, member.mode, member.uid, member.gid) for name, member in made.members.items()}
    assert {
        "x": (tarfile.DIRTYPE, 0o755, 0, 0),
        "x/program": (tarfile.REGTYPE, 0o755, 0, 0),
        "x/link": (tarfile.SYMTYPE, 0o777, 0, 0),
        "x/dir": (tarfile.DIRTYPE, 0o755, 0, 0),
        "x/dir/file": (tarfile.REGTYPE, 0o644, 0, 0),
    } == found
    assert "dir/file" == made.members["x/link"].linkname
    assert before - 1 <= made.members["x/program"].mtime <= time.time()  # the time of the checkout
    assert f"ADD {repository.url} /x/ # buildkit".encode() in made.built.image.config


def test_owner_mode_and_exclusions(store: Store, server: Server) -> None:
    """--chown, --chmod and --exclude do to a repository what they do to a directory."""
    repository = server.repository("a.git", keep="1", skip="2", dir__skip="3")

    made = run(store, f"ADD --chown=7:8 --chmod=640 --exclude=**/skip {repository.url} /x/")

    assert {"x", "x/keep", "x/dir"} == set(made.members)
    keep = made.members["x/keep"]
    assert (7, 8, 0o640) == (keep.uid, keep.gid, keep.mode)


def test_several_sources_in_one_add(store: Store, server: Server, tmp_path: Path) -> None:
    """Repositories, files of the context and heredocs mix, each from where it is; later ones win."""
    one, two = server.repository("1.git", a="1", b="1"), server.repository("2.git", b="2")
    place = tmp_path / "context"
    place.mkdir()
    (place / "c").write_text("3")

    made = run(store, f"ADD {one.url} c {two.url} <<d /x/", "4", "d", place=place)

    assert {"x/a": "1", "x/b": "2", "x/c": "3", "x/d": "4\n"} == made.files
    again = run(store, f"ADD {one.url} c {two.url} <<d /x/", "4", "d", place=place)
    assert {True} == {cached for name, cached in again.cached.items() if name != "load build context"}
    (place / "c").write_text("changed")
    assert "changed" == run(store, f"ADD {one.url} c {two.url} <<d /x/", "4", "d", place=place).files["x/c"]


def test_files_that_change_beside_a_repository(
    store: Store, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is copied is what the key says, also where a repository is among the sources."""
    repository = server.repository("a.git", a="1")
    (tmp_path / "c").write_text("one")
    run(store, f"ADD {repository.url} c /x/", place=tmp_path)
    (tmp_path / "c").write_text("two")

    def late(*given: Any, **named: Any) -> Any:
        (tmp_path / "c").write_text("six")
        return plan_copy(*given, **named)

    monkeypatch.setattr("builder.copy.plan_copy", late)
    with pytest.raises((LocatedError, StoreError), match="changed"):
        run(store, f"ADD {repository.url} c /x/", place=tmp_path)


def test_refs(store: Store, server: Server) -> None:
    """Branches, tags of both kinds, commits and the default branch; a branch wins over a tag of its name."""
    repository = server.repository("a.git", f="first")
    first = repository.head
    repository.git("tag", "light")
    repository.git("tag", "-a", "-m", "words", "annotated")
    repository.git("tag", "both")
    repository.git("checkout", "--quiet", "-b", "both")
    repository.commit(f="branch")
    repository.git("checkout", "--quiet", "main")
    repository.commit(f="last")

    for ref, text in {
        "": "last", "#main": "last", "#light": "first", "#annotated": "first", "#refs/tags/annotated": "first",
        "#heads/main": "last", f"#{first}": "first", "#both": "branch", "?tag=both": "first", "?branch=both": "branch",
        f"?checksum={first}": "first", f"?ref=main&checksum={first}&fetch-by-commit=1": "first",
    }.items():  # fmt: skip
        assert {"x/f": text} == run(store, f"ADD {repository.url}{ref} /x/").files, ref


def test_subdirectories(store: Store, server: Server) -> None:
    """Only what is in it; `/` and `.` are the whole. One that is not there, or no directory, is an error."""
    repository = server.repository("a.git", a="1", dir__sub__b="2")

    assert {"b": "2"} == run(store, f"ADD {repository.url}#main:dir/sub /").files
    assert {"sub/b": "2"} == run(store, f"ADD {repository.url}?subdir=/dir/ /").files
    assert {"a", "dir/sub/b"} == set(run(store, f"ADD {repository.url}#:. /").files)
    error = refused(store, f"ADD {repository.url}#:nope /")
    assert "failed to open subdir nope: no such directory" == error.message
    assert (2, 5) == error.diagnostics[0].span.start  # type: ignore[union-attr]
    assert "failed to open subdir a: not a directory" == refused(store, f"ADD {repository.url}#:a /").message


def test_time_of_the_commit(store: Store, server: Server) -> None:
    """With mtime=commit everything has the commit's time, so that the layer is the same wherever it is made."""
    repository = server.repository("a.git", a="1", d__b="2")

    made = run(store, f"ADD {repository.url}?mtime=commit /x/")

    assert {COMMITTED} == {int(made.members[name].mtime) for name in ("x/a", "x/d", "x/d/b")}


@pytest.mark.parametrize(("line", "ref"), [("{}#v1", "refs/tags/v1"), ("{}?branch=main", "refs/heads/main")])
def test_kept_git_directory(store: Store, server: Server, tmp_path: Path, line: str, ref: str) -> None:
    """--keep-git-dir leaves a working repository: one commit deep, its ref, the remote's URL without a password."""
    repository = server.repository("a.git", a="0")
    head = repository.commit(a="1")
    repository.git("tag", "-a", "-m", "words", "v1")
    url = repository.url.replace("http://", "http://me:word@")

    made = run(store, "ADD --keep-git-dir=true " + line.format(url) + " /x/")
    with made._tar() as tar:
        tar.extractall(tmp_path / "out", filter="fully_trusted")

    kept = Repository(tmp_path / "out" / "x", "")
    safe = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}
    assert head == kept.git("rev-parse", "HEAD", env=safe)
    assert head == kept.git("rev-parse", ref + "^{commit}", env=safe)
    assert "1" == kept.git("rev-list", "--count", "HEAD", env=safe)
    assert "" == kept.git("status", "--porcelain", env=safe)
    assert repository.url == kept.git("config", "remote.origin.url", env=safe)
    assert not (kept.path / ".git/hooks").exists()
    assert "word@" not in str(made.files)
    assert {"a"} == set(run(store, f"ADD {repository.url} /").members)


def test_keep_git_dir_said_twice(store: Store, server: Server) -> None:
    """The flag makes any URL a repository; flag and query may not disagree."""
    repository = server.repository("plain", a="1")

    assert {"x/a"} == set(run(store, f"ADD --keep-git-dir=false {repository.url} /x/").files)
    error = refused(store, f"ADD --keep-git-dir=false {repository.url}?keep-git-dir=true /x/")
    assert "inconsistent keep-git-dir configuration" in error.message


def test_paths_that_look_like_repositories(store: Store, tmp_path: Path) -> None:
    """`github.com/x/y` is a path of the context."""
    (tmp_path / "github.com/x").mkdir(parents=True)
    (tmp_path / "github.com/x/y").write_text("local")

    assert {"z": "local"} == run(store, "ADD github.com/x/y /z", place=tmp_path).files


# -- submodules -----------------------------------------------------------------------------------------------------


def with_submodules(server: Server) -> Repository:
    """A repository with a submodule that has one itself."""
    inner = server.repository("inner.git", i="inner")
    middle = server.repository("middle.git", m="middle")
    middle.git("submodule", "--quiet", "add", inner.url, "in")
    middle.commit()
    outer = server.repository("outer.git", o="outer")
    outer.git("remote", "add", "origin", outer.url)
    outer.git("submodule", "--quiet", "add", "../middle.git", "mid")
    outer.commit()
    return outer


def test_submodules(store: Store, server: Server) -> None:
    """They come with their own, relative URLs included, and without their .git; or not at all."""
    outer = with_submodules(server)

    assert {"o": "outer", "mid/m": "middle", "mid/in/i": "inner"} == {
        name: text for name, text in run(store, f"ADD {outer.url} /").files.items() if ".gitmodules" not in name
    }
    made = run(store, f"ADD {outer.url}?submodules=false /")
    assert {"o", ".gitmodules", "mid"} == set(made.members)
    assert b"inner" not in b"".join(layer_tars(store, made.built.image.layers))


def test_submodules_of_an_old_server(store: Store, server: Server) -> None:
    """A server that gives only what its refs point at has to send whole histories."""
    outer = with_submodules(server)
    middle = Repository(server.root / "middle.git", "")
    middle.commit(m="later")
    server.protocol = False

    assert "middle" == run(store, f"ADD {outer.url} /").files["mid/m"]


def test_a_submodule_that_is_gone(store: Store, server: Server) -> None:
    """The error names the repository and what git said, and points at the source."""
    outer = with_submodules(server)
    (server.root / "inner.git").rename(server.root / "elsewhere")

    error = refused(store, f"ADD {outer.url} /")
    assert error.message.startswith(f"failed to update submodules for {outer.url}: ")
    assert "not found" in error.message


# -- what is fetched again ------------------------------------------------------------------------------------------


def test_unmoved_branch_is_not_fetched(store: Store, server: Server) -> None:
    """The second build asks where the branch is, and no more."""
    repository = server.repository("a.git", a="1")
    line = f"ADD {repository.url}#main /x/"

    first = run(store, line)
    assert ["/a.git"] == server.fetches
    second = run(store, line)

    assert ["/a.git"] == server.fetches
    assert {True} == set(second.cached.values())
    assert first.built.image.id == second.built.image.id


def test_moved_branch_is_a_miss(store: Store, server: Server) -> None:
    """A new commit is fetched, and only the difference; where it changes nothing that is copied, that is found."""
    repository = server.repository("a.git", big=os.urandom(1 << 19).hex(), d__a="1")
    run(store, f"ADD {repository.url}#main:d /x/")
    repository.commit(d__a="2")

    moved = run(store, f"ADD {repository.url}#main:d /x/")

    assert {False} == set(moved.cached.values())
    assert {"x/a": "2"} == moved.files
    assert ["/a.git", "/a.git"] == server.fetches
    objects = [record.layers for record in store.cache.recent() if record.result and "tips" in record.result]
    sizes = [store.layers.find(layer).size or 0 for layer in objects[0]]  # type: ignore[union-attr]
    assert 2 == len(sizes)
    assert sizes[1] < 1 << 15 < 1 << 19 < sizes[0]

    repository.commit(elsewhere="3")
    same = run(store, f"ADD {repository.url}#main:d /x/")
    assert {f"load git source {repository.url}#main:d": False, f"ADD {repository.url}#main:d /x/": True} == same.cached
    assert moved.built.image.layers == same.built.image.layers


def test_a_commit_needs_no_server(store: Store, server: Server, tmp_path: Path) -> None:
    """What is named by its commit is not asked for again; a branch is, and that fails without a server."""
    repository = server.repository("a.git", a="1")
    url = repository.url.replace(server.host, "127.0.0.1:1")
    run(store, f"ADD {repository.url}#{repository.head} /x/")
    asked = len(server.asked)

    assert {True} == set(run(store, f"ADD {url}#{repository.head} /x/").cached.values())
    assert asked == len(server.asked)
    error = refused(store, f"ADD {url}#main /x/")
    assert error.message.startswith(f"failed to fetch remote {url}: ")
    assert "check the URL, the network and the proxy" == error.hint


def test_annotated_tag_and_its_commit_are_one(store: Store, server: Server) -> None:
    """The tag is resolved to the commit, which is here already."""
    repository = server.repository("a.git", a="1")
    repository.git("tag", "-a", "-m", "words", "v1")

    run(store, f"ADD {repository.url}#v1 /x/")
    assert {True} == set(run(store, f"ADD {repository.url}#{repository.head} /x/").cached.values())
    run(store, f"ADD {repository.url}#main /x/")
    assert ["/a.git"] == server.fetches


def test_what_was_fetched_goes_with_gc(store: Store, server: Server) -> None:
    """Nothing of a repository outlives its records; the next build fetches it anew, and the store is sound."""
    repository = server.repository("a.git", a="1")
    run(store, f"ADD {repository.url} /x/", keep=False)

    store.sweep(store.gc(keep_used_since=time.time_ns()))
    assert [] == os.listdir(store.root / "trees")
    assert [] == store.check()
    assert {"x/a": "1"} == run(store, f"ADD {repository.url} /x/").files
    assert ["/a.git", "/a.git"] == server.fetches


def test_many_fetches_become_one_layer(store: Store, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is kept of a remote does not grow without end."""
    monkeypatch.setattr("builder.repositories._MOST_FETCHES", 3)
    repository = server.repository("a.git")
    for count in range(4):
        repository.commit(a=str(count))
        assert {"a": str(count)} == run(store, f"ADD {repository.url} /").files

    objects = [record.layers for record in store.cache.recent() if record.result and "tips" in record.result]
    assert [2] == [len(layers) for layers in objects]
    assert [] == store.check()


def test_a_dumb_server(store: Store, server: Server) -> None:
    """A server that only has files gives neither one commit alone nor a choice; the whole history does."""
    repository = server.repository("work", a="1")
    first = repository.head
    repository.commit(a="2")
    bare = server.root / "a.git"
    subprocess.run(
        ["git", "clone", "--quiet", "--bare", repository.path, bare], check=True, env={"PATH": os.environ["PATH"]}
    )
    Repository(bare, "").git("update-server-info")
    server.dumb = True

    assert {"a": "2"} == run(store, f"ADD {server.url('a.git')}#main /").files
    assert {"a": "1"} == run(store, f"ADD {server.url('a.git')}#{first} /").files


def test_a_commit_of_an_old_server(store: Store, server: Server) -> None:
    """Where a commit is not given alone, all branches and tags are fetched and it is looked for there."""
    repository = server.repository("a.git", a="1")
    first = repository.head
    repository.commit(a="2")
    server.protocol = False

    assert {"a": "2"} == run(store, f"ADD {repository.url} /").files
    assert {"a": "1"} == run(store, f"ADD {repository.url}#{first} /").files
    error = refused(store, f"ADD {repository.url}#{'1' * 40} /")
    assert f"repository does not contain commit {'1' * 40}: {repository.url}" == error.message


# -- what is refused ------------------------------------------------------------------------------------------------


def test_checksums(store: Store, server: Server) -> None:
    """A commit, or the beginning of one, that the source must be; flag and query may say it, but one thing."""
    repository = server.repository("a.git", a="1")
    head = repository.head
    repository.git("tag", "-a", "-m", "words", "v1")
    tag = repository.git("rev-parse", "v1")

    for checksum in (head, head[:7], tag[:10]):
        assert {"a"} == set(run(store, f"ADD --checksum={checksum} {repository.url}#v1 /").members)
    assert {"a"} == set(run(store, f"ADD {repository.url}?ref=main&checksum={head[:12]} /").members)
    error = refused(store, f"ADD --checksum={'0' * 7} {repository.url}#main /")
    assert f"expected checksum to match 0000000, got {head}" == error.message
    error = refused(store, f"ADD --checksum=nope {repository.url}#main /")
    assert "invalid checksum nope for Git URL, expected hex commit hash" == error.message
    error = refused(store, f"ADD --checksum=1 {repository.url}?ref=main&checksum=2 /")
    assert 'checksum mismatch "1" != "2"' == error.message
    error = refused(store, f"ADD --checksum={head} {repository.url} {repository.url} /")
    assert "checksum can't be specified for multiple sources" == error.message


def test_a_checksum_holds_for_what_is_cached(store: Store, server: Server) -> None:
    """What was fetched without a checksum is not taken for what must have another."""
    repository = server.repository("a.git", a="1")
    run(store, f"ADD {repository.url}#{repository.head} /x/")

    error = refused(store, f"ADD --checksum=00 {repository.url}#{repository.head} /x/")
    assert f"expected checksum to match 00, got {repository.head}" == error.message


def test_a_ref_that_is_not_there(store: Store, server: Server) -> None:
    """The message has the ref and the repository, at the source's place."""
    repository = server.repository("a.git", a="1")

    error = refused(store, f"ADD http://me:word@{server.host}/a.git#nope /")
    assert f"repository does not contain ref nope: http://me@{server.host}/a.git" == error.message
    assert (2, 5) == error.diagnostics[0].span.start  # type: ignore[union-attr]
    assert (
        "repository does not contain ref --upload-pack=x"
        in refused(store, f"ADD {repository.url}#--upload-pack=x /").message
    )


def test_copy_takes_no_repository(store: Store) -> None:
    """COPY of a repository and of a URL are told apart."""
    assert "source can't be a git ref for COPY" == refused(store, "COPY https://h/a.git#main /").message
    assert "source can't be a URL for COPY" == refused(store, "COPY https://h/a /").message
    assert "source can't be a git ref for COPY" == refused(store, "COPY git@h:a /").message
    assert (
        "source can't be a URL for COPY"
        == refused(store, "ARG A=https://h/a", "FROM scratch", "ARG A", "COPY $A /").message
    )


def test_without_git(store: Store, tmp_path: Path) -> None:
    """A machine without git is told what to install, and where the Dockerfile needs it."""
    with pytest.raises(LocatedError) as caught:
        build(
            store,
            BuildOptions(
                plan=PlanOptions(platform=PLATFORM, build_platform=PLATFORM),
                dockerfile=b"FROM scratch\nADD https://h.invalid/a.git /\n",
                state=tmp_path,
                environ={"PATH": str(tmp_path)},
            ),
            progress=Recording(),
            clock=time.time,
            client=no_registry,
        )
    assert "git is not installed" == caught.value.message
    assert "apt-get install git" in caught.value.hint
    assert 2 == caught.value.diagnostics[0].span.start.line  # type: ignore[union-attr]


@pytest.mark.parametrize("name", [".git", ".GIT", ".Git", "git~1", ".g\u200cit"])
def test_names_that_mean_git(store: Store, server: Server, name: str) -> None:
    """A tree that would write into a repository's own directory, on whatever system, is not checked out."""
    repository = server.repository("a.git", a="1")
    hook = repository.blob("#!/bin/sh\ntouch /tmp/was-here\n")
    inner = repository.git("rev-parse", "HEAD^{tree}")
    repository.hostile(f"100644 blob {hook}\tx\0" + f"040000 tree {inner}\t{name}\0")

    error = refused(store, f"ADD {repository.url}#hostile /")
    assert error.message.startswith(f"failed to checkout remote {repository.url}: ")


def test_links_that_lead_out(store: Store, server: Server, tmp_path: Path) -> None:
    """They are copied as links and never followed: not for a subdirectory, and not for a file behind one."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    repository = server.repository("a.git", a="1")
    (repository.path / "out").symlink_to(tmp_path / "outside")
    (repository.path / "up").symlink_to("../../../../../../../../../../../etc")
    repository.commit()

    made = run(store, f"ADD {repository.url} /")
    assert {"a": "1"} == made.files
    assert str(tmp_path / "outside") == made.members["out"].linkname
    for subdir in ("out", "up"):
        assert (
            f"failed to open subdir {subdir}: no such directory"
            == refused(store, f"ADD {repository.url}#main:{subdir} /").message
        )


@pytest.mark.parametrize(
    ("name", "path", "url"),
    [
        ("../../../escape", "sub", "{inner}"),
        ("sub", "../../sub", "{inner}"),
        ("sub", "sub", "-u./payload"),
        ("sub", "sub", "ext::sh -c touch% /tmp/was-here"),
        ("sub", "sub", "file://{outside}"),
        ("sub", "sub", "{outside}"),
    ],
)
def test_hostile_submodules(store: Store, server: Server, tmp_path: Path, name: str, path: str, url: str) -> None:
    """Names and paths that lead out, options for URLs, programs and files of this machine: nothing of it is done."""
    inner = server.repository("inner.git", i="inner")
    outside = Repository(tmp_path / "outside", "")
    outside.path.mkdir()
    outside.git("init", "--quiet")
    outside.commit(secret="secret")
    repository = server.repository("a.git", a="1")
    target = url.format(inner=inner.url, outside=outside.path)
    repository.write(".gitmodules", f'[submodule "{name}"]\n\tpath = {path}\n\turl = {target}\n')
    repository.git("add", "--all")
    commit = outside.head if "outside" in url else inner.head
    repository.git("update-index", "--add", "--cacheinfo", f"160000,{commit},sub")
    repository.git("commit", "--quiet", "-m", "hostile")

    error = refused(store, f"ADD {repository.url} /")

    assert error.message.startswith(f"failed to update submodules for {repository.url}: ")
    assert not Path("/tmp/was-here").exists()
    assert not list(store.root.rglob("escape"))
    assert [] == os.listdir(store.root / "work")


def test_nothing_of_a_repository_runs(store: Store, server: Server, tmp_path: Path) -> None:
    """Hooks, filters and attributes of the tree have no effect, and neither has the user's own configuration."""
    mark = tmp_path / "mark"
    repository = server.repository("a.git", a="1\n")
    repository.write(".gitattributes", "* filter=run\n")
    repository.write(".gitconfig", f'[filter "run"]\n\tsmudge = touch {mark}; cat\n')
    repository.write("hooks/post-checkout", f"#!/bin/sh\ntouch {mark}\n", mode=0o755)
    repository.commit()
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        f'[filter "run"]\n\tsmudge = touch {mark}; cat\n[core]\n\thooksPath = hooks\n[url "http://nowhere.invalid/"]\n'
        f"\tinsteadOf = http://{server.host}/\n"
    )
    git = Git(environ={"PATH": os.environ["PATH"], "HOME": str(home)}, secrets={}, agents={})

    checkout = Repositories(store, git, time.time).fetch(GitOp(remote=repository.url))

    assert "1\n" == (store.layers.tree(checkout.layer) / "a").read_text()
    assert not mark.exists()


# -- credentials ----------------------------------------------------------------------------------------------------


def basic(user: str, password: str) -> str:
    return "basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("secrets", "user", "wanted"),
    [
        ({"GIT_AUTH_TOKEN": b"word\n"}, "", basic("x-access-token", "word")),
        ({"GIT_AUTH_HEADER": b"Bearer word"}, "", "Bearer word"),
        ({"GIT_AUTH_TOKEN.{host}": b"word", "GIT_AUTH_TOKEN": b"other"}, "", basic("x-access-token", "word")),
        ({"GIT_AUTH_HEADER_{host}": b"Bearer word", "GIT_AUTH_TOKEN": b"other"}, "", "Bearer word"),
        ({}, "me:wo%20rd@", basic("me", "wo rd")),
    ],
)
def test_credentials(store: Store, server: Server, secrets: dict[str, bytes], user: str, wanted: str) -> None:
    """Tokens and headers from secrets, for one host or for all, or from the URL; they stay out of the store."""
    repository = server.repository("a.git", a="1")
    server.token = wanted
    given = {name.format(host=server.host): value for name, value in secrets.items()}

    made = run(store, f"ADD http://{user}{server.host}/a.git /", secrets=given)

    assert {"a": "1"} == made.files
    assert {wanted} == set(server.headers)
    if not user:
        everything = b"".join(file.read_bytes() for file in store.root.rglob("*") if file.is_file())
        assert b"word" not in everything.replace(b"password", b"")
    error = refused(store, f"ADD {repository.url}#other /", secrets={})
    assert "GIT_AUTH_TOKEN" in error.hint


def test_credentials_stay_at_their_host(store: Store, server: Server) -> None:
    """A submodule elsewhere is asked for without them."""
    inner = server.repository("inner.git", i="inner")
    outer = server.repository("outer.git", o="outer")
    outer.git("submodule", "--quiet", "add", inner.url, "sub")
    outer.commit()
    server.asked.clear()
    server.headers.clear()

    run(store, f"ADD {outer.url} /", secrets={"GIT_AUTH_TOKEN": b"word"})

    seen = dict(zip((path.split("/")[1] for path in server.asked), server.headers, strict=True))
    assert {"outer.git": basic("x-access-token", "word"), "inner.git": None} == seen


def test_ssh_needs_an_agent(store: Store) -> None:
    """A repository behind ssh says what to pass; nothing of the user's own keys is tried."""
    error = refused(store, "ADD git@127.0.0.1:a.git /")
    assert 'no SSH key "default" forwarded from the client' == error.message
    assert "pass --ssh default" in error.hint


def test_how_ssh_is_called(store: Store, tmp_path: Path) -> None:
    """With the agent's socket, no configuration, known hosts that are known, and none of the user's keys."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "ssh").write_text(f'#!/bin/sh\nprintf "%s\\n" "$SSH_AUTH_SOCK" "$@" >{tmp_path}/said\nexit 1\n')
    (programs / "ssh").chmod(0o755)
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(str(tmp_path / "agent"))
        git = Git(
            environ={"PATH": f"{programs}:{os.environ['PATH']}", "HOME": "/home/me"},
            secrets={},
            agents={"default": tmp_path / "agent"},
        )
        with pytest.raises(BuildError, match=r"failed to fetch remote git@example\.invalid:x/a\.git"):
            Repositories(store, git, time.time).fetch(GitOp(remote="git@example.invalid:x/a.git"))

    said = (tmp_path / "said").read_text().split("\n")
    assert str(tmp_path / "agent") == said[0]
    assert ["-F", "/dev/null"] == said[1:3]
    assert {"BatchMode=yes", "IdentityFile=none", "StrictHostKeyChecking=accept-new"} <= set(said)
    assert "GlobalKnownHostsFile=/etc/ssh/ssh_known_hosts /home/me/.ssh/known_hosts" in said
    assert ["git@example.invalid", "git-upload-pack 'x/a.git'"] == said[-3:-1]


# -- interruptions and other processes ------------------------------------------------------------------------------


def test_cancel_ends_a_fetch(store: Store) -> None:
    """A server that takes the connection and says nothing is not waited for."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        repositories = Repositories(store, Git(environ={"PATH": os.environ["PATH"]}, secrets={}, agents={}), time.time)
        timer = threading.Timer(0.3, repositories.cancel)
        timer.start()
        began = time.monotonic()
        with pytest.raises(Canceled):
            repositories.fetch(GitOp(remote=f"git://127.0.0.1:{silent.getsockname()[1]}/a"))
        timer.join()
    assert time.monotonic() - began < 5
    assert [] == os.listdir(store.root / "work")


def test_two_builds_fetch_once(store: Store, server: Server) -> None:
    """Whoever comes second waits, and then finds."""
    repository = server.repository("a.git", a="1")
    found: list[bool] = []

    def fetch() -> None:
        git = Git(environ={"PATH": os.environ["PATH"]}, secrets={}, agents={})
        found.append(Repositories(store, git, time.time).fetch(GitOp(remote=repository.url)).found)

    threads = [threading.Thread(target=fetch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [False, True, True] == sorted(found)
    assert ["/a.git"] == server.fetches


# -- SOURCE_DATE_EPOCH ----------------------------------------------------------------------------------------------


def created(made: Result) -> str:
    """The time that the image says."""
    document: Mapping[str, Any] = json.loads(made.built.image.config)
    return str(document["created"])


def test_epoch_of_a_stage(store: Store, server: Server) -> None:
    """A stage that is one remote ADD gives its commit's time, to ARG as well; an argument may say it, or an ARG."""
    repository = server.repository("a.git", a="1")
    lines = ("FROM scratch AS src", f"ADD {repository.url} /", "FROM scratch", "ARG SOURCE_DATE_EPOCH",
             "COPY <<f /", "$SOURCE_DATE_EPOCH", "f")  # fmt: skip

    made = run(store, *lines, plan={"build_args": {"SOURCE_DATE_EPOCH": "src"}})
    assert ("2017-07-14T02:40:00Z", {"f": f"{COMMITTED}\n"}) == (created(made), made.files)
    made = run(store, "ARG SOURCE_DATE_EPOCH=src", *lines)
    assert ("2017-07-14T02:40:00Z", {"f": f"{COMMITTED}\n"}) == (created(made), made.files)
    assert COMMITTED * 1_000_000_000 == made.built.epoch


def test_epoch_of_what_has_none(store: Store, tmp_path: Path) -> None:
    """A local context has no time, an empty value resets, and a number in the Dockerfile counts."""
    for value in ("context", ""):
        made = run(store, "COPY <<f /", "x", "f", place=tmp_path, plan={"build_args": {"SOURCE_DATE_EPOCH": value}})
        assert made.built.epoch is None
    made = run(store, "ARG SOURCE_DATE_EPOCH=86400", "FROM scratch", "COPY <<f /", "x", "f")
    assert "1970-01-02T00:00:00Z" == created(made)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (("FROM busybox AS src", "ADD https://h/f /"), "must use FROM scratch"),
        (("FROM scratch AS src",), "must contain exactly one remote ADD"),
        (("FROM scratch AS src", "ADD https://h/f https://h/g /"), "must contain exactly one remote ADD source"),
        (("FROM scratch AS src", "ADD https://h/f /", "LABEL a=b"), "unsupported LABEL instruction"),
        (("FROM scratch AS src", "ADD local /"), "must be a single HTTP(S) or Git ADD"),
    ],
)
def test_stages_that_are_no_source(store: Store, tmp_path: Path, stage: tuple[str, ...], message: str) -> None:
    """What such a stage must not have, at its place."""
    error = refused(store, *stage, "FROM scratch", place=tmp_path, plan={"build_args": {"SOURCE_DATE_EPOCH": "SRC"}})
    assert message in error.message

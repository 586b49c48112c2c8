"""Git repositories as sources: what a reference points at, fetched as little as possible, checked out once per commit.

Everything kept is layers with a cache record, so gc takes it as it takes any step: a checkout under its commit and
options, and the objects of a remote as a chain of layers, each of which holds what one fetch brought. BuildKit's
source/git says what a checkout holds; no ref, file or hook of a repository is ever executed.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builder.cachekey import key_of
from builder.context import LocalContext
from builder.errors import BuildError, Canceled
from builder.git import GitFailed, address
from builder.gitreference import COMMIT, shown_remote
from builder.turns import turn
from layerstore import CacheKey, CacheRecord, DiffId, Forms, Store
from layerstore.entry import Kind

if TYPE_CHECKING:
    from builder.git import Git
    from builder.ops import GitOp
    from layerstore import Entry

_FORMAT = "1"
_MOST_FETCHES = 8  # as many layers of objects are looked through before they become one
_WITHOUT_DEPTH = ("shallow", "--depth")
_NOT_OFFERED = (
    "not our ref",
    "unadvertised object",
    "couldn't find remote ref",
    "Unable to find",
    "no such remote ref",
)


class Checkout(NamedTuple):
    """The files of a commit: their layer, when that was made, and when it was committed (both in nanoseconds).

    `found` says that they were here.
    """

    layer: DiffId
    made_ns: int
    committed_ns: int
    found: bool


class _Target(NamedTuple):
    """What a reference points at: an object, the commit it is or (an annotated tag) names, and the ref's full name.

    `commit` is empty where only the object can tell.
    """

    object: str
    commit: str
    ref: str


class _Objects(NamedTuple):
    """What is kept of a remote: layers that are object directories, commits they are good for, where history is cut."""

    layers: tuple[DiffId, ...] = ()
    tips: tuple[str, ...] = ()
    shallow: tuple[str, ...] = ()


class Repositories:
    """Fetches and checks out for one build, which sees one commit of each ref; safe to use from several threads."""

    def __init__(self, store: Store, git: Git, clock: Callable[[], float]) -> None:
        """`clock` gives seconds since the epoch."""
        self._store = store
        self._git = git
        self._clock = clock
        self._targets: dict[tuple[str, str], _Target] = {}
        self._asking: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, op: GitOp) -> Checkout | None:
        """Return the checkout of a commit that is named in full, if it is here: nothing is asked of the remote."""
        return self._find(op, _Target(pinned, "", "")) if (pinned := _pinned(op)) else None

    def fetch(self, op: GitOp) -> Checkout:
        """Return the files that `op` means, fetched unless they are here; BuildError, Canceled."""
        if op.checksum and not _is_hex(op.checksum):
            raise BuildError(
                f"invalid checksum {op.checksum} for Git URL, expected hex commit hash",
                hint="give the commit that `git rev-parse` prints",
            )
        target = self._target(op)
        if (known := self._find(op, target)) is not None:
            return known
        with turn(self._store, f"git-{_key('objects', op.remote).hex}", lambda: self._git.canceled):
            known = self._find(op, target)
            return known or self._made(op, target)

    def cancel(self) -> None:
        """Let every `fetch` end soon, with Canceled."""
        self._git.cancel()

    # -- what is meant --------------------------------------------------------------------------------------------

    def _target(self, op: GitOp) -> _Target:
        """Return what the reference points at now; the remote is asked once per ref and build."""
        pinned = _pinned(op)
        if pinned:
            target = _Target(pinned, "", "")
        else:
            key = (op.remote, op.ref)
            with self._lock:
                asking = self._asking.setdefault(key, threading.Lock())
            with asking:
                target = self._targets.get(key) or self._ask(op)
                self._targets[key] = target
        _verify(op, target)
        return target

    def _ask(self, op: GitOp) -> _Target:
        """Look `ref` up at the remote, a branch before a tag; the default branch if it is empty."""
        patterns = [op.ref, op.ref + "^{}"] if op.ref else ["HEAD"]
        try:
            listed = self._git.run("ls-remote", "--symref", "--", address(op.remote), *patterns, remote=op.remote)
        except GitFailed as error:
            raise _unreachable(op, error) from error
        refs: dict[str, str] = {}
        branch = ""
        for line in listed.decode("utf-8", "surrogateescape").splitlines():
            value, _, name = line.partition("\t")
            if value.startswith("ref: "):
                branch = value.removeprefix("ref: ") if name == "HEAD" else branch
            else:
                refs[name] = value
        if not op.ref:
            if not branch.startswith("refs/heads/") or "HEAD" not in refs:
                message = f"could not find default branch for repository: {shown_remote(op.remote)}"
                raise BuildError(message, hint="name a branch: URL#BRANCH")
            return _Target(refs["HEAD"], refs["HEAD"], branch)
        tag = "refs/tags/" + op.ref.removeprefix("refs/tags/")
        for name in ("refs/" + op.ref.removeprefix("refs/"), "refs/heads/" + op.ref.removeprefix("refs/heads/"), tag):
            if name in refs:
                peeled = refs.get(tag + "^{}") if name == tag else None
                return _Target(refs[name], peeled or refs[name], name)
        raise BuildError(
            f"repository does not contain ref {op.ref}: {shown_remote(op.remote)}",
            hint="give a branch, a tag or a commit in full; `git ls-remote` lists what there is",
        )

    # -- what is here ---------------------------------------------------------------------------------------------

    def _key(self, op: GitOp, target: _Target) -> CacheKey:
        """The key of a checkout. Where it came from counts only for a `.git`, which says so."""
        git_dir = f"{address(op.remote)}#{target.ref}" if _keeps(op) else ""
        content = target.object if git_dir or not target.commit else target.commit
        return _key("checkout", content, op.subdir, f"submodules={op.submodules}", f"mtime={op.mtime}", git_dir)

    def _find(self, op: GitOp, target: _Target) -> Checkout | None:
        for record in self._store.cache.find(self._key(op, target)):
            _verify(op, target._replace(commit=record.result["commit"]))
            return Checkout(record.layers[0], record.created, record.result["committed"] * 1_000_000_000, found=True)
        return None

    def _kept(self, remote: str) -> _Objects:
        for record in self._store.cache.find(_key("objects", remote)):
            return _Objects(record.layers, tuple(record.result["tips"]), tuple(record.result["shallow"]))
        return _Objects()

    # -- making ---------------------------------------------------------------------------------------------------

    def _made(self, op: GitOp, target: _Target) -> Checkout:
        """Fetch what is missing, check it out, and keep both."""
        upper = self._store.layers.prepare()
        try:
            repository = upper.path / "repository"
            kept = self._opened(op, repository, target)
            if not self._has(repository, target.object):
                self._fetched(op, repository, target.object, upper.path)
                self._keep(op, repository, kept, target.object)
            commit = self._word(repository, "rev-parse", target.object + "^{commit}")
            committed = int(self._word(repository, "show", "-s", "--format=%ct", commit))
            _verify(op, target._replace(commit=commit))
            tree = self._checked_out(op, repository, target, commit, upper.path)
            made = int(self._clock() * 1e9)
            entries = self._entries(op, tree, committed * 1_000_000_000)
            layer = self._store.layers.write(entries, forms=Forms.TREE)
        finally:
            self._store.layers.discard(upper)
        result = {"commit": commit, "committed": committed}
        for key in {self._key(op, target), self._key(op, target._replace(commit=commit))}:
            self._store.cache.put(CacheRecord(key=key, layers=(layer.diff_id,), result=result, created=made))
        return Checkout(layer.diff_id, made, committed * 1_000_000_000, found=False)

    def _opened(self, op: GitOp, repository: Path, target: _Target) -> _Objects:
        """Make a bare repository that has what is kept of the remote; return that."""
        form = "sha256" if len(target.object) == 64 else "sha1"
        self._git.run("init", "--quiet", "--bare", "--template=", f"--object-format={form}", str(repository))
        # What relative URLs of submodules start from.
        self._git.run("config", "remote.origin.url", address(op.remote), git_dir=repository)
        kept = self._kept(op.remote)
        if kept.layers:
            (repository / "objects/info").mkdir(exist_ok=True)
            trees = "".join(f"{self._store.layers.tree(layer)}\n" for layer in kept.layers)
            (repository / "objects/info/alternates").write_text(trees)
            # Refs let the remote know what is here already, so that it sends the difference.
            tips = sorted(kept.tips[-_MOST_FETCHES:])
            refs = "".join(f"{tip} refs/kept/{tip}\n" for tip in tips)
            (repository / "packed-refs").write_text("# pack-refs with: sorted \n" + refs)
            if kept.shallow:
                (repository / "shallow").write_text("".join(f"{commit}\n" for commit in kept.shallow))
        return kept

    def _has(self, repository: Path, name: str) -> bool:
        """Say whether the object is here with all that it needs: a tip, or in the history of one."""
        try:
            self._git.run("cat-file", "-e", name + "^{tree}", git_dir=repository)
        except GitFailed:
            return False
        return True

    def _fetched(self, op: GitOp, repository: Path, name: str, scratch: Path) -> None:
        """Fetch the object alone; all branches and tags from a server that gives nothing else."""
        tips = [f"+{name}:refs/kept/{name}"]
        everything = ["+refs/heads/*:refs/fetched/heads/*", "+refs/tags/*:refs/fetched/tags/*"]
        depth, wanted = ["--depth=1"], tips
        while True:
            if wanted is everything and (repository / "shallow").exists():
                depth = ["--unshallow"]
            # One pack a fetch, not a file an object: they are kept for long.
            words = (
                "-c",
                "fetch.unpackLimit=1",
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--force",
                *depth,
                "--",
            )
            try:
                self._git.run(
                    *words, address(op.remote), *wanted, git_dir=repository, remote=op.remote, scratch=scratch
                )
            except GitFailed as error:
                if depth == ["--depth=1"] and any(sign in error.said for sign in _WITHOUT_DEPTH):
                    depth = []
                elif wanted is tips and any(sign in error.said for sign in _NOT_OFFERED):
                    depth, wanted = [], everything
                else:
                    raise _unreachable(op, error) from error
                continue
            break
        if not self._has(repository, name):
            message = f"repository does not contain commit {name}: {shown_remote(op.remote)}"
            raise BuildError(message, hint="look the commit up with `git log` in a clone of that repository")

    def _keep(self, op: GitOp, repository: Path, kept: _Objects, name: str) -> None:
        """Keep what a fetch brought, and what was kept before: as one layer if there are too many to look through."""
        whole = len(kept.layers) + 1 >= _MOST_FETCHES
        self._git.run("update-ref", f"refs/kept/{name}", name, git_dir=repository)
        if whole:
            self._git.run("repack", "-a", "-d", "-q", git_dir=repository)
        layer = self._store.layers.write(_object_files(repository / "objects"), forms=Forms.TREE)
        shallow = repository / "shallow"
        result = {
            "tips": [*(tip for tip in kept.tips[-_MOST_FETCHES:] if tip != name), name],
            "shallow": shallow.read_text().split() if shallow.exists() else [],
        }
        layers = (layer.diff_id,) if whole else tuple(dict.fromkeys((*kept.layers, layer.diff_id)))
        self._store.cache.put(CacheRecord(key=_key("objects", op.remote), layers=layers, result=result))

    def _checked_out(self, op: GitOp, repository: Path, target: _Target, commit: str, scratch: Path) -> Path:
        """Return a new directory with the files of `commit` and of its submodules."""
        for depth in (["--depth=1"], []):
            tree = scratch / "tree"
            tree.mkdir()
            git_dir = repository
            try:
                if _keeps(op):
                    git_dir = self._cloned(op, repository, target, commit, tree)
                self._git.run("-c", "core.bare=false", "checkout", "--quiet", "--force", "--detach", commit,
                              git_dir=git_dir, work_tree=tree)  # fmt: skip
            except GitFailed as error:
                message = f"failed to checkout remote {shown_remote(op.remote)}: {error.message}"
                raise BuildError(message, hint="the repository holds what git refuses to write") from error
            try:
                if op.submodules:
                    words = ("submodule", "--quiet", "update", "--init", "--recursive", *depth)
                    self._git.run("-c", "core.bare=false", *words,
                                  git_dir=git_dir, work_tree=tree, remote=op.remote, scratch=scratch)  # fmt: skip
            except GitFailed as error:
                if not depth:
                    message = f"failed to update submodules for {shown_remote(op.remote)}: {error.message}"
                    hint = error.hint or "check .gitmodules; ?submodules=false leaves submodules out"
                    raise BuildError(message, hint=hint) from error
                # Not every server gives a commit alone: once more, with all of their history.
                shutil.rmtree(tree)
                shutil.rmtree(git_dir / "modules", ignore_errors=True)
                continue
            break
        return tree

    def _cloned(self, op: GitOp, repository: Path, target: _Target, commit: str, tree: Path) -> Path:
        """Make the `.git` that is kept: cut after one commit, with the ref it was fetched by and the remote's URL."""
        git_dir = tree / ".git"
        run = self._git.run
        form = "sha256" if len(commit) == 64 else "sha1"
        run("init", "--quiet", "--template=", f"--object-format={form}", str(tree))
        name = f"refs/kept/{target.object}"
        run("update-ref", name, target.object, git_dir=repository)
        wanted = f"{name}:{target.ref}" if target.ref else name
        # Through the protocol, and not by copying: nothing of another repository's directory gets into this one.
        run("fetch", "--quiet", "--update-head-ok", "--no-tags", "--depth=1", f"file://{repository}", wanted,
            git_dir=git_dir, local=True)  # fmt: skip
        run("remote", "add", "origin", address(op.remote), git_dir=git_dir)
        (git_dir / "FETCH_HEAD").unlink(missing_ok=True)
        return git_dir

    def _word(self, repository: Path, *words: str) -> str:
        try:
            return self._git.run(*words, git_dir=repository).decode().strip()
        except GitFailed as error:
            raise BuildError(f"git {words[0]} of a fetched commit: {error.message}") from error

    def _entries(self, op: GitOp, tree: Path, committed_ns: int) -> Iterator[Entry]:
        """Yield the files of the checkout's `subdir` as root's; without `.git`, unless it is kept."""
        whole = LocalContext(tree, label="git")
        top = whole.resolve(op.subdir.encode("utf-8", "surrogateescape"))
        at = whole.lstat(top)
        if at is None or at.kind is not Kind.DIR:
            what = "no such directory" if at is None else "not a directory"
            raise BuildError(
                f"failed to open subdir {op.subdir}: {what}", hint="check the directory's name, and that the ref has it"
            )
        todo = [top]
        while todo:
            for entry in whole.children(todo.pop()):
                if entry.path.rpartition(b"/")[2] == b".git" and not _keeps(op):
                    continue
                if self._git.canceled:
                    raise Canceled("canceled")
                if entry.kind is Kind.DIR:
                    todo.append(entry.path)
                mtime = committed_ns if op.mtime == "commit" else entry.mtime_ns
                yield entry._replace(path=entry.path[len(top) + 1 if top else 0 :], mtime_ns=mtime, inode=None)


def _keeps(op: GitOp) -> bool:
    """Say whether `.git` is kept: a directory of the repository has none."""
    return op.keep_git_dir and not op.subdir


def _pinned(op: GitOp) -> str:
    """Return the object that `op` names in full, empty if the remote has to say which it is."""
    if COMMIT.fullmatch(op.ref):
        return op.ref
    return op.checksum if op.fetch_by_commit else ""


def _verify(op: GitOp, target: _Target) -> None:
    """Raise BuildError if the commit is not the one that the checksum says."""
    found = [one for one in dict.fromkeys((target.object, target.commit)) if one]
    if op.checksum and not any(one.startswith(op.checksum.lower()) for one in found):
        raise BuildError(
            f"expected checksum to match {op.checksum}, got {' or '.join(found)}",
            hint="the ref is not what it was: find out why, then give the right commit",
        )


def _unreachable(op: GitOp, error: GitFailed) -> BuildError:
    return BuildError(f"failed to fetch remote {shown_remote(op.remote)}: {error.message}", hint=error.hint)


def _object_files(objects: Path) -> Iterator[Entry]:
    """Yield the files of an object directory; who made them, when, and what it borrows from is nobody's business."""
    context = LocalContext(objects, label="git")
    todo = [b""]
    while todo:
        for entry in context.children(todo.pop()):
            if entry.kind is Kind.DIR:
                if entry.path == b"info":
                    continue
                todo.append(entry.path)
            yield entry._replace(mtime_ns=0, inode=None)


def _key(what: str, *words: str) -> CacheKey:
    return key_of((("git", _FORMAT), ("what", what), *((f"word {at}", word) for at, word in enumerate(words))))


def _is_hex(text: str) -> bool:
    return not text.strip("0123456789abcdefABCDEF")

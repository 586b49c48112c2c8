"""The files a COPY or ADD selects, and the digest of exactly those: the content half of a copy's cache key.

It finds sources in a tree, walks them in the order they are copied, and hashes what a layer is made of: names, types,
modes, owners, sizes, link targets, devices, file capabilities and data; never times, inodes or host paths. Where things
land is not known here.
"""

from __future__ import annotations

import hashlib
import marshal
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol

from builder.context import LocalContext
from builder.dockerignore import IgnoreError, PatternMatcher, State
from builder.errors import BuildError
from builder.filetree import EmptyTree, FileTree, clean
from builder.glob import BadPattern, compile_pattern, has_wildcards
from grammar.record import Record
from grammar.text import quote
from layerstore.digest import Digest
from layerstore.entry import Entry, Inline, Kind
from layerstore.entry import Source as Data
from layerstore.errors import SourceChanged
from layerstore.files import CAPABILITY, Stamp

_FORMAT = b"selection 3\0"
_BATCH = 512
_CHUNK = 1 << 20
_PIECE = 4 << 20
_WORTH_A_THREAD = 64 << 20
_SHAPE = itemgetter(slice(7))  # mode, inode, device, links, owner, group and size: the quickest way to many at once
_MTIME = attrgetter("st_mtime_ns")
_CTIME = attrgetter("st_ctime_ns")
_MARSHAL = 2  # the last version whose bytes follow from the values alone


class PathSource(NamedTuple):
    """A path or wildcard in the source tree, expanded; `word` is its place among the instruction's words."""

    path: bytes
    word: int = 0


class TextSource(NamedTuple):
    """A heredoc: a file `name` (its delimiter) with `data`, expanded."""

    name: bytes
    data: bytes
    word: int = 0


class FileSource(NamedTuple):
    """A file that was downloaded to the host path `file`; becomes `name` with mode 0600 and `mtime_ns`."""

    name: bytes
    file: Path
    mtime_ns: int = 0
    word: int = 0


class TreeSource(NamedTuple):
    """All that input `input` of the operation holds: a git repository."""

    input: int
    word: int = 0


Source = PathSource | TextSource | FileSource | TreeSource


class CopySpec(Record):
    """One COPY or ADD with everything expanded; its fields are what the cache key lists, with the selection's digest.

    `dest` as written; `workdir` absolute, or relative to the root. `chown` and `chmod` as written, empty for none.
    `unpack`: whether archives among the path sources are unpacked (ADD does, unless told otherwise), `unpack_remote`
    whether downloaded ones are (ADD does not, unless told otherwise).
    """

    sources: tuple[Source, ...]
    dest: bytes
    workdir: bytes = b""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    unpack_remote: bool = False

    @property
    def independent(self) -> bool:
        """Whether the layer does not depend on the image below it: --link, which --chmod turns into a plain copy."""
        return self.link and not self.chmod


class CopyError(BuildError):
    """A copy that cannot be done; `word` is the index of the word at fault, or DEST or FLAGS."""

    def __init__(self, word: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.word = word


class MissingSource(CopyError):
    """A source that is not there."""


DEST = -1
FLAGS = -2


class FileDigests(Protocol):
    """What remembers digests: `Store.files`."""

    def lookup(self, stamps: Sequence[Stamp]) -> list[bytes | None]:
        """Return the remembered sha256 of each file."""

    def remember(self, files: Iterable[tuple[Stamp, bytes]], *, scanned_ns: int) -> None:
        """Remember the sha256 of files seen at `scanned_ns` or later."""

    def selection(self, fingerprint: bytes) -> Digest | None:
        """Return the remembered digest of a selection."""

    def remember_selection(
        self, fingerprint: bytes, digest: Digest, *, newest_ns: int = 0, scanned_ns: int = 0
    ) -> None:
        """Remember the digest of a selection."""


class Item(NamedTuple):
    """One thing to copy: `entry` in the source tree (links followed), `name` as it was found.

    `include` is what --parents takes below a directory; None takes everything. `tree` is what the entry is in, None if
    that is the selection's own tree, or if it is in none.
    """

    source: Source
    name: bytes
    entry: Entry
    include: PatternMatcher | None = None
    tree: FileTree | None = None


class Found(NamedTuple):
    """Something below a directory item: `rel` is its path there; not `direct` is a directory only passed through."""

    rel: bytes
    entry: Entry
    direct: bool


class Selection:
    """What the sources of a spec select in a tree, in the order in which it is copied."""

    def __init__(self, spec: CopySpec, tree: FileTree | None, items: tuple[Item, ...]) -> None:
        self.spec = spec
        self.tree = tree
        self.items = items
        self.data: dict[bytes, bytes] = {}
        """The sha256 of files by host path, once `digest` has hashed them."""
        self._exclude = _excluding(spec.exclude) if spec.exclude else None
        self._fingerprint: tuple[bytes | None, int] | None = None
        self._walked: dict[int, list[Found]] = {}
        self.asked = True
        """Whether entries say which files have capabilities."""
        self._samples: tuple[str, ...] | None = None
        self._files: list[Entry] | None = None

    def walk(self, item: Item) -> list[Found]:
        """Return what is copied from below the directory `item`, parents before children, names sorted."""
        found = self._walked.get(id(item))
        if found is None:
            plain = item.include is None and self._exclude is None
            found = self._walked[id(item)] = self._walk_all(item) if plain else list(self._walk(item))
        return found

    def _walk_all(self, item: Item) -> list[Found]:
        """The walk that takes everything."""
        tree = item.tree or self.tree
        assert tree is not None, "BUG: a directory without a tree"
        skip = len(item.entry.path) + 1 if item.entry.path else 0
        found: list[Found] = []
        below = tree.unasked if isinstance(tree, LocalContext) and not self.asked else partial(children, tree)
        levels = [below(item.entry.path)]
        while levels:
            for entry in levels[-1]:
                found.append(tuple.__new__(Found, (entry[0][skip:], entry, True)))
                if entry[1] is Kind.DIR:
                    levels.append(below(entry[0]))
                    break
            else:
                levels.pop()
        return found

    def defer(self) -> None:
        """Leave a context's capabilities to who opens the files, and tells `amend`, if they were not looked at yet."""
        self.asked = bool(self._walked) or not isinstance(self.tree, LocalContext)

    def amend(self, capabilities: Mapping[bytes, bytes]) -> None:
        """Take note of the capabilities of files, by host path, that showed when they were opened."""
        if not capabilities:
            return
        for walked in self._walked.values():
            for at, (rel, entry, direct) in enumerate(walked):
                value = capabilities.get(entry.source) if isinstance(entry.source, bytes) else None
                if value is not None:
                    walked[at] = Found(rel, entry._replace(xattrs=((CAPABILITY, value),)), direct)
        self._files = None

    def _walk(self, item: Item) -> Iterator[Found]:
        tree = item.tree or self.tree
        assert tree is not None, "BUG: a directory without a tree"
        include, exclude = item.include, self._exclude
        skip = len(item.entry.path) + 1 if item.entry.path else 0
        levels: list[_Level] = [_Level(children(tree, item.entry.path), None, (), ())]
        while levels:
            level = levels[-1]
            entry = next(level.entries, None)
            if entry is None:
                levels.pop()
                continue
            rel = entry.path[skip:]
            direct, included, excluded = True, level.included, level.excluded
            if include is not None or exclude is not None:
                text = os.fsdecode(rel)
                if include is not None:
                    direct, included = include.match(text, included)
                if exclude is not None:
                    out, excluded = exclude.match(text, excluded)
                    direct = direct and not out
            if direct:
                for above in levels:
                    if above.pending is not None:
                        yield Found(above.pending.path[skip:], above.pending, direct=False)
                        above.pending = None
                yield Found(rel, entry, direct=True)
            if entry.kind is Kind.DIR and (direct or self._worth_entering(item, rel, included)):
                pending = None if direct else entry
                levels.append(_Level(children(tree, entry.path), pending, included, excluded))

    def remembered(self, files: FileDigests) -> Digest | None:
        """Return the digest of the selected content if nothing has changed since it was last told, reading nothing."""
        fingerprint, _ = self._seen()
        return None if fingerprint is None else files.selection(fingerprint)

    def samples(self, files: FileDigests) -> tuple[str, ...]:
        """Return what a few pieces of the content tell of it: of each large file, and of many that were never seen.

        Selections of which one of these differs have different contents.
        """
        if self._samples is None:
            from layerstore.pieces import large_files, sample, some_files  # noqa: PLC0415 - a cached build needs none

            self.recall(files)
            regular = self._regular()
            seen = self.tree.recalled if isinstance(self.tree, LocalContext) else {}
            new = sum(entry.source not in seen for entry in regular)
            some = some_files(regular) if new * 2 > len(regular) else []
            self._samples = tuple(filter(None, (sample(large_files(regular)), sample(some))))
        return self._samples

    def recall(self, files: FileDigests) -> None:
        """Look up what is remembered of a context's files, unless they were walked: it need not be looked at then."""
        if isinstance(self.tree, LocalContext) and not self._walked:
            self._seen()
            self.tree.recall(files)

    def digest(self, files: FileDigests, read: Mapping[bytes, bytes] | None = None) -> Digest:
        """Return the digest of the selected content; what was hashed before and has not changed is not read again.

        `read` has the sha256 of files by host path where somebody has read them since they were selected. `data` has
        all of them afterwards, unless the digest was `remembered`. SourceChanged if a file changes while it is read,
        CopyError if one cannot be read.
        """
        known = self.remembered(files)
        if known is not None and read is None:
            return known
        digest = self._hash(files, read or {}, remember=known is None)
        fingerprint, newest = self._seen()
        if fingerprint is not None and known is None:
            opened = self.tree.opened_ns if isinstance(self.tree, LocalContext) else newest + (1 << 62)
            files.remember_selection(fingerprint, digest, newest_ns=newest, scanned_ns=opened)
        return digest

    def _worth_entering(self, item: Item, rel: bytes, included: State) -> bool:
        """Say whether a directory that is not copied itself can hold something that is."""
        text = os.fsdecode(rel)
        if self._exclude is not None and self._exclude.may_except_below(text):
            return True
        # Not matched by include patterns: something below may be. Matched, and so excluded: nothing below is.
        return item.include is not None and not any(included) and item.include.may_match_below(text)

    def _seen(self) -> tuple[bytes | None, int]:
        if self._fingerprint is None:
            self._fingerprint = self._look()
        return self._fingerprint

    def _look(self) -> tuple[bytes | None, int]:
        """Return what is hashed of all that can be seen without reading a file, and the newest time in it.

        None if there is nothing to go by. A tree of layers never changes, so its layers and the paths are enough.
        """
        tree = self.tree
        seen = hashlib.sha256(_FORMAT)
        newest = 1
        for item in self.items:
            patterns = [pattern.text for pattern in item.include.patterns] if item.include is not None else []
            seen.update(repr((type(item.source).__name__, item.name, item.entry.path, patterns)).encode())
            match item.source:
                case TextSource(data=data):
                    seen.update(data)
                case TreeSource():
                    layers = getattr(item.tree, "trees", None)
                    if layers is None:
                        return None, 0
                    seen.update(repr([os.fspath(layer) for layer in layers]).encode())
                case FileSource():
                    return None, 0
        seen.update(repr(self.spec.exclude).encode())
        if isinstance(tree, LocalContext):
            newest = max(newest, self._scan(tree, seen))
        elif tree is not None and not isinstance(tree, EmptyTree):
            layers = getattr(tree, "trees", None)
            if layers is None:
                return None, 0
            seen.update(repr([os.fspath(layer) for layer in layers]).encode())
        return seen.digest(), newest

    def _scan(self, context: LocalContext, seen: hashlib._Hash) -> int:
        """Feed the stamps of all that is visible below the items; return the newest change."""
        newest = 0
        for item in self.items:
            if not isinstance(item.source, PathSource):
                continue
            if item.entry.kind is not Kind.DIR:
                status = context.stamp(item.entry.path)
                assert status is not None, "BUG: an item that is not there"
                newest = max(newest, _feed(seen, item.entry.path, {"": status}))
                continue
            skip = len(item.entry.path)
            for directory, names in context.scan(item.entry.path):
                path = os.fsencode(directory)
                if path != item.entry.path and item.include is not None:
                    below = os.fsdecode(path[skip + 1 :] if skip else path)
                    if not self._below_include(item.include, below):
                        continue
                newest = max(newest, _feed(seen, path, names))
        return newest

    @staticmethod
    def _below_include(include: PatternMatcher, directory: str) -> bool:
        return include.may_match_below(directory) or include.trace(directory) is not None

    def _hash(self, files: FileDigests, read: Mapping[bytes, bytes], *, remember: bool) -> Digest:
        """Hash everything, file digests taken from `read` and `files` where they are known."""
        self.recall(files)
        regular = self._regular()
        digests = _data_digests(regular, self.tree, files, read, self._opened() if remember else None)
        self.data = {
            entry.source: digest
            for entry, digest in zip(regular, digests, strict=True)
            if isinstance(entry.source, bytes)
        }
        whole = hashlib.sha256(_FORMAT)
        rest = iter(digests)
        for item in self.items:
            source = b"%d\0" % _ORDER[type(item.source)]
            if item.entry.kind is Kind.DIR:
                # The directory itself gives nothing to the layer but its time; its name matters to nobody.
                top = item.entry._replace(mode=0, uid=0, gid=0)
                _hash_found(whole, [Found(source + b"D", top, direct=True)], rest)
                _hash_found(whole, self.walk(item), rest)
            else:
                _hash_found(whole, [Found(source + b"F" + item.name, item.entry, direct=True)], rest)
        return Digest("sha256:" + whole.hexdigest())

    def _regular(self) -> list[Entry]:
        """Return the files with data, in the order in which they are copied."""
        if self._files is None:
            self._files = []
            for item in self.items:
                if item.entry.kind is Kind.DIR:
                    self._files += [entry for _, entry, _ in self.walk(item) if entry[1] is Kind.FILE]
                elif item.entry.kind is Kind.FILE:
                    self._files.append(item.entry)
        return self._files

    def _opened(self) -> int:
        # The files of layers never change, so digests of theirs can be remembered whenever they were made.
        return self.tree.opened_ns if isinstance(self.tree, LocalContext) else 1 << 62


_ORDER: dict[type, int] = {PathSource: 0, FileSource: 1, TextSource: 2, TreeSource: 3}


class _Level:
    """A directory that is being walked."""

    __slots__ = ("entries", "excluded", "included", "pending")

    def __init__(self, entries: Iterator[Entry], pending: Entry | None, included: State, excluded: State) -> None:
        self.entries = entries
        self.pending = pending
        self.included = included
        self.excluded = excluded


def children(tree: FileTree, path: bytes) -> Iterator[Entry]:
    """Yield the entries in the directory `path` of `tree`, sorted by name."""
    if isinstance(tree, LocalContext):
        return tree.children(path)
    return _children(tree, path)


def _children(tree: FileTree, path: bytes) -> Iterator[Entry]:
    prefix = path + b"/" if path else b""
    for name in tree.listdir(path):
        entry = tree.lstat(prefix + name)
        if entry is not None:
            yield entry


def select(
    spec: CopySpec,
    tree: FileTree | None,
    *,
    label: str = "context",
    trees: Mapping[int, FileTree] = MappingProxyType({}),
) -> Selection:
    """Find the sources of `spec` in `tree`; CopyError for one that is not there or a malformed wildcard.

    `tree` may be None if no source is a path; `label` is what messages call it. `trees` has the inputs that tree
    sources name. Paths, trees and downloads come in the order
    they are written in, then the heredocs.
    """
    items: list[Item] = []
    texts: list[Item] = []
    missing: list[MissingSource] = []
    for source in spec.sources:
        match source:
            case PathSource():
                assert tree is not None, "BUG: path sources need a tree"
                try:
                    items += _find_paths(source, tree, label, parents=spec.parents)
                except MissingSource as error:
                    missing.append(error)
            case TextSource(name, data):
                name = clean(name)
                texts.append(Item(source, name, Entry(name, Kind.FILE, 0o644, size=len(data), source=Inline(data))))
            case FileSource(name, file, mtime_ns):
                host = os.fsencode(file)
                entry = Entry(name, Kind.FILE, 0o600, 0, 0, mtime_ns, os.stat(host).st_size, source=host)
                items.append(Item(source, name, entry))
            case TreeSource(at):
                root = trees[at].lstat(b"")
                assert root is not None, "BUG: a tree without a root"
                items.append(Item(source, b"", root, tree=trees[at]))
    if missing:
        first, *others = missing
        raise CopyError(first.word, "; ".join([first.message, *(one.message for one in others)]), hint=first.hint)
    return Selection(spec, tree, (*items, *texts))


def _excluding(patterns: tuple[str, ...]) -> PatternMatcher:
    try:
        return PatternMatcher.of(patterns, where="--exclude")
    except IgnoreError as error:
        fault = f'{error.what}: "!"' if error.rule.text.strip() == "!" else error.what
        raise CopyError(FLAGS, f"invalid excludepatterns: [{' '.join(patterns)}]: {fault}", hint=error.hint) from error


def _find_paths(source: PathSource, tree: FileTree, label: str, *, parents: bool) -> list[Item]:
    text = os.fsdecode(source.path)
    include: PatternMatcher | None = None
    if parents:
        text, pivot, pattern = text.partition("/./")
        if not pivot:
            text, pattern = "/", text
        pattern = os.fsdecode(clean(os.fsencode(pattern)))
        if not has_wildcards(text) and not has_wildcards(pattern):
            _existing(source, tree, label, clean(os.fsencode(f"{text}/{pattern}")))
        include = PatternMatcher.of((pattern,), where="--parents") if pattern else None
    path = clean(os.fsencode(text))
    found = []
    for match in _matches(source, tree, label, path):
        entry = _existing(source, tree, label, match)
        found.append(Item(source, match.rpartition(b"/")[2], entry, include if entry.kind is Kind.DIR else None))
    return found


def _matches(source: PathSource, tree: FileTree, label: str, path: bytes) -> list[bytes]:
    """Return the paths that `path` stands for: itself, or if it has wildcards those that match, in walking order."""
    parts = os.fsdecode(path).split("/")
    literal = next((count for count, part in enumerate(parts) if has_wildcards(part)), None)
    if literal is None:
        return [path]
    try:
        tests = [compile_pattern(part).fullmatch for part in parts[literal:]]
    except BadPattern as error:
        raise CopyError(
            source.word,
            f"invalid includepatterns: [{os.fsdecode(path)}]: {error}",
            hint="write [[] for the character [ itself",
        ) from error
    if isinstance(tree, LocalContext):
        _sendable(source, os.fsdecode(path))
    base = b""
    if literal:
        base = _existing(source, tree, label, os.fsencode("/".join(parts[:literal]))).path
    found = [base]
    for depth, test in enumerate(tests, 1):
        matching = []
        for directory in found:
            prefix = directory + b"/" if directory else b""
            matching += [prefix + name for name in tree.listdir(directory) if test(os.fsdecode(name))]
        if depth < len(tests):
            # Links met on the way are not entered: the reference walks, it does not look names up.
            matching = [one for one in matching if (at := tree.lstat(one)) is not None and at.kind is Kind.DIR]
        found = matching
    return found


def _sendable(source: PathSource, pattern: str) -> None:
    """Refuse what the reference's client, which reads wildcards as ignore files have them, cannot send a context by."""
    try:
        PatternMatcher.of((pattern,), where="sources")
    except IgnoreError as error:
        raise CopyError(
            source.word, f"error from sender: failed to match includepatterns: {error.what}: {pattern}", hint=error.hint
        ) from error


def _existing(source: PathSource, tree: FileTree, label: str, path: bytes) -> Entry:
    """Return what is at `path`, links followed."""
    entry = tree.lstat(tree.resolve(path))
    if entry is not None:
        return entry
    shown = "/" + os.fsdecode(path)
    # Both of the reference's words: which one it has depends on what is in its cache.
    missing = f"{quote(shown)}: not found: lstat {shown}: {_lack(tree, path)}"
    raise MissingSource(
        source.word,
        f"failed to calculate checksum of ref {label}: {missing}",
        hint=_why_missing(tree, path),
    )


def _lack(tree: FileTree, path: bytes) -> str:
    """Return what the kernel would say of `path`, where nothing is."""
    parts = path.split(b"/")
    for count in range(1, len(parts)):
        at = tree.lstat(tree.resolve(b"/".join(parts[:count])))
        if at is None:
            break
        if at.kind is not Kind.DIR:
            return "not a directory"
    return "no such file or directory"


def _why_missing(tree: FileTree, path: bytes) -> str:
    if isinstance(tree, LocalContext):
        hidden = tree.hidden_by(path)
        if hidden is not None:
            return f"line {hidden[1].line} of {hidden[0]} leaves it out: {hidden[1].text.strip()}"
    parts = path.split(b"/")
    for count in range(len(parts)):
        parent = b"/".join(parts[:count])
        if tree.lstat(tree.resolve(b"/".join(parts[: count + 1]))) is None:
            from difflib import get_close_matches  # noqa: PLC0415 - only for people who mistyped

            names = [os.fsdecode(name) for name in tree.listdir(tree.resolve(parent))]
            if not names and not parent and isinstance(tree, LocalContext):
                return "the build context is empty: give a directory"
            near = get_close_matches(os.fsdecode(parts[count]), names, 1)
            above = os.fsdecode(parent) + "/" if parent else ""
            return f"did you mean {above}{near[0]}?" if near else ""
    return ""


def _feed(seen: hashlib._Hash, directory: bytes, names: dict[str, os.stat_result]) -> int:
    """Feed the stamps of one directory's names to `seen`; return the newest change among them."""
    text = "\0".join(names)
    seen.update(b"%d %d %d\0" % (len(directory), len(names), len(text)))
    seen.update(directory)
    seen.update(os.fsencode(text))
    stamps = names.values()
    times = [*map(_MTIME, stamps), *map(_CTIME, stamps)]
    seen.update(marshal.dumps((list(map(_SHAPE, stamps)), times), _MARSHAL))
    return max(times, default=0)


def _hash_found(whole: hashlib._Hash, found: Sequence[Found], digests: Iterator[bytes]) -> None:
    """Feed what was found of one item, with the digests of its files; hard links are kept inside one item."""
    links: dict[tuple[int, int], bytes] = {}
    for begin in range(0, len(found), _BATCH):
        rows: list[tuple[object, ...]] = []
        for name, (_, kind, mode, uid, gid, _, size, target, rdev, xattrs, _, inode), direct in found[
            begin : begin + _BATCH
        ]:
            if kind is Kind.FILE:
                first = name if inode is None else links.setdefault(inode, name)
                link = b"" if first == name else first
                capabilities = tuple(value for key, value in xattrs if key == CAPABILITY) if xattrs else ()
                rows.append((name, 0, mode, uid, gid, size, capabilities, link, direct, next(digests)))
            else:
                rows.append((name, int(kind), mode, uid, gid, target, rdev, direct))
        whole.update(marshal.dumps(rows, _MARSHAL))


def _data_digests(
    entries: list[Entry], tree: FileTree | None, files: FileDigests, read: Mapping[bytes, bytes], scanned_ns: int | None
) -> list[bytes]:
    """Return the sha256 of each file's data, in order; what was `read` or is remembered is not read again.

    What is new is remembered if `scanned_ns` says when the files were looked at.
    """
    sources = [entry.source for entry in entries]
    known = tree.recalled if isinstance(tree, LocalContext) and not read else read
    digests = [known.get(source) if isinstance(source, bytes) else _of_inline(source) for source in sources]
    unread = [at for at, digest in enumerate(digests) if digest is None]
    stamps = _stamps([entries[at] for at in unread], tree)
    missing = []
    for at, stamp, remembered in zip(unread, stamps, files.lookup(stamps), strict=True):
        if remembered is None:
            missing.append((at, stamp))
        else:
            digests[at] = remembered
    hashed = _hash_files([(_host(entries[at]), stamp) for at, stamp in missing])
    for (at, _), digest in zip(missing, hashed, strict=True):
        digests[at] = digest
    if scanned_ns is not None:
        plain = {at for at, entry in enumerate(entries) if entry.size and not (entry.xattrs and _capability(entry))}
        new = [(stamp, digest) for (at, stamp), digest in zip(missing, hashed, strict=True) if at in plain]
        told = [entries[at] for at in plain if sources[at] in read]
        new += zip(_stamps(told, tree), [read[_host(entry)] for entry in told], strict=True)
        files.remember(new, scanned_ns=scanned_ns)
    return [digest for digest in digests if digest is not None]


def _capability(entry: Entry) -> list[bytes]:
    return [value for key, value in entry.xattrs if key == CAPABILITY]


def _host(entry: Entry) -> bytes:
    assert isinstance(entry.source, bytes), "BUG: a file without a place on the host"
    return entry.source


def _of_inline(source: Data) -> bytes:
    assert isinstance(source, Inline), "BUG: a stream cannot be selected"
    return hashlib.sha256(source.data).digest()


def _stamps(entries: Sequence[Entry], tree: FileTree | None) -> list[Stamp]:
    """Return what is known of files; a context has looked already."""
    seen = tree.seen if isinstance(tree, LocalContext) else {}
    hosts = [_host(entry) for entry in entries]
    return [
        Stamp.of(status) if status is not None else _stamp(entry, host, tree)
        for entry, host, status in zip(entries, hosts, map(seen.get, hosts), strict=True)
    ]


def _stamp(entry: Entry, host: bytes, tree: FileTree | None) -> Stamp:
    """Return what is known of one file."""
    if isinstance(tree, LocalContext):
        status = tree.stamp(entry.path)
        if status is not None and tree.host(entry.path) == host:
            return Stamp.of(status)
    try:
        return Stamp.of(os.lstat(host))
    except OSError as error:
        raise SourceChanged(host, "went away") from error


def _hash_files(files: list[tuple[bytes, Stamp]]) -> list[bytes]:
    """Return the sha256 of each file; where there is much data a second thread helps, as hashing releases the lock."""
    results = [b""] * len(files)
    turn = iter(range(len(files)))
    lock = threading.Lock()
    failures: list[Exception] = []

    def work() -> None:
        while not failures:
            with lock:
                at = next(turn, None)
            if at is None:
                return
            try:
                results[at] = _hash_file(*files[at])
            except Exception as error:  # noqa: BLE001 - raised again by the caller's thread
                failures.append(error)

    if sum(stamp.size for _, stamp in files) < _WORTH_A_THREAD:
        return [_hash_file(host, stamp) for host, stamp in files]
    helper = threading.Thread(target=work, name="hash files")
    helper.start()
    work()
    helper.join()
    if failures:
        raise failures[0]
    return results


def _hash_file(host: bytes, stamp: Stamp) -> bytes:
    """Return the sha256 of the file, which must still be what `stamp` says when it is open."""
    try:
        descriptor = os.open(host, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BuildError(f"cannot read {os.fsdecode(host)}: {error.strerror}") from error
    try:
        if Stamp.of(os.fstat(descriptor)) != stamp:
            raise SourceChanged(host, "changed")
        if stamp.size <= _CHUNK:
            data = os.read(descriptor, stamp.size)
            if len(data) != stamp.size:
                raise SourceChanged(host, "changed")
            return hashlib.sha256(data).digest()
        running = hashlib.sha256()
        left = stamp.size
        # Each piece takes the interpreter's lock twice, and who loads modules meanwhile is slow to give it.
        buffer = memoryview(bytearray(min(_PIECE, left)))
        while left and (count := os.readv(descriptor, [buffer[: min(_PIECE, left)]])):
            running.update(buffer[:count])
            left -= count
        if left:
            raise SourceChanged(host, "changed")
        return running.digest()
    finally:
        os.close(descriptor)

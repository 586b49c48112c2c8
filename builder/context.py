"""A build context on this machine as a file tree: a host directory minus what its ignore file leaves out.

Directories are read when they are first asked for, once, and what was seen is kept: one build sees one context. Owners
are 0:0, sockets are empty files, symlinks do not lead out of the root. It knows nothing of Dockerfiles.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, Protocol

from builder.dockerignore import IgnoreFile, Rule, State
from builder.errors import SourceError
from builder.filetree import clean
from layerstore.entry import KINDS, Entry, Inline, Kind
from layerstore.files import Stamp, capability

_KINDS = {**KINDS, stat.S_IFSOCK: Kind.FILE}
_MAX_LINKS = 255
_NOTHING = Inline(b"")
_FEW = 64
_NO_DEVICE = (0, 0)
_NAME = itemgetter(0)
_FORMAT = 0o170000  # S_IFMT, which the module has as a function only


class Memory(Protocol):
    """What remembers digests of files: `Store.files`."""

    def lookup(self, stamps: Sequence[Stamp]) -> list[bytes | None]:
        """Return the remembered sha256 of each file without a file capability."""


class _Directory(NamedTuple):
    """What is visible in a directory: names in order with what lstat(2) said; `states` of the ignore patterns below."""

    names: dict[str, os.stat_result]
    directories: list[str]
    states: dict[str, State]


class LocalContext:
    """A `FileTree` over the host directory `root`; `ignore` hides files, `label` is what messages call the context."""

    def __init__(
        self, root: Path, ignore: IgnoreFile | None = None, *, label: str = "context", opened_ns: int = 0
    ) -> None:
        """SourceError if `root` is no directory that can be read.

        `opened_ns` is the time now: what changed since may still be changing, so its digest is not remembered.
        """
        self.root = root
        self.label = label
        self.opened_ns = opened_ns
        self._ignore = ignore or IgnoreFile()
        self._host = os.fsencode(os.path.realpath(root))
        self._directories: dict[str, _Directory] = {}
        self._children: dict[str, list[Entry]] = {}
        self.seen: dict[bytes, os.stat_result] = {}
        """What lstat(2) said, by host path, of all that `children` yielded."""
        self._asked: set[str] = set()
        self.recalled: dict[bytes, bytes] = {}
        """The sha256 of files' data by host path, as `recall` found it."""
        try:
            self._status = os.stat(self._host)
        except OSError as error:
            raise SourceError(f"cannot read the build context {root}: {error.strerror}") from error
        if not stat.S_ISDIR(self._status.st_mode):
            raise SourceError(f"the build context {root} is not a directory", hint="give a directory as the context")

    def lstat(self, path: bytes) -> Entry | None:
        """Return the entry at `path` unless it is ignored or not there; links on the way are not followed."""
        text = os.fsdecode(path)
        if not text:
            return self._entry("", self._status)
        parent, _, name = text.rpartition("/")
        directory = self._directory(parent)
        status = None if directory is None else directory.names.get(name)
        return None if status is None else self._entry(text, status)

    def listdir(self, path: bytes) -> list[bytes]:
        """Return the names visible in the directory `path`, sorted; empty if it is no directory."""
        directory = self._directory(os.fsdecode(path))
        return [] if directory is None else sorted(os.fsencode(name) for name in directory.names)

    def children(self, path: bytes) -> Iterator[Entry]:
        """Yield the entries in the directory `path`, sorted by name; cheaper than lstat for each, and kept."""
        text = os.fsdecode(path)
        known = self._children.get(text)
        if known is None:
            directory = self._directory(text)
            known = self._children[text] = self._entries(text, directory.names) if directory is not None else []
        return iter(known)

    def unasked(self, path: bytes) -> Iterator[Entry]:
        """Yield what `children` does, without the capabilities of files of one name: for who opens them anyway."""
        text = os.fsdecode(path)
        directory = self._directory(text)
        return iter(self._entries(text, directory.names, ask=False) if directory is not None else [])

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """Return `path` without symlinks and "..", clamped to the root; what does not exist is kept as written."""
        todo = [part for part in os.fsdecode(path).split("/")[::-1] if part not in ("", ".")]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del done[-1:]
                continue
            status = self._status_of(done, part)
            if status is None or not stat.S_ISLNK(status.st_mode) or (not todo and not follow_last):
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise SourceError(f"too many links in /{os.fsdecode(path)}", hint="a link leads back to itself")
            target = os.fsdecode(self._readlink("/".join((*done, part))))
            if target.startswith("/"):
                done.clear()
            todo += [piece for piece in target.split("/")[::-1] if piece not in ("", ".")]
        return os.fsencode("/".join(done))

    def read(self, path: bytes, *, limit: int = 1 << 20) -> bytes | None:
        """Return what the file at `path` holds (links followed), at most `limit` bytes; None if there is none."""
        entry = self.lstat(self.resolve(path))
        if entry is None or entry.kind is not Kind.FILE:
            return None
        if isinstance(entry.source, Inline):
            return entry.source.data
        assert isinstance(entry.source, bytes)
        with open(entry.source, "rb") as file:
            return file.read(limit)

    def hidden_by(self, path: bytes) -> tuple[str, Rule] | None:
        """Return the name of the ignore file and its rule if `path` is on the host and only hidden."""
        rule = self._ignore.explain(clean(path))
        if rule is None or not os.path.lexists(os.path.join(self._host, clean(path))):
            return None
        return self._ignore.name, rule

    def host(self, path: bytes) -> bytes:
        """Return where `path` is on the host, whether it is there or not."""
        return self._host + b"/" + path if path else self._host

    def stamp(self, path: bytes) -> os.stat_result | None:
        """Return what lstat(2) said of `path`, None if it is not visible."""
        text = os.fsdecode(path)
        parent, _, name = text.rpartition("/")
        return self._status if not text else self._status_of(parent.split("/") if parent else [], name)

    def scan(self, path: bytes) -> Iterator[tuple[str, dict[str, os.stat_result]]]:
        """Yield (directory, names with what lstat(2) said), parents first, for everything visible below `path`.

        This is the cheap way to see a whole context: nothing is made per file.
        """
        todo = [os.fsdecode(path)]
        while todo:
            text = todo.pop()
            directory = self._directory(text)
            if directory is None:
                continue
            yield text, directory.names
            prefix = text + "/" if text else ""
            todo += [prefix + name for name in directory.directories[::-1]]

    def recall(self, files: Memory) -> None:
        """Look up what `files` remembers of what was seen, before `children` are asked for: once for each directory.

        What is remembered has no file capability: that need not be looked at then.
        """
        found: list[tuple[bytes, os.stat_result]] = []
        for text, directory in list(self._directories.items()):
            if text in self._asked or text in self._children:
                continue
            self._asked.add(text)
            above = self.host(os.fsencode(text)) + b"/"
            names = os.fsencode("\0".join(directory.names)).split(b"\0") if directory.names else []
            found += zip([above + name for name in names], directory.names.values(), strict=True)
        # Where a few are new, all are: a new checkout. Who needs digests looks them up in any case.
        few = found[:: len(found) // _FEW + 1]
        if any(files.lookup([Stamp.of(status) for _, status in few])):
            digests = files.lookup([Stamp.of(status) for _, status in found])
            self.recalled.update(
                {one[0]: digest for one, digest in zip(found, digests, strict=True) if digest is not None}
            )

    def _status_of(self, parents: list[str], name: str) -> os.stat_result | None:
        directory = self._directory("/".join(parents))
        return None if directory is None else directory.names.get(name)

    def _readlink(self, text: str) -> bytes:
        try:
            return os.readlink(os.path.join(self._host, os.fsencode(text)))
        except OSError as error:
            raise _unreadable(text, error) from error

    def _entries(self, directory: str, names: dict[str, os.stat_result], *, ask: bool = True) -> list[Entry]:
        """Return the entries of a directory's names, and keep what was seen of them."""
        prefix = os.fsencode(directory + "/") if directory else b""
        paths = [prefix + name for name in os.fsencode("\0".join(names)).split(b"\0")] if names else []
        above = self._host + b"/"
        hosts = [above + path for path in paths]
        self.seen.update(zip(hosts, names.values(), strict=True))
        found = []
        recalled = self.recalled
        for path, host, status in zip(paths, hosts, names.values(), strict=True):
            mode = status.st_mode
            if mode & _FORMAT == stat.S_IFREG and status.st_nlink == 1:  # nearly all there is
                # What a named tuple's own constructor does, without the call of it.
                fields = (path, Kind.FILE, mode & 0o7777, 0, 0, status.st_mtime_ns, status.st_size, b"", _NO_DEVICE)
                attributes = capability(host) if ask and host not in recalled else ()
                found.append(tuple.__new__(Entry, (*fields, attributes, host, None)))
            else:
                found.append(self._entry(os.fsdecode(path), status))
        return found

    def _entry(self, text: str, status: os.stat_result) -> Entry:
        mode = status.st_mode
        path = os.fsencode(text)
        host = self._host + b"/" + path if path else self._host
        kind = _KINDS[stat.S_IFMT(mode)]
        size = 0
        source: bytes | Inline = _NOTHING
        target = b""
        rdev = (0, 0)
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        inode = None
        if kind is Kind.FILE:
            if stat.S_ISREG(mode):
                size, source = status.st_size, host
                xattrs = () if host in self.recalled else capability(host)
            if status.st_nlink > 1:
                inode = (status.st_dev, status.st_ino)
        elif kind is Kind.SYMLINK:
            target = self._readlink(text)
        elif kind in (Kind.CHAR, Kind.BLOCK):
            rdev = (os.major(status.st_rdev), os.minor(status.st_rdev))
        permissions = mode & 0o7777
        return Entry(path, kind, permissions, 0, 0, status.st_mtime_ns, size, target, rdev, xattrs, source, inode)

    def _directory(self, text: str) -> _Directory | None:
        """Return what is visible in the directory `text`, None if that is no visible directory."""
        found = self._directories.get(text)
        if found is not None:
            return found
        state: State = ()
        if text:
            parent, _, name = text.rpartition("/")
            above = self._directory(parent)
            status = None if above is None else above.names.get(name)
            if above is None or status is None or not stat.S_ISDIR(status.st_mode):
                return None
            state = above.states.get(name, ())
        # A directory that exceptions had to be searched for below was read, and kept, by that search.
        return self._directories.get(text) or self._read_directory(text, state)

    def _read_directory(self, text: str, state: State) -> _Directory:
        listing, directories = self._listing(text)
        if not self._ignore.patterns:
            return self._directories.setdefault(text, _Directory(dict(listing), sorted(directories), {}))
        names: dict[str, os.stat_result] = {}
        states: dict[str, State] = {}
        ignore = self._ignore
        prefix = text + "/" if text else ""
        literals, name_test, path_test = ignore.filter(text)
        below_ignored = ignore.outcome(state)
        for name, status in listing:
            ignored, own = below_ignored, state
            if name in literals or (name_test and name_test(name)) or (path_test and path_test(prefix + name)):
                ignored, own = ignore.match(prefix + name, state)
            if name in directories:
                if own:
                    states[name] = own
                if ignored and not self._has_survivors(prefix + name, own):
                    directories.discard(name)
                    continue
            elif ignored:
                continue
            names[name] = status
        # Another thread may have looked at the same time: the first look is the one that counts.
        return self._directories.setdefault(text, _Directory(names, sorted(directories), states))

    def _has_survivors(self, text: str, state: State) -> bool:
        """Say whether an exception brings back something below the ignored directory `text`."""
        return self._ignore.may_except_below(text) and bool(self._read_directory(text, state).names)

    def _listing(self, text: str) -> tuple[list[tuple[str, os.stat_result]], set[str]]:
        """Return what is in a directory, by name, and which names are directories.

        By descriptor, which keeps paths short for the kernel, and never through a link that took the directory's place.
        """
        path = self.host(os.fsencode(text))
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if text else 0)
        try:
            descriptor = os.open(path, flags)
        except OSError as error:
            raise _unreadable(text or str(self.root), error) from error
        try:
            with os.scandir(descriptor) as listing:
                items = list(listing)
            try:
                found = [(item.name, item.stat(follow_symlinks=False)) for item in items]
            except FileNotFoundError:  # gone since the directory was read
                found = [(item.name, status) for item in items if (status := _still_there(item)) is not None]
        finally:
            os.close(descriptor)
        found.sort(key=_NAME)
        return found, {name for name, status in found if status.st_mode & _FORMAT == stat.S_IFDIR}


def _still_there(item: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return item.stat(follow_symlinks=False)
    except FileNotFoundError:
        return None


def _unreadable(text: str, error: OSError) -> SourceError:
    return SourceError(
        f"cannot read {text} in the build context: {error.strerror}",
        hint="make it readable, or leave it out with a line in .dockerignore",
    )

"""COPY and ADD: where the selected files land, what they replace, and the entries of the layer that makes.

It does what BuildKit does (dockerfile2llb for the destination, fsutil's copier for the walk, docker's untar for
archives), but on entries: trees are read, nothing is written, and neither store nor Dockerfile is known here.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from builder.chmod import MODE_FORMS, Mode, ModeError, parse_mode
from builder.chown import Owner, OwnerError, needs_names, resolve_owner
from builder.errors import BuildError
from builder.facts import Fact, data_of, describe, digest_of, identity, over
from builder.filetree import EmptyTree, FileTree, clean
from builder.selection import (
    DEST,
    FLAGS,
    CopyError,
    CopySpec,
    FileSource,
    Found,
    Item,
    PathSource,
    Selection,
    Source,
    TextSource,
    TreeSource,
    select,
)
from layerstore.entry import Entry, Kind
from layerstore.files import CAPABILITY, capability

if TYPE_CHECKING:
    from builder.unpack import Archive

__all__ = [
    "DEST",
    "FLAGS",
    "CopyError",
    "CopyPlan",
    "CopySpec",
    "FileSource",
    "PathSource",
    "Selection",
    "Source",
    "TextSource",
    "TreeSource",
    "plan_copy",
    "plan_mkdir",
    "select",
]

_MOST_FACTS = 5000
_MOST_LINKS = 40
_DIR_MODE = 0o755
_INODE = attrgetter("inode")


class CopyPlan:
    """The layer that a copy makes; `facts` are all that it depends on in the destination.

    `facts` is None if they are too many to keep, or if the layer holds data of the destination: then it is good for
    this very destination only.
    """

    def __init__(
        self,
        entries: dict[bytes, Entry],
        opaque: set[bytes],
        facts: tuple[Fact, ...] | None,
        archives: Sequence[Archive] = (),
    ) -> None:
        self.facts = facts
        self._entries = entries
        self._opaque = opaque
        self._archives = archives

    def close(self) -> None:
        """Forget what was unpacked; `entries` does so by itself when it ends."""
        for archive in self._archives:
            archive.close()

    def entries(self) -> Iterator[Entry]:
        """Yield the layer's entries sorted by path (a directory before what is in it), each path once.

        Hard links come after the file they repeat. Of extended attributes there are only capabilities, and those
        of directories that the destination already had. Names that are marks of layers are left as they are: whoever
        writes the layer obeys them. What was unpacked of archives can be read once: its data is gone when this ends.
        """
        try:
            yield from self._in_order()
        finally:
            self.close()

    def _in_order(self) -> Iterator[Entry]:
        first: dict[tuple[int, int], bytes] = {}
        entries = self._entries
        ordered = [entries[path] for path in sorted(entries, key=_tree_order)]
        if not self._opaque and not any(map(_INODE, ordered)):
            yield from ordered
            return
        for entry in ordered:
            path = entry.path
            if entry.inode is not None:
                target = first.setdefault(entry.inode, path)
                if target == path:
                    yield entry._replace(inode=None)
                else:
                    yield entry._replace(kind=Kind.HARDLINK, size=0, target=target, inode=None)
                continue
            yield entry
            if path in self._opaque:
                yield Entry(path, Kind.OPAQUE)


def plan_copy(
    spec: CopySpec,
    selection: Selection,
    dest: FileTree | None,
    *,
    created_ns: int = 0,
    spool: str | None = None,
) -> CopyPlan:
    """Plan the copy of `selection` into `dest`, the file system as it was before the step (None: FROM scratch).

    `created_ns` is the time of directories made on the way and of heredocs. `spool` is a host directory for what is
    unpacked of large archives. CopyError for what cannot be replaced, unpacked or owned; nothing is written.
    """
    planner = _Planner(spec, selection, None if spec.independent else dest, created_ns, spool)
    try:
        planner.run()
        return planner.plan()
    except BaseException:
        planner.close()
        raise


def plan_mkdir(path: bytes, user: str, dest: FileTree | None, *, created_ns: int = 0) -> CopyPlan:
    """Plan the directory `path` with its parents, 0755 and owned by `user` (a USER value) where they are new.

    `user` is read as --chown is. A directory that is there already, links followed, makes a layer without entries.
    CopyError if something else is there.
    """
    spec = CopySpec(sources=(), dest=path, chown=user)
    planner = _Planner(spec, select(spec, None), dest, created_ns, None)
    planner.make_destination()
    return planner.plan()


def _tree_order(path: bytes) -> bytes:
    return path.replace(b"/", b"\0")


def destination(spec: CopySpec) -> tuple[bytes, bool]:
    """Return the destination as a cleaned in-image path (links not resolved), and whether it must be a directory."""
    directory = spec.dest in (b"", b".") or spec.dest.endswith((b"/", b"/."))
    path = spec.dest if spec.dest.startswith(b"/") else spec.workdir + b"/" + spec.dest
    return clean(path), directory


class _Planner:
    """Stages entries over the destination, one item after the other: later items see what earlier ones made."""

    def __init__(
        self, spec: CopySpec, selection: Selection, dest: FileTree | None, created_ns: int, spool: str | None
    ) -> None:
        self._spec = spec
        self._selection = selection
        self._scratch = dest is None
        self._dest: FileTree = dest if dest is not None else EmptyTree()
        self._created = created_ns
        self._spool = spool
        self._new: dict[bytes, Entry] = {}
        self._fresh: set[bytes] = set()  # directories below which the destination has nothing
        self._cut: set[bytes] = set()  # directories of the destination that something else took the place of
        self._was: dict[bytes, Entry] = {}  # what the destination has where it was looked at
        self._digests: dict[bytes, bytes] = {}
        self._facts: dict[Fact, None] = {}
        self._links = 0
        self._tied = False  # whether data of the destination got into the layer
        self._archives: list[Archive] = []
        self._mode = self._parse_mode()
        self._owner = self._resolve_owner()
        self._plain = self._mode is None and self._owner is None
        self._made_mode = _DIR_MODE
        if self._mode is not None and self._mode.octal is not None:
            self._made_mode = self._mode.octal & 0o777
        self._path, self._wants_directory = destination(spec)

    def run(self) -> None:
        """Stage every item."""
        for item in self._selection.items:
            source = item.source
            unpack = self._spec.unpack if isinstance(source, PathSource) else self._spec.unpack_remote
            if unpack and not isinstance(source, TextSource) and self._unpack(item):
                continue
            self._copy(item)

    def make_destination(self) -> None:
        """Stage the destination as a directory, unless it is one already."""
        path = self._resolve(self._path)
        there = self._lookup(path, "absent-or-dir")
        if there is None or there.kind is not Kind.DIR:
            self._make_directories(path, mode=self._made_mode, owner=self._owner)

    def close(self) -> None:
        """Forget what was unpacked."""
        for archive in self._archives:
            archive.close()

    def plan(self) -> CopyPlan:
        """Return what was staged."""
        self._drop_unchanged()
        opaque = {path for path in self._cut if (at := self._new.get(path)) is not None and at.kind is Kind.DIR}
        facts = tuple(self._facts) if len(self._facts) <= _MOST_FACTS and not self._tied else None
        return CopyPlan(self._new, opaque, facts, self._archives)

    # Looking at the destination, with what was staged so far over it.

    def _resolve(self, path: bytes) -> bytes:
        found = self._dest.resolve(path)
        if not self._spec.independent:
            self._note("resolve", path, os.fsdecode(found))
        return found

    def _lookup(self, path: bytes, what: str = "entry") -> Entry | None:
        """Return what is at `path`; `what` says how much of it matters."""
        if not path:
            return Entry(b"", Kind.DIR, _DIR_MODE)
        staged = self._new.get(path)
        if staged is not None:
            return staged
        if path.rpartition(b"/")[0] in self._fresh or self._spec.independent:
            return None
        entry = self._dest.lstat(path)
        if entry is not None:
            self._was[path] = entry
        self._note(what, path, describe(what, entry, self._digest))
        return entry

    def _note(self, what: str, path: bytes, answer: str) -> None:
        if len(self._facts) <= _MOST_FACTS:
            self._facts[Fact(what, os.fsdecode(path), answer)] = None

    # What is no change.

    def _drop_unchanged(self) -> None:
        """Leave out what the destination has already, as BuildKit's differ does.

        Of a directory the time does not count: it is a part of the layer if something in it is, or its mode or owner.
        """
        same: list[bytes] = []
        for path, was in self._was.items():
            entry = self._new.get(path)
            if entry is None or (self._cut and any(path.startswith(cut + b"/") for cut in self._cut)):
                continue
            if entry.kind is Kind.DIR:
                if path not in self._cut and identity(entry) == identity(was):
                    same.append(path)
            elif self._is_there(entry, was):
                del self._new[path]
        if same:
            holding = Counter(path.rpartition(b"/")[0] for path in self._new)
            for path in sorted(same, key=len, reverse=True):
                if not holding[path]:
                    del self._new[path]
                    holding[path.rpartition(b"/")[0]] -= 1

    def _is_there(self, entry: Entry, was: Entry) -> bool:
        """Say whether `entry`, which is no directory, is what the destination has at its path."""
        what = over(entry)
        there = describe(what, was, self._digest)
        self._note(what, entry.path, there)
        return there.startswith(identity(entry)) and there == f"{identity(entry)} {data_of(entry, self._digest)}"

    def _digest(self, entry: Entry) -> bytes:
        """Return the sha256 of a file's data, which is read once."""
        source = entry.source
        if not isinstance(source, bytes):
            return digest_of(entry)
        known = self._digests.get(source) or self._selection.data.get(source)
        if known is None:
            known = self._digests[source] = digest_of(entry)
        return known

    # Directories.

    def _make_directories(self, path: bytes, *, mode: int, owner: Owner | None) -> None:
        """Stage `path` and its parents: as they are where they exist, new otherwise."""
        parts = path.split(b"/") if path else []
        above = Entry(b"", Kind.DIR, _DIR_MODE)
        for count in range(1, len(parts) + 1):
            at = b"/".join(parts[:count])
            if at in self._new and self._new[at].kind is Kind.DIR:
                above = self._new[at]
                continue
            there = self._lookup(at)
            if there is None:
                inherited = above.mode & stat.S_ISGID  # as mkdir(2) does
                uid, gid = owner or (0, above.gid if inherited else 0)
                self._new[at] = Entry(at, Kind.DIR, mode | inherited, uid, gid, self._created)
                self._fresh.add(at)
            elif there.kind is Kind.DIR:
                self._new[at] = there._replace(inode=None)
            else:
                fault = (
                    f"lstat /{os.fsdecode(at)}/{os.fsdecode(parts[count])}"
                    if parts[count:]
                    else f"mkdir /{os.fsdecode(at)}"
                )
                raise CopyError(
                    DEST,
                    f"{fault}: not a directory",
                    hint="choose another destination, or remove what is there in a RUN before",
                )
            above = self._new[at]

    # Plain copies.

    def _copy(self, item: Item) -> None:
        target = self._landing(item)
        if item.entry.kind is not Kind.DIR:
            made = isinstance(item.source, TextSource)
            self._put_file(item.entry._replace(mtime_ns=self._created) if made else item.entry, target, links={})
            return
        there = self._lookup(target, "entry")
        if there is not None and there.kind is not Kind.DIR:
            raise self._not_a_directory(item, target)
        if target:
            # What existed there keeps its mode and owner; the time is the source's. A tree's root has none to give.
            mtime = item.entry.mtime_ns if item.entry.path else self._created
            self._new[target] = self._new[target]._replace(mtime_ns=mtime)
        prefix = target + b"/" if target else b""
        links: dict[tuple[int, int], tuple[int, int]] = {}
        new, fresh = self._new, self._fresh
        for found in self._selection.walk(item):
            rel, entry, _ = found
            at = prefix + rel
            if entry.kind is Kind.DIR:
                self._put_directory(item, found, at)
            elif entry.inode is None and at not in new and at.rpartition(b"/")[0] in fresh:
                new[at] = self._dressed(entry, at)  # nearly all there is: nothing can be there
            else:
                self._put_file(entry, at, links=links, item=item)

    def _landing(self, item: Item) -> bytes:
        """Return the path that `item` becomes, with its parents staged."""
        parent = self._path if self._wants_directory else self._path.rpartition(b"/")[0]
        self._make_directories(self._resolve(parent), mode=self._made_mode, owner=self._owner)
        target = self._resolve(self._path)
        there = self._lookup(target, "entry")
        directory = item.entry.kind is Kind.DIR
        if not directory and there is not None and there.kind is Kind.DIR:
            target = target + b"/" + item.name if target else item.name
        top = target if directory and (there is None or there.kind is Kind.DIR) else target.rpartition(b"/")[0]
        self._make_directories(top, mode=self._made_mode, owner=self._owner)
        return target

    def _put_directory(self, item: Item, found: Found, at: bytes) -> None:
        """Stage a directory met in a walk: new or merged with the one that is there."""
        source = found.entry
        there = self._lookup(at)
        if there is not None and there.kind is not Kind.DIR:
            raise self._not_a_directory(item, at)
        if there is None:
            self._new[at] = self._dressed(source, at)
            self._fresh.add(at)
        elif found.direct:
            self._new[at] = self._dressed(source, at)._replace(xattrs=there.xattrs)
        else:
            # Only passed through on the way to something that --parents takes: its owner stays.
            self._new[at] = there._replace(mode=source.mode, inode=None)

    def _put_file(
        self,
        source: Entry,
        at: bytes,
        *,
        links: dict[tuple[int, int], tuple[int, int]],
        item: Item | None = None,
    ) -> None:
        """Stage anything but a directory; it replaces whatever is there but a directory."""
        if not self._selection.asked and source.kind is Kind.FILE and isinstance(source.source, bytes):
            source = source._replace(xattrs=capability(source.source))  # what is there is compared with it
        there = self._lookup(at, over(source))
        if there is not None and there.kind is Kind.DIR:
            raise CopyError(
                DEST if item is None else _word(item),
                f"cannot replace to directory /{os.fsdecode(at)} with file",
                hint="remove the directory in a RUN before, or copy elsewhere",
            )
        entry = self._dressed(source, at)
        if source.inode is not None and source.kind is Kind.FILE:
            token = links.get(source.inode)
            if token is None:
                token = links[source.inode] = self._link_token()
            entry = entry._replace(inode=token)
        self._new[at] = entry

    def _link_token(self) -> tuple[int, int]:
        """Return a mark for one file of several names: links are kept inside one item, so host inodes are no use."""
        self._links += 1
        return (0, self._links)

    def _dressed(self, source: Entry, at: bytes) -> Entry:
        """Return `source` at its new path, with --chown and --chmod applied."""
        if self._plain and not source.xattrs and source.kind is not Kind.BLOCK:
            return tuple.__new__(Entry, (at, *source[1:-1], None))
        _path, kind, mode, uid, gid, mtime, size, target, rdev, xattrs, data, _inode = source
        if self._owner is not None:
            uid, gid = self._owner
        if self._mode is not None and kind is not Kind.SYMLINK:
            mode = self._mode.apply(mode, directory=kind is Kind.DIR)
        if kind is Kind.BLOCK:
            kind = Kind.CHAR  # what the reference makes of them: its copier takes the bits of a socket from all nodes
        if xattrs:
            xattrs = tuple(pair for pair in xattrs if pair[0] == CAPABILITY)
        return Entry(at, kind, mode, uid, gid, mtime, size, target, rdev, xattrs, data)

    def _not_a_directory(self, item: Item, at: bytes) -> CopyError:
        return CopyError(
            _word(item),
            f"cannot copy to non-directory: /{os.fsdecode(at)}",
            hint="remove what is there in a RUN before, or copy elsewhere",
        )

    # Archives.

    def _unpack(self, item: Item) -> bool:
        """Stage the members of `item` if it is an archive; return whether it is one."""
        host = item.entry.source
        if item.entry.kind is not Kind.FILE or not isinstance(host, bytes) or not item.entry.size:
            return False
        from builder.unpack import Archive, ArchiveError, is_archive  # noqa: PLC0415 - needed for archives only

        try:
            if not is_archive(host):
                return False
        except OSError as error:
            raise CopyError(_word(item), f"cannot read {os.fsdecode(item.name)}: {error.strerror}") from error
        base = self._resolve(self._path)
        self._make_directories(base, mode=_DIR_MODE, owner=self._owner)
        archive = Archive(host, spool=self._spool)
        self._archives.append(archive)
        try:
            for member in archive.members():
                self._put_member(member, base)
        except ArchiveError as error:
            message = f"cannot unpack {os.fsdecode(item.name)}: {error.message}"
            raise CopyError(_word(item), message, hint=error.hint) from error
        return True

    def _put_member(self, member: Entry, base: bytes) -> None:
        """Stage one member: a directory merges with a directory, anything else replaces what is there."""
        at = self._below(base, member.path)
        there = self._lookup(at, "entry" if member.kind is Kind.DIR else over(member))
        merge = there is not None and there.kind is Kind.DIR and member.kind is Kind.DIR
        if there is not None and not merge:
            self._take_away(at, there)
        uid, gid = self._owner or (member.uid, member.gid)
        if member.kind is Kind.HARDLINK:
            self._put_link(member, at, self._below(base, member.target))
            return
        xattrs = there.xattrs if merge and there is not None else member.xattrs
        self._new[at] = member._replace(path=at, uid=uid, gid=gid, xattrs=xattrs)
        if member.kind is Kind.DIR and not merge:
            self._fresh.add(at)

    def _put_link(self, member: Entry, at: bytes, target: bytes) -> None:
        """Stage another name for `target`, which may be a file of the destination: that is then part of the layer."""
        there = self._lookup(target, "entry") if target != at else None
        if there is None or there.kind is Kind.DIR:
            raise _archive_error(
                f"link /{os.fsdecode(target)} /{os.fsdecode(at)}: "
                f"{'no such file or directory' if there is None else 'operation not permitted'}"
            )
        self._tied = self._tied or target not in self._new
        uid, gid = self._owner or (member.uid, member.gid)
        # The reference sets owner, mode and time of the link too, and so of what it is a link to.
        if there.kind is not Kind.SYMLINK:
            there = there._replace(mode=member.mode, mtime_ns=member.mtime_ns)
        if target not in self._new or there.inode is None:
            there = there._replace(inode=self._link_token())
        there = there._replace(uid=uid, gid=gid)
        for name, entry in list(self._new.items()):
            if there.inode is not None and entry.inode == there.inode:
                self._new[name] = there._replace(path=name)
        self._stage_parents(target)
        self._new[target] = there._replace(path=target)
        self._new[at] = there._replace(path=at)

    def _below(self, base: bytes, path: bytes) -> bytes:
        """Return where a member's `path` is: links among its parents are followed with `base` as the root.

        Parents that the archive does not have are made, as root's.
        """
        *parents, name = path.split(b"/")
        todo = parents[::-1]
        done: list[bytes] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in (b"", b".", b".."):
                if part == b"..":
                    del done[-1:]
                continue
            at = b"/".join((*([base] if base else []), *done, part))
            there = self._lookup(at)
            if there is None:
                self._new[at] = Entry(at, Kind.DIR, _DIR_MODE, mtime_ns=self._created)
                self._fresh.add(at)
            elif there.kind is Kind.SYMLINK:
                links += 1
                if links > _MOST_LINKS:
                    raise _archive_error(f"too many links in the path of {os.fsdecode(path)}")
                if there.target.startswith(b"/"):
                    done.clear()
                todo += there.target.split(b"/")[::-1]
                continue
            elif there.kind is not Kind.DIR:
                raise _archive_error(f"mkdir /{os.fsdecode(at)}: not a directory")
            elif at not in self._new:
                self._new[at] = there._replace(inode=None)
            done.append(part)
        return b"/".join((*([base] if base else []), *done, name))

    def _stage_parents(self, path: bytes) -> None:
        self._make_directories(path.rpartition(b"/")[0], mode=_DIR_MODE, owner=None)

    def _take_away(self, at: bytes, there: Entry) -> None:
        """Remove what is at `at`, staged or of the destination, with all that is below it."""
        if there.kind is not Kind.DIR:
            return
        if at not in self._fresh or at in self._cut:
            self._cut.add(at)
        prefix = at + b"/"
        for path in [path for path in self._new if path.startswith(prefix)]:
            del self._new[path]
        self._fresh = {path for path in self._fresh if not path.startswith(prefix)}

    # Flags.

    def _parse_mode(self) -> Mode | None:
        try:
            return parse_mode(self._spec.chmod) if self._spec.chmod else None
        except ModeError as error:
            raise CopyError(FLAGS, str(error), hint=MODE_FORMS) from error

    def _resolve_owner(self) -> Owner | None:
        chown = self._spec.chown
        if not chown:
            return None
        try:
            owner = resolve_owner(chown, None if self._scratch else self._dest)
        except OwnerError as error:
            hint = "there is no passwd or group file to look a name up in; give numeric IDs: --chown=1000:1000"
            raise CopyError(FLAGS, str(error), hint=hint if "index" in str(error) else "") from error
        if needs_names(chown) and not self._scratch:
            self._facts[Fact("owner", chown, f"{owner.uid}:{owner.gid}")] = None
        return owner


def _word(item: Item) -> int:
    return item.source.word


def _archive_error(message: str) -> BuildError:
    from builder.unpack import ArchiveError  # noqa: PLC0415 - needed for archives only

    return ArchiveError(message)

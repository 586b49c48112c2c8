"""What the tests of copies share: trees as records, layers written for real, and Dockerfiles done without a builder."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from builder.context import LocalContext
from builder.copy import CopySpec, PathSource, TextSource, plan_copy, plan_mkdir, select
from builder.dockerignore import IgnoreFile, find_ignore_file
from builder.facts import facts_hold
from builder.filetree import FileTree
from builder.selection import Source, children
from grammar import Add, Arg, Copy, Env, From, Run, ShellForm, User, Word, Workdir, expand, expand_heredoc, parse
from layerstore.changes import scan
from layerstore.digest import DiffId
from layerstore.entry import Entry, Kind
from layerstore.join import join
from layerstore.store import Store
from layerstore.treewrite import TreeWriter
from layerstore.view import View

Record = dict[str, Any]
CREATED = 1_700_000_000_000_000_000
_TYPES = {
    Kind.FILE: "file",
    Kind.DIR: "dir",
    Kind.SYMLINK: "symlink",
    Kind.CHAR: "char",
    Kind.BLOCK: "block",
    Kind.FIFO: "fifo",
}


def records(tree: FileTree) -> dict[str, Record]:
    """Describe every path of `tree` as the cases do."""
    found: dict[str, Record] = {}
    links: dict[tuple[int, int], str] = {}
    for entry in _everything(tree, b""):
        path = "/" + os.fsdecode(entry.path)
        first = links.setdefault(entry.inode, path) if entry.inode is not None else path
        found[path] = _record(entry) if first == path else {"type": "file", "hardlink_to": first}
    return found


def _everything(tree: FileTree, path: bytes) -> Iterator[Entry]:
    for entry in children(tree, path):
        yield entry
        if entry.kind is Kind.DIR:
            yield from _everything(tree, entry.path)


def _record(entry: Entry) -> Record:
    record: Record = {"type": _TYPES[entry.kind]}
    if entry.kind is not Kind.SYMLINK:
        record["mode"] = f"{entry.mode:04o}"
    record |= {"uid": entry.uid, "gid": entry.gid}
    if entry.kind is Kind.FILE:
        assert isinstance(entry.source, bytes)
        data = Path(os.fsdecode(entry.source)).read_bytes()
        record |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    elif entry.kind is Kind.SYMLINK:
        record["target"] = os.fsdecode(entry.target)
    elif entry.kind in (Kind.CHAR, Kind.BLOCK):
        record["dev"] = f"{entry.rdev[0]}:{entry.rdev[1]}"
    if entry.xattrs:
        record["xattrs"] = {os.fsdecode(key): "hex:" + value.hex() for key, value in entry.xattrs}
    return record | {"mtime": entry.mtime_ns // 1_000_000_000}


@dataclass
class Stage:
    """A file system that steps are done on: `layers` lowest first; none at all is scratch. `base` is its image's."""

    layers: list[DiffId] = field(default_factory=list)
    base: tuple[DiffId, ...] = ()
    workdir: str = "/"
    user: str = ""
    env: dict[str, str] = field(default_factory=dict)


class Dockerfile:
    """Does FROM, ARG, ENV, USER, WORKDIR, RUN (in a chroot), COPY and ADD; every layer goes through the store."""

    def __init__(
        self,
        store: Store,
        base: DiffId,
        context: Path,
        file: str = "Dockerfile",
        named: Mapping[str, Path] | None = None,
    ) -> None:
        self._store = store
        path = context / file
        own = find_ignore_file(context, path)
        ignore = IgnoreFile(own.read_bytes(), name=own.name) if own is not None else None
        self._context = LocalContext(context, ignore)
        self._named = named or {}
        self._stages: list[Stage] = []
        self._names: dict[str, Stage] = {name: Stage([base], (base,)) for name in ("busybox", "busybox:latest")}
        self._ast = parse(path.read_bytes())

    def run(self) -> Stage:
        """Do every instruction of every stage; return the last stage."""
        for instruction in self._ast.instructions:
            stage = self._stages[-1] if self._stages else Stage()
            match instruction:
                case From():
                    self._from(instruction)
                case Arg(pairs=args):
                    stage.env |= {arg.name.text: text(arg.value, stage) for arg in args if arg.value is not None}
                case Env(pairs=pairs):
                    stage.env |= {pair.key.text: text(pair.value, stage) for pair in pairs}
                case User(name=name):
                    stage.user = text(name, stage)
                case Workdir(path=path):
                    stage.workdir = os.path.normpath(os.path.join(stage.workdir, text(path, stage)))
                    self._make_workdir(stage)
                case Run():
                    self._run(stage, instruction)
                case Copy() | Add():
                    self._copy(stage, instruction)
                case _:
                    raise AssertionError(f"no case of copies has {instruction.keyword}")
        return self._stages[-1]

    def view(self, stage: Stage) -> View:
        """Return the file system of `stage`."""
        return self._store.layers.view(stage.layers)

    def _from(self, instruction: From) -> None:
        name = instruction.image.text
        if name == "scratch":
            stage = Stage()
        else:
            origin = self._names[name]
            stage = Stage([*origin.layers], origin.base, origin.workdir, origin.user)
        self._stages.append(stage)
        self._names[str(len(self._stages) - 1)] = stage
        if instruction.name is not None:
            self._names[instruction.name.text.lower()] = stage

    def _copy(self, stage: Stage, instruction: Copy | Add) -> None:
        spec = spec_of(instruction, stage)
        dest = self.view(stage) if stage.layers else None
        plan = plan_copy(spec, select(spec, self._tree(instruction)), dest, created_ns=CREATED)
        assert facts_hold(plan.facts, dest)
        stage.layers.append(self._store.layers.write(plan.entries()).diff_id)

    def _tree(self, instruction: Copy | Add) -> FileTree:
        if isinstance(instruction, Add) or instruction.from_ is None:
            return self._context
        origin = instruction.from_.text
        if origin not in self._named:
            return self.view(self._names[origin.lower()])
        own = self._named[origin] / ".dockerignore"
        return LocalContext(self._named[origin], IgnoreFile(own.read_bytes()) if own.exists() else None)

    def _change(self, stage: Stage, change: Callable[[Path], object]) -> None:
        """Let `change` work on the file system of `stage` as a directory; what results is its only layer."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder, "root")
            root.mkdir(mode=0o755)
            with TreeWriter(os.fsencode(root)) as writer:
                for layer in stage.layers:
                    tree = os.fsencode(self._store.layers.tree(layer))
                    join(scan(tree), None, writer)
                writer.finish()
            change(root)
            stage.layers = [self._store.layers.write(scan(os.fsencode(root))).diff_id]

    def _run(self, stage: Stage, instruction: Run) -> None:
        assert isinstance(instruction.command, ShellForm)
        command = ["/bin/sh", "-ec", f"cd -P {stage.workdir}\n{instruction.command.text}"]
        self._change(
            stage,
            lambda root: subprocess.run(
                ["/usr/sbin/chroot", root, *command], check=True, env={"PATH": "/bin"}, stdout=subprocess.DEVNULL
            ),
        )

    def _make_workdir(self, stage: Stage) -> None:
        dest = self.view(stage) if stage.layers else None
        plan = plan_mkdir(os.fsencode(stage.workdir), stage.user, dest, created_ns=CREATED)
        assert facts_hold(plan.facts, dest)
        stage.layers.append(self._store.layers.write(plan.entries()).diff_id)


def spec_of(instruction: Copy | Add, stage: Stage) -> CopySpec:
    """Return what `instruction` asks for, expanded with the stage's variables."""
    sources: list[Source] = [
        PathSource(os.fsencode(text(word, stage)), index) for index, word in enumerate(instruction.sources)
    ]
    for heredoc in instruction.heredocs:
        content = re.sub("^\t+", "", heredoc.content, flags=re.MULTILINE) if heredoc.chomp else heredoc.content
        body = expand_heredoc(content, stage.env).text if heredoc.expand else content
        sources.append(TextSource(os.fsencode(heredoc.name), body.encode()))
    return CopySpec(
        sources=tuple(sources),
        dest=os.fsencode(text(instruction.destination, stage)),
        workdir=os.fsencode(stage.workdir),
        chown=text(instruction.chown, stage) if instruction.chown else "",
        chmod=text(instruction.chmod, stage) if instruction.chmod else "",
        link=bool(instruction.link),
        parents=isinstance(instruction, Copy) and bool(instruction.parents),
        exclude=tuple(word.text for word in instruction.excludes),
        unpack=isinstance(instruction, Add) and instruction.unpack is not False,
    )


def text(word: Word, stage: Stage) -> str:
    """Return `word` expanded."""
    return expand(word.text, stage.env).text

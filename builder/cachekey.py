"""What a cache key is made of: one traversal lists the ingredients, for the hasher and for the explainer.

An ingredient is a pair (name, value), both text. `definition` lists what is written in an operation; `ingredients` adds
what its inputs were found to be. Nothing else counts for a key (docs/design.md, "Cache").
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import assert_never

from builder.filetree import clean
from builder.ops import (
    BindMount,
    CacheMount,
    ContextOp,
    CopyOp,
    GitOp,
    ImageOp,
    MkdirOp,
    Op,
    OpMount,
    RunOp,
    ScratchOp,
    SecretMount,
    SshMount,
    TmpfsMount,
)
from builder.selection import CopySpec, FileSource, PathSource, TextSource, TreeSource
from layerstore.digest import CacheKey

FORMAT = "2"
"""Counted up when the meaning of an ingredient or of a result changes: records of another format are not found."""

Ingredient = tuple[str, str]


def definition(op: Op) -> Iterator[Ingredient]:
    """Yield what `op` says, in a fixed order."""
    match op:
        case ImageOp():
            yield "op", "image"
            yield "layers", " ".join(op.layers)
            yield "platform", op.platform
        case ScratchOp():
            yield "op", "scratch"
        case ContextOp():
            yield "op", "context"
            yield "name", op.name
        case GitOp():
            yield "op", "git"
            for name in GitOp.record_fields:
                yield name, str(getattr(op, name))
        case CopyOp():
            yield "op", "copy"
            yield from _copy(op)
        case MkdirOp():
            yield "op", "mkdir"
            yield "path", "/" + os.fsdecode(clean(os.fsencode(op.path)))
            yield "user", op.user
        case RunOp():
            yield "op", "run"
            yield from _run(op)
        case _:
            assert_never(op)


def ingredients(op: Op, inputs: Sequence[Ingredient], extra: Mapping[str, str] | None = None) -> tuple[Ingredient, ...]:
    """List all that counts for the result of `op`: its definition, what its `inputs` are, and `extra` facts."""
    return (("format", FORMAT), *definition(op), *inputs, *sorted((extra or {}).items()))


def key_of(listed: Sequence[Ingredient]) -> CacheKey:
    """Return the digest of an ingredient list. Lengths are part of it, so no two lists run into one another."""
    state = hashlib.sha256()
    for name, value in listed:
        data = value.encode("utf-8", "surrogateescape")
        state.update(f"{len(name)}:{name}{len(data)}:".encode())
        state.update(data)
    return CacheKey("sha256:" + state.hexdigest())


def differences(before: Sequence[Ingredient], after: Sequence[Ingredient]) -> list[str]:
    """Say in words how two ingredient lists differ; the explainer's side of the traversal."""
    old, new = dict(before), dict(after)
    words = [f"{name}: {old[name]} → {new[name]}" for name in new if name in old and old[name] != new[name]]
    words += [f"{name}: {new[name]} (new)" for name in new if name not in old]
    words += [f"{name}: {old[name]} (gone)" for name in old if name not in new]
    return words


def _copy(op: CopyOp) -> Iterator[Ingredient]:
    spec = op.spec
    for at, source in enumerate(spec.sources):
        match source:
            case PathSource():
                path = source.path if spec.parents else clean(source.path)
                yield f"source {at}", path.decode("utf-8", "surrogateescape")
            case TextSource():
                yield f"source {at}", "heredoc " + source.name.decode("utf-8", "surrogateescape")
                yield f"content {at}", hashlib.sha256(source.data).hexdigest()
            case FileSource():
                yield f"source {at}", "file " + source.name.decode("utf-8", "surrogateescape")
                yield f"time {at}", str(source.mtime_ns)
            case TreeSource():
                yield f"source {at}", f"all of input {source.input}"
            case _:
                assert_never(source)
    for at, remote in enumerate(op.remotes):
        yield f"remote {at}", remote.url
        yield f"place {at}", str(remote.word)
        yield f"checksum {at}", remote.checksum or ""
    yield "destination", _destination(spec).decode("utf-8", "surrogateescape")
    yield "chown", spec.chown
    yield "chmod", f"{int(spec.chmod, 8):o}" if spec.chmod.isdecimal() else spec.chmod
    yield "options", f"link={spec.link} parents={spec.parents} unpack={spec.unpack},{spec.unpack_remote}"
    for at, pattern in enumerate(spec.exclude):
        yield f"exclude {at}", pattern


def _destination(spec: CopySpec) -> bytes:
    """Where a copy goes, however that is written; what has to be a directory ends with a slash."""
    dest = spec.dest if spec.dest.startswith(b"/") else spec.workdir + b"/" + spec.dest
    directory = spec.dest.rpartition(b"/")[2] in (b"", b".")
    return b"/" + clean(dest) + (b"/" if directory else b"")


def _run(op: RunOp) -> Iterator[Ingredient]:
    for at, word in enumerate(op.args):
        yield f"argument {at}", word
    for pair in op.env:
        name, _, value = pair.partition("=")
        yield f"env {name}", value
    yield "cwd", op.cwd
    yield "user", op.user
    yield "network", op.network
    yield "security", op.security
    yield "hostname", op.hostname
    yield "hosts", " ".join(name for name, _ in op.extra_hosts)
    yield "shm size", str(op.shm_size)
    yield "ulimits", " ".join(op.ulimits)
    yield "platform", op.platform
    for name, data in op.scripts:
        yield f"script {name}", hashlib.sha256(data).hexdigest()
    for at, mount in enumerate(op.mounts):
        yield f"mount {at}", _mount(mount)
    for at, device in enumerate(op.devices):
        yield f"device {at}", f"{device.name} {'required' if device.required else 'optional'}"


def _mount(mount: OpMount) -> str:
    match mount:
        case BindMount():
            return f"bind {mount.target} from input {mount.input} {mount.source}{_ro(mount.read_only)}"
        case CacheMount():
            kept = f"{mount.id} {mount.mode:o} {mount.uid}:{mount.gid}"
            return f"cache {mount.target}{_ro(mount.read_only)} {kept}"
        case TmpfsMount():
            return f"tmpfs {mount.target} {mount.size}"
        case SecretMount():
            file = f"{mount.target or ''} {mount.mode:o} {mount.uid}:{mount.gid}"
            return f"secret {mount.id} {file} {mount.env or ''}"
        case SshMount():
            return f"ssh {mount.id} {mount.target}"
        case _:
            assert_never(mount)


def _ro(read_only: bool) -> str:  # noqa: FBT001 - a field, passed on
    return " ro" if read_only else " rw"

"""The operations a build is made of: frozen values that say what is to be done, never how.

Instructions that change only metadata are no operations: they are edits of the image config made while planning, and
can invalidate nothing. Every value here is part of a cache key (`builder/cachekey.py`) unless its docstring says
otherwise.
"""

from __future__ import annotations

from pathlib import Path

from builder.selection import CopySpec
from grammar.record import Record, field
from layerstore.digest import DiffId


class ImageOp(Record):
    """The layers of an image that is in the store; `reference` is for people."""

    reference: str
    layers: tuple[DiffId, ...]
    platform: str


class ScratchOp(Record):
    """Nothing: the empty root file system."""


class ContextOp(Record):
    """A local directory by the name it has in this build; it yields a file tree, not layers."""

    name: str
    root: Path


class RemoteFile(Record):
    """A file to fetch by HTTP(S) and to copy as `name`, with the digest it must have, if one was given.

    `word` is its place among the instruction's words.
    """

    url: str
    name: bytes
    word: int = 0
    checksum: str | None = None


class GitOp(Record):
    """The files of a commit of a git repository; it yields one layer.

    `ref` is a branch, a tag or a commit, empty for the default branch; `subdir` an in-image path. `checksum` is the
    beginning of the commit that it must be, and with `fetch_by_commit` all of it, whatever `ref` points at. `mtime` is
    "checkout" or "commit".
    """

    remote: str
    ref: str = ""
    subdir: str = ""
    checksum: str = ""
    keep_git_dir: bool = False
    submodules: bool = True
    mtime: str = "checkout"
    fetch_by_commit: bool = False


class CopyOp(Record):
    """COPY or ADD: `spec` says what goes where, `remotes` are downloaded and copied among the sources of `spec`.

    Once downloaded they are sources of `spec` themselves, so a cache key has their content and not their URL.

    Its inputs are the parent, then what the path sources are in, if there are any, and what tree sources name.
    """

    spec: CopySpec
    remotes: tuple[RemoteFile, ...] = ()


class MkdirOp(Record):
    """WORKDIR: a directory with its parents, owned by `user` (an USER value, resolved in the parent) where made."""

    path: str
    user: str


class BindMount(Record):
    """`source` below the root of input `input` (an index into the vertex's inputs), bound at `target`."""

    target: str
    source: str
    input: int
    read_only: bool


class CacheMount(Record):
    """A directory that outlives the build; what it holds does not count for the key.

    A fresh one is a copy of `source` in input `input`, or empty with `mode`, `uid` and `gid` if that is None.
    """

    target: str
    id: str
    sharing: str
    mode: int
    uid: int
    gid: int
    read_only: bool
    input: int | None = None
    source: str = ""


class TmpfsMount(Record):
    """An empty file system in memory; `size` in bytes, 0 is the kernel's default."""

    target: str
    size: int


class SecretMount(Record):
    """A secret as a file (`target`), a variable (`env`) or both. The value never counts for a key."""

    id: str
    target: str | None
    env: str | None
    required: bool
    mode: int
    uid: int
    gid: int


class SshMount(Record):
    """The socket of a key agent of the caller's."""

    id: str
    target: str
    required: bool
    mode: int
    uid: int
    gid: int


OpMount = BindMount | CacheMount | TmpfsMount | SecretMount | SshMount


class DeviceRequest(Record):
    """Devices of the host by name (CDI): VENDOR/CLASS[=NAME]; a step may do without those that are not `required`.

    The name counts for a key; what it means on this machine does not.
    """

    name: str
    required: bool


class RunOp(Record):
    """RUN. Its first input is the parent; bind and cache mounts name further ones.

    `env` is what the process gets, `NAME=value` in order. `proxies` are given to the process too but never count.
    `scripts` are executables that appear read-only below /dev/pipes. `extra_hosts` are (name, address): the names
    count.
    """

    args: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    mounts: tuple[OpMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    hostname: str = "buildkitsandbox"
    extra_hosts: tuple[tuple[str, str], ...] = ()
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    scripts: tuple[tuple[str, bytes], ...] = ()
    platform: str = ""
    devices: tuple[DeviceRequest, ...] = ()
    proxies: tuple[str, ...] = field(default=(), compare=False)


Op = ImageOp | ScratchOp | ContextOp | GitOp | CopyOp | MkdirOp | RunOp

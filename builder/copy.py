"""COPY and ADD: what is copied, where it lands, and the entries of the layer that makes.

It follows what BuildKit does (dockerfile2llb for the destination, fsutil's copier for the walk, docker's untar for
archives). It reads trees and makes entries; it writes nothing and knows neither store nor Dockerfile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from builder.errors import BuildError
from builder.filetree import FileTree
from layerstore.digest import Digest
from layerstore.entry import Entry


class PathSource(NamedTuple):
    """A path or wildcard in the source tree, expanded, as written; `word` is its place among the instruction's words."""

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


Source = PathSource | TextSource | FileSource


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySpec:
    """One COPY or ADD with everything expanded; frozen, its fields are what the cache key lists.

    `dest` as written, `workdir` absolute or relative to the root. `chown` and `chmod` as written, empty for none.
    `unpack`: whether local archives among the path sources are unpacked and downloaded ones as well (None is the
    default of ADD: local ones only; COPY is False).
    """

    sources: tuple[Source, ...]
    dest: bytes
    workdir: bytes = b""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool | None = False

    @property
    def independent(self) -> bool:
        """Whether the layer does not depend on the image below it: --link, which --chmod turns into a plain copy."""
        return self.link and not self.chmod


class CopyError(BuildError):
    """A copy that cannot be done; `word` is the index of the word at fault (-1 is the destination, -2 a flag)."""

    def __init__(self, word: int, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.word = word


class Fact(NamedTuple):
    """One thing that was looked up in the destination: `what` ("entry", "link", "names"), its path, and the answer."""

    what: str
    path: bytes
    answer: str


class CopyPlan:
    """What a copy will do; `facts` are all that it depends on in the destination."""

    facts: tuple[Fact, ...]

    def entries(self) -> Iterator[Entry]:
        """Yield the layer's entries, parents before children; CopyError for what cannot be replaced or read."""
        raise NotImplementedError


class Selection:
    """What the path sources of a spec select in a tree."""

    def digest(self, files: object) -> Digest:
        """Return the digest of the selected content."""
        raise NotImplementedError


def select(spec: CopySpec, tree: FileTree) -> Selection:
    """Find the sources of `spec` in `tree`; CopyError for what is missing."""
    raise NotImplementedError


def plan_copy(spec: CopySpec, selection: Selection, dest: FileTree | None, *, created_ns: int = 0) -> CopyPlan:
    """Plan the copy of `selection` into `dest` (None: scratch); `created_ns` is the time of directories made on the way."""
    raise NotImplementedError


def facts_hold(facts: tuple[Fact, ...], dest: FileTree | None) -> bool:
    """Say whether `dest` answers every fact as it was answered then, so that the layer made then can be used again."""
    raise NotImplementedError

"""Build contexts that are fetched before a build can be planned, since their Dockerfile is in them: git and HTTP(S).

A context becomes layers, which the build then reads like those of an image. What is fetched is shown as a vertex. Which
references are remote is BuildKit's (dockerui, `initContext`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from builder.build import UNDATED_NS
from builder.errors import UsageError
from builder.events import Progress, VertexId
from builder.execute import Executor, Remotes
from builder.git import Git
from builder.gitreference import GitReferenceError, parse_git_reference, shown_remote
from builder.graph import Graph, Vertex, vertex_id
from builder.ops import CopyOp, GitOp, Op, RemoteFile, ScratchOp
from builder.plan import FetchedContext, FileContext, GitContext
from builder.repositories import Repositories
from builder.selection import CopySpec
from builder.solve import Result, Solver
from builder.steps import basename, git_op
from layerstore import Store

if TYPE_CHECKING:
    from builder.remote import Downloads
    from builder.runstep import RunSteps
    from layerstore import View

FILE = b"context"
"""What a file that is no archive is called in its context, as BuildKit has it."""


class Access(NamedTuple):
    """What remote sources are reached with: see `builder.build.BuildOptions`."""

    secrets: Mapping[str, bytes]
    ssh: Mapping[str, Path]
    proxies: Mapping[str, str]
    environ: Mapping[str, str]


class Fetched(NamedTuple):
    """A context that is here, with its files; `text` is the Dockerfile if that is all there is."""

    context: FetchedContext
    tree: View
    text: bytes | None


def is_remote(text: str) -> bool:
    """Say whether a context argument names something to fetch; UsageError for a git URL that means nothing."""
    return _is_url(text) or _git(text, keep_git_dir=False) is not None


def named_context(text: str) -> GitContext | FileContext | None:
    """Return what the value of --build-context names if that is remote; UsageError."""
    git = _git(text, keep_git_dir=False)
    if git is not None:
        return GitContext(reference=text, op=git)
    if _is_url(text):
        return FileContext(file=RemoteFile(url=text, name=basename(text)))
    return None


def fetch_context(
    store: Store, text: str, *, access: Access, keep_git_dir: bool, progress: Progress, clock: Callable[[], float]
) -> Fetched:
    """Fetch the main context `text`, of which `is_remote` is true; BuildError, StoreError.

    A repository is checked out, an archive unpacked, and anything else is taken for a Dockerfile. The caller holds a
    lease. `clock` gives seconds since the epoch.
    """
    git = _git(text, keep_git_dir=keep_git_dir)
    downloads = _downloads(store, access)
    repositories = Repositories(store, Git(environ=access.environ, secrets=access.secrets, agents=access.ssh), clock)
    file = RemoteFile(url=text, name=FILE)
    shown = shown_remote(text)
    if git is not None:
        vertex = _vertex(git, "[internal] load git source " + shown)
    else:
        spec = CopySpec(sources=(), dest=b"/", unpack_remote=True)
        op = CopyOp(spec=spec, remotes=(file,))
        vertex = _vertex(op, "[internal] load remote build context", _vertex(ScratchOp(), ""))
    executor = Executor(
        store,
        {},
        steps=_no_steps,
        remotes=Remotes(lambda: downloads, lambda: repositories),
        clock=clock,
        wants_tree=frozenset({vertex.id}),
        created_ns=UNDATED_NS,
    )
    try:
        (result,) = Solver(executor, progress, clock).solve(Graph(), vertex)
    finally:
        executor.close()()
    return _of_git(store, shown, git, repositories, result) if git else _of_file(store, shown, file, downloads, result)


def _of_git(store: Store, shown: str, op: GitOp, repositories: Repositories, result: Result) -> Fetched:
    checkout = repositories.fetch(op)
    context = FetchedContext(reference=shown, layers=result.layers, time_ns=checkout.committed_ns)
    return Fetched(context, store.layers.view(result.layers), None)


def _of_file(store: Store, shown: str, file: RemoteFile, downloads: Downloads, result: Result) -> Fetched:
    from builder.epoch import time_of_file  # noqa: PLC0415 - only for contexts that are files
    from builder.unpack import is_archive  # noqa: PLC0415

    download = downloads.fetch(file, lambda _current, _total: None)
    text = None if is_archive(os.fsencode(download.file)) else download.file.read_bytes()
    context = FetchedContext(reference=shown, layers=result.layers, time_ns=time_of_file(download))
    return Fetched(context, store.layers.view(result.layers), text)


def _is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


def _git(text: str, *, keep_git_dir: bool) -> GitOp | None:
    try:
        reference = parse_git_reference(text, github=True)
    except GitReferenceError as error:
        raise UsageError(f"{shown_remote(text)}: {error}", hint="correct the URL") from error
    return None if reference is None else git_op(reference, keep_git_dir=keep_git_dir or bool(reference.keep_git_dir))


def _vertex(op: Op, name: str, *inputs: Vertex) -> Vertex:
    return Vertex(id=VertexId(vertex_id(op, inputs)), op=op, inputs=inputs, name=name)


def _downloads(store: Store, access: Access) -> Downloads:
    from builder.remote import Downloads  # noqa: PLC0415 - contexts from git speak no HTTP of ours

    return Downloads(store, secrets=access.secrets, proxies=access.proxies)


def _no_steps() -> RunSteps:
    raise AssertionError("BUG: a context that is fetched runs nothing")

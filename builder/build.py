"""One build from start to end: Dockerfile, plan, solve, image, outputs. What a Python program calls, and what the
command does.

It is told everything: paths, clock, registries, secrets. Nothing here reads the environment.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import grammar
from builder.cachekey import key_of
from builder.context import LocalContext
from builder.dockerignore import IgnoreFile, find_ignore_file
from builder.errors import BuildError, LocatedError, Refused, UsageError
from builder.events import Completed, Planned, Progress, Started, Transfer, VertexId, Warned
from builder.execute import Executor, Remotes
from builder.graph import Graph, Vertex
from builder.ops import ContextOp
from builder.plan import MAIN_CONTEXT, Plan, PlanOptions, plan_platforms
from builder.solve import Solver
from builder.sources import ImageSources
from grammar import Diagnostic, Position, Severity, Span
from grammar.record import Record, field
from layerstore import DiffId, Image, ImageId, Store
from layerstore.lease import LOOKBACK_NS
from layerstore.reference import Reference

if TYPE_CHECKING:
    from builder.remote import Downloads
    from builder.repositories import Repositories
    from builder.runstep import RunSteps
    from layerstore import ImageIndex
    from layerstore.platforms import Platform
    from layerstore.registry.client import Client


RULES = "3"
"""Counted up when rules change what they say: what a build remembers of them is then asked anew."""

UNDATED_NS = 1_000_000_000 * 1_000_000_000
"""The time of what has none of its own, a directory made for a COPY or a heredoc: fixed, so that the same content makes
the same layer, and after 1980, since zip archives know no earlier time."""

_EPOCH = "SOURCE_DATE_EPOCH"


class BuildOptions(Record):
    """A whole build. `plan` is what decides the image; the rest is how it is made.

    `platforms` are built for, instead of the one of `plan`, if there are any; several become an index. `dockerfile` is
    the text, `name` what messages call it, `path` where it lies, if it is a file: its own ignore file lies beside it.
    `heeds_ignore_file` is False for a context that came as a tar, of which nothing is left out.
    `names` are the references that the image gets. `state` is a directory for what dies with the machine (the bridge's
    addresses). `epoch` is the time of everything in nanoseconds; where it is None, the argument SOURCE_DATE_EPOCH says
    it, and without that the times of the layers are used; with `rewrite_timestamps` no file of a new layer is later.
    `compress` is for outputs that need layers compressed (zstd) even where that does not make them smaller.
    `keep` puts the image into the store under its names; without it, only the steps stay. `secrets` and `ssh` map ids
    to values and sockets. `proxies` maps `http`, `https` and `all` to the proxies of downloads, `no` to hosts without.
    `environ` is the host's environment, of which programs of the host (git) get the little that they need.
    """

    plan: PlanOptions
    platforms: tuple[Platform, ...] = ()
    dockerfile: bytes
    name: str = "Dockerfile"
    path: Path | None = None
    heeds_ignore_file: bool = True
    names: tuple[Reference, ...] = ()
    state: Path
    epoch: int | None = None
    rewrite_timestamps: bool = False
    compress: bool = False
    pull: bool = False
    network: str = "bridge"
    keep: bool = True
    jobs: int = 4
    secrets: Mapping[str, bytes] = field(default=MappingProxyType({}))
    ssh: Mapping[str, Path] = field(default=MappingProxyType({}))
    proxies: Mapping[str, str] = field(default=MappingProxyType({}))
    environ: Mapping[str, str] = field(default=MappingProxyType({}))


class Built(Record):
    """A finished build: the image in the store, or the index of several, and the plans they came from, in order.

    `epoch` is the time it was given in nanoseconds, None for none.
    """

    result: Image | ImageIndex
    plans: tuple[Plan, ...]
    epoch: int | None = None

    @property
    def image(self) -> Image:
        """The image; of several, that for the platform asked for first."""
        return self.images[0][1]

    @property
    def images(self) -> tuple[tuple[Platform, Image], ...]:
        """The images and what each was asked for."""
        if isinstance(self.result, Image):
            return ((self.plans[0].platform, self.result),)
        return self.result.members


def parse(options: BuildOptions) -> grammar.Dockerfile:
    """Parse and resolve the Dockerfile; GrammarError with every place at fault."""
    return grammar.resolve(grammar.parse(options.dockerfile, name=options.name))


def build(
    store: Store,
    options: BuildOptions,
    *,
    progress: Progress,
    clock: Callable[[], float],
    client: Callable[[], Client],
    dockerfile: grammar.Dockerfile | None = None,
) -> Built:
    """Build an image and keep it in `store`. Raises GrammarError, BuildError, StoreError, RunnerError.

    Nothing is left behind but finished steps: their layers are found by the next build, however this one ends.
    """
    dockerfile = dockerfile or _understood(store, options, progress)
    # The export ends after the lease: only then is on disk what it says is written. Meanwhile goes what steps needed.
    remotes = Remotes(cache(partial(_downloads, store, options)), cache(partial(_repositories, store, options, clock)))
    with (
        _quoting(dockerfile.ast),
        contextlib.ExitStack() as ending,
        Export(progress, clock) as export,
        store.lease(lookback=LOOKBACK_NS),
    ):
        options = _dated(dockerfile, options, remotes)
        several = len(options.platforms) > 1
        sources = ImageSources(
            store, client, clock=clock, emit=progress.emit, pull=options.pull, several_platforms=several
        )
        try:
            plans = plan_platforms(dockerfile, options.plan, options.platforms or (options.plan.platform,), sources)
        except BuildError:
            _warn(store, options, dockerfile, sources.used, None, progress)
            raise
        graph, targets = plans[0].graph, [planned.target for planned in plans]
        ignore = _ignore_file(graph, options)
        _warn(store, options, dockerfile, sources.used, ignore, progress)
        executor = Executor(
            store,
            _contexts(graph, ignore, clock),
            steps=partial(_steps, store, options, clock),
            remotes=remotes,
            clock=clock,
            wants_tree=_wants_tree(graph, targets),
            created_ns=UNDATED_NS if options.epoch is None else options.epoch,
            host=str(options.plan.build_platform),
        )
        executor.compress = options.compress
        solver = Solver(executor, progress, clock, jobs=options.jobs)
        try:
            results = solver.solve(graph, *targets)
        finally:
            ending.callback(executor.close())
        now = int(clock() * 1e9)
        images = []
        for planned, result in zip(plans, results, strict=True):
            layers = _rewritten(store, options, planned, result.layers)
            config = planned.config.document_for(layers, result.created, epoch=options.epoch)
            images.append(Image(ImageId.of(config), (), config, layers, None, now))
        built = images[0] if len(images) == 1 else _index(plans, images, now)
        if options.keep:
            names = [reference.canonical for reference in options.names]
            export.begin(built.id, names)
            built = _keep(store, built, names)
    return Built(result=built, plans=plans, epoch=options.epoch)


def _understood(store: Store, options: BuildOptions, progress: Progress) -> grammar.Dockerfile:
    """Parse the Dockerfile; of one that does not hold together tell what the rules say before the error."""
    try:
        return parse(options)
    except grammar.ResolveError as fault:
        if fault.dockerfile is not None:
            _warn(store, options, fault.dockerfile, (), None, progress, fault)
        raise


def _index(plans: Sequence[Plan], images: Sequence[Image], now: int) -> ImageIndex:
    from layerstore.indexes import ImageIndex, Member  # noqa: PLC0415 - most builds are for one platform

    return ImageIndex.of([Member(planned.platform, image) for planned, image in zip(plans, images, strict=True)], now)


def _keep(store: Store, built: Image | ImageIndex, names: Sequence[str]) -> Image | ImageIndex:
    """Put what was built into the store under `names`."""
    if isinstance(built, Image):
        return store.images.put(built.config, layers=built.layers, names=names)
    members = [
        member._replace(image=store.images.put(member.image.config, layers=member.image.layers))
        for member in built.members
    ]
    return store.indexes.put(members, names=names)


def _warn(
    store: Store,
    options: BuildOptions,
    dockerfile: grammar.Dockerfile,
    bases: Iterable[ImageId],
    ignore: IgnoreFile | None,
    progress: Progress,
    fault: grammar.ResolveError | None = None,
) -> None:
    """Tell what the rules say of the Dockerfile; BuildError if they are broken and it says `check=error=true`.

    What they say follows from what is hashed here, so it is remembered: the rules see each text once. Of several
    platforms they see the first, as in the reference.
    """
    given = options.plan
    listed = (
        ("report", RULES),
        ("dockerfile", hashlib.sha256(options.dockerfile).hexdigest()),
        ("target", given.target or ""),
        ("platforms", f"{given.platform} {given.build_platform}"),
        ("bases", " ".join(sorted(bases))),
        ("ignored", "" if ignore is None else ignore.digest),
        *((f"argument {name}", value) for name, value in sorted(given.build_args.items())),
        *((f"context {name}", repr(value)) for name, value in sorted(given.contexts.items())),
    )
    key = key_of(listed)
    note = store.cache.note(key)
    if note is None:
        from builder.check import check, note_of  # noqa: PLC0415 - only for what was never seen before

        note = note_of(check(store, options, dockerfile, whole=False, fault=fault))
        store.cache.keep_note(key, note)
    for rule, message, line, column, end_line, end_column, description, url in note["warnings"]:
        span = Span(Position(line, column), Position(end_line, end_column))
        diagnostic = Diagnostic(severity=Severity.WARNING, code=rule, message=message, span=span)
        progress.emit(Warned(vertex=None, diagnostic=diagnostic, detail=description, url=url))
    if note["refused"]:
        raise Refused(note["refused"])


def _rewritten(store: Store, options: BuildOptions, planned: Plan, layers: tuple[DiffId, ...]) -> tuple[DiffId, ...]:
    """The layers of the image: with `rewrite_timestamps`, those above the base image with their times clamped."""
    if not options.rewrite_timestamps:
        return layers
    if options.epoch is None:
        raise UsageError(
            "rewrite-timestamp=true has no time to bring files to", hint="set SOURCE_DATE_EPOCH, in seconds since 1970"
        )
    from builder.reproducible import rewrite  # noqa: PLC0415 - few builds ask for it

    base = len(planned.config.base_layers)
    return (*layers[:base], *rewrite(store, layers[base:], options.epoch))


def _dated(dockerfile: grammar.Dockerfile, options: BuildOptions, remotes: Remotes) -> BuildOptions:
    """Return the options with the time that SOURCE_DATE_EPOCH says, if anything does."""
    arguments = (pair.name.text for one in dockerfile.global_args for pair in one.pairs)
    if options.epoch is not None or not (_EPOCH in options.plan.build_args or _EPOCH in arguments):
        return options
    from builder.epoch import with_epoch  # noqa: PLC0415 - few builds are given a time

    return with_epoch(dockerfile, options, remotes)


class Export:
    """The vertex that shows the image being written to the store and named."""

    vertex = VertexId("sha256:" + hashlib.sha256(b"exporting to image").hexdigest())

    def __init__(self, progress: Progress, clock: Callable[[], float]) -> None:
        self._progress = progress
        self._clock = clock
        self._parts: list[str] = []

    def begin(self, image: ImageId, names: Sequence[str]) -> None:
        """The image is about to be written."""
        self._parts = [f"writing image {image}", *(f"naming to {name}" for name in names)]
        self._progress.emit(Planned(vertex=self.vertex, name="exporting to image"))
        self._progress.emit(Started(vertex=self.vertex, time=self._clock()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not self._parts:
            return
        now = self._clock()
        for part in self._parts if error is None else ():
            self._progress.emit(Transfer(vertex=self.vertex, time=now, id=part, current=0, total=None, done=True))
        message = None if error is None else str(error) or type(error).__name__
        self._progress.emit(Completed(vertex=self.vertex, time=now, error=message))


@contextlib.contextmanager
def _quoting(ast: grammar.Ast) -> Iterator[None]:
    """Give located errors the text that they quote: what raises them knows places only."""
    try:
        yield
    except LocatedError as error:
        error.source, error.name = ast.source, ast.name
        raise


def _steps(store: Store, options: BuildOptions, clock: Callable[[], float]) -> RunSteps:
    """Make what executes RUNs; a build that is all cached does without the runner."""
    from builder.network import BuildNetwork  # noqa: PLC0415
    from builder.runstep import RunSteps  # noqa: PLC0415

    return RunSteps(
        store=store,
        network=BuildNetwork(state=options.state, default=options.network),
        logs=store.root / "logs" / f"{int(clock() * 1000)}-{os.getpid()}",
        clock=clock,
        secrets=options.secrets,
        ssh=options.ssh,
        cache_namespace=options.plan.build_args.get("BUILDKIT_CACHE_MOUNT_NS", ""),
        cdi_directories=options.plan.cdi_directories,
    )


def _downloads(store: Store, options: BuildOptions) -> Downloads:
    """Make what fetches remote sources; few builds have any."""
    from builder.remote import Downloads  # noqa: PLC0415

    return Downloads(store, secrets=options.secrets, proxies=options.proxies)


def _repositories(store: Store, options: BuildOptions, clock: Callable[[], float]) -> Repositories:
    """Make what fetches git repositories; few builds have any."""
    from builder.git import Git  # noqa: PLC0415
    from builder.repositories import Repositories  # noqa: PLC0415

    return Repositories(store, Git(environ=options.environ, secrets=options.secrets, agents=options.ssh), clock)


def _ignore_file(graph: Graph, options: BuildOptions) -> IgnoreFile | None:
    """The ignore rules of the build's own context, if the graph reads that."""
    for vertex in graph.vertices.values():
        if isinstance(vertex.op, ContextOp) and vertex.op.name == MAIN_CONTEXT:
            return _read_ignore_file(vertex.op.root, options.path) if options.heeds_ignore_file else None
    return None


def _read_ignore_file(root: Path, dockerfile: Path | None) -> IgnoreFile | None:
    path = find_ignore_file(root, dockerfile)
    return None if path is None else IgnoreFile(path.read_bytes(), name=path.name)


def _contexts(
    graph: Graph, ignore: IgnoreFile | None, clock: Callable[[], float]
) -> dict[str, Callable[[], LocalContext]]:
    """The local contexts that the graph reads, each with its ignore rules; made when first asked for."""

    def read(op: ContextOp) -> LocalContext:
        opened = int(clock() * 1e9)
        rules = ignore if op.name == MAIN_CONTEXT else _read_ignore_file(op.root, None)
        return LocalContext(op.root, rules, label=op.name, opened_ns=opened)

    ops = [vertex.op for vertex in graph.vertices.values() if isinstance(vertex.op, ContextOp)]
    return {op.name: partial(read, op) for op in ops}


def _wants_tree(graph: Graph, targets: Sequence[Vertex]) -> frozenset[VertexId]:
    """The vertices whose layers somebody reads as files: all that another one takes as an input."""
    return frozenset(one.id for vertex in graph.needed(*targets) for one in vertex.inputs)

"""One build from start to end: Dockerfile, plan, solve, image, outputs. What a Python program calls, and what the
command does.

It is told everything: paths, clock, registries, secrets. Nothing here reads the environment.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

import grammar
from builder.context import LocalContext
from builder.dockerignore import IgnoreFile, find_ignore_file
from builder.errors import LocatedError
from builder.events import Progress, VertexId
from builder.execute import Executor
from builder.graph import Graph, Vertex
from builder.ops import ContextOp
from builder.plan import MAIN_CONTEXT, Plan, PlanOptions, plan
from builder.solve import Solver
from builder.sources import ImageSources
from grammar.record import Record, field
from layerstore import Image, Store
from layerstore.reference import Reference

if TYPE_CHECKING:
    from builder.runstep import RunSteps
    from layerstore.registry.client import Client


UNDATED_NS = 1_000_000_000 * 1_000_000_000
"""The time of what has none of its own, a directory made for a COPY or a heredoc: fixed, so that the same content makes
the same layer, and after 1980, since zip archives know no earlier time."""


class BuildOptions(Record):
    """A whole build. `plan` is what decides the image; the rest is how it is made.

    `dockerfile` is the text, `name` what messages call it, `path` where it lies, if it is a file: its own ignore file
    lies beside it. `names` are the references that the image gets. `state` is a directory for what dies with the
    machine (the bridge's addresses). `epoch` is SOURCE_DATE_EPOCH in nanoseconds, None to use the times of the layers.
    `secrets` and `ssh` map ids to values and sockets.
    """

    plan: PlanOptions
    dockerfile: bytes
    name: str = "Dockerfile"
    path: Path | None = None
    names: tuple[Reference, ...] = ()
    state: Path
    epoch: int | None = None
    pull: bool = False
    network: str = "bridge"
    jobs: int = 4
    secrets: Mapping[str, bytes] = field(default=MappingProxyType({}))
    ssh: Mapping[str, Path] = field(default=MappingProxyType({}))


class Built(Record):
    """A finished build: the image in the store, and the plan it came from."""

    image: Image
    plan: Plan


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
    dockerfile = dockerfile or parse(options)
    with _quoting(dockerfile.ast), store.lease():
        sources = ImageSources(store, client, clock=clock, emit=progress.emit, pull=options.pull)
        planned = plan(dockerfile, options.plan, sources)
        executor = Executor(
            store,
            _contexts(planned.graph, options, clock),
            steps=partial(_steps, store, options, clock),
            clock=clock,
            wants_tree=_wants_tree(planned.graph, planned.target),
            created_ns=UNDATED_NS if options.epoch is None else options.epoch,
        )
        solver = Solver(executor, progress, clock, jobs=options.jobs)
        try:
            result = solver.solve(planned.graph, planned.target)
        finally:
            executor.close()
        config = planned.config.document_for(result.layers, result.created, epoch=options.epoch)
        names = [reference.canonical for reference in options.names]
        image = store.images.put(config, layers=result.layers, names=names)
    return Built(image=image, plan=planned)


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
    )


def _contexts(graph: Graph, options: BuildOptions, clock: Callable[[], float]) -> dict[str, Callable[[], LocalContext]]:
    """The local contexts that the graph reads, each with its ignore rules; made when first asked for."""

    def read(op: ContextOp) -> LocalContext:
        opened = int(clock() * 1e9)
        own = options.path if op.name == MAIN_CONTEXT else None
        path = find_ignore_file(op.root, own or op.root / "Dockerfile")
        ignore = None if path is None else IgnoreFile(path.read_bytes(), name=path.name)
        return LocalContext(op.root, ignore, label=op.name, opened_ns=opened)

    ops = [vertex.op for vertex in graph.vertices.values() if isinstance(vertex.op, ContextOp)]
    return {op.name: partial(read, op) for op in ops}


def _wants_tree(graph: Graph, target: Vertex) -> frozenset[VertexId]:
    """The vertices whose layers somebody reads as files: all that another one takes as an input."""
    return frozenset(one.id for vertex in graph.needed(target) for one in vertex.inputs)

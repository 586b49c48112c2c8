"""Does one operation with store and runner: finds its result by cache key, or makes it.

The only module that sees both the layer store and the runner. It knows no graph and no states (`builder/solve.py`
does).
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, assert_never

from builder.cachekey import Ingredient, ingredients, key_of
from builder.errors import BuildError, Canceled, LocatedError
from builder.events import Event, Transfer, VertexId
from builder.filetree import EmptyTree, FileTree
from builder.graph import Vertex
from builder.ops import BindMount, CacheMount, ContextOp, CopyOp, GitOp, ImageOp, MkdirOp, RunOp, ScratchOp
from builder.selection import CopyError, CopySpec, FileSource, PathSource, Selection, TreeSource, select
from builder.solve import Result
from grammar import Diagnostic
from layerstore import CacheKey, CacheRecord, DiffId, Digest, Store, StoreError, chain_id

if TYPE_CHECKING:
    from builder.context import LocalContext
    from builder.copy import CopyPlan
    from builder.lineage import Lineage
    from builder.remote import Downloads
    from builder.repositories import Checkout, Repositories
    from builder.runstep import RunSteps
    from layerstore import Contents, Entry, View


_CODES = ("store", "container")


class MadeLayer(NamedTuple):
    """A layer, when it was made (nanoseconds since the epoch), and what there is to say about how."""

    layer: DiffId
    created: int
    note: str


class Remotes(NamedTuple):
    """What makes the fetchers of remote sources, each called when one is first needed."""

    downloads: Callable[[], Downloads]
    repositories: Callable[[], Repositories]


class Executor:
    """Finds and makes results for one build (a `builder.solve.Worker`)."""

    compress = False
    """Whether blobs of layers are compressed even where that seems to be in vain: outputs may ask for it."""

    def __init__(
        self,
        store: Store,
        contexts: Mapping[str, Callable[[], LocalContext]],
        *,
        steps: Callable[[], RunSteps],
        remotes: Remotes,
        clock: Callable[[], float],
        wants_tree: frozenset[str] = frozenset(),
        created_ns: int = 0,
        host: str = "",
    ) -> None:
        """`contexts` maps the names of local contexts to what reads them, called when one is first needed.

        `steps` makes what executes RUNs, called for the first that has to run; `remotes` what fetches remote sources.
        `wants_tree` holds the ids of the vertices whose layers somebody will read as files. `created_ns` is the time of
        directories that a copy makes on its way. `host` is the platform of this machine.
        """
        self.store = store
        self.contexts = contexts
        self.clock = clock
        self.wants_tree = wants_tree
        self.created_ns = created_ns
        self._created: Ingredient = ("created", str(created_ns))
        self.host = host
        self._make_steps = steps
        self._steps: RunSteps | None = None
        self._downloads: Downloads | None = None
        self._remotes = remotes
        self._repositories: Repositories | None = None
        self._canceled = False
        self._emulators: dict[str, str] = {}
        self._trees: dict[str, LocalContext] = {}
        self._selections: dict[VertexId, Selection] = {}
        self._views: dict[tuple[DiffId, ...], View] = {}
        self._lock = threading.Lock()

    # -- finding --------------------------------------------------------------------------------------------------

    def lookup(self, vertex: Vertex, inputs: Sequence[Result]) -> Result | None:
        """Return the result of `vertex` if it is known."""
        match vertex.op:
            case ScratchOp():
                return Result()
            case ContextOp():
                return Result()
            case ImageOp(layers=layers):
                return Result(layers=layers, created=(0,) * len(layers), cached=True)
            case GitOp():
                with self._located(vertex):
                    known = self._ready_repositories().known(vertex.op)
                return None if known is None else _of_checkout(known)
            case MkdirOp() | CopyOp() | RunOp():
                # A remote source has to be asked for first, which takes as long as its server does.
                if vertex.ignore_cache or (isinstance(vertex.op, CopyOp) and vertex.op.remotes):
                    return None
                with self._located(vertex):
                    if isinstance(vertex.op, CopyOp) and self._is_new(vertex, inputs):
                        return None
                    key, _ = self._step_key(vertex, inputs)
                return self._find(key, inputs[0])
            case _:
                assert_never(vertex.op)

    def _find(self, key: CacheKey, below: Result) -> Result | None:
        for record in self.store.cache.find(key):
            times = (record.created,) * len(record.layers)
            return Result(layers=below.layers + record.layers, created=below.created + times, cached=True)
        return None

    def _step_key(self, vertex: Vertex, inputs: Sequence[Result]) -> tuple[CacheKey, tuple[Ingredient, ...]]:
        """The key that answers "is this step cached": the definition, the parent's chain, what else is read."""
        op = vertex.op
        if isinstance(op, CopyOp):
            listed = self._copy_step(op, inputs, self._content_of_copy(op, vertex, inputs))
        elif isinstance(op, RunOp):
            read = tuple(
                (f"input of mount {at}", str(self._content_of_mount(vertex, inputs, mount.input, mount.source)))
                for at, mount in enumerate(op.mounts)
                if isinstance(mount, BindMount | CacheMount) and mount.input is not None
            )
            listed = ingredients(op, (("parent", str(chain_id(inputs[0].layers))), *read))
        else:
            listed = ingredients(op, (("parent", str(chain_id(inputs[0].layers))), self._created))
        return key_of(listed), listed

    def _copy_step(self, op: CopyOp, inputs: Sequence[Result], content: Digest) -> tuple[Ingredient, ...]:
        parent = "" if op.spec.independent else str(chain_id(inputs[0].layers))
        return ingredients(op, (("parent", parent), ("sources", str(content)), self._created))

    def _content_of_copy(self, op: CopyOp, vertex: Vertex, inputs: Sequence[Result]) -> Digest:
        if len(inputs) == 1:
            return self._selection(op, vertex, inputs).digest(self.store.files)
        known = self._remembered(op, vertex, inputs)
        return self._told(op, vertex, inputs, None) if known is None else known

    def _remembered(self, op: CopyOp, vertex: Vertex, inputs: Sequence[Result]) -> Digest | None:
        """Return the digest of what a copy selects if that can be told without reading a file."""
        if _reads_context(vertex):
            return self._selection(op, vertex, inputs).remembered(self.store.files)
        return self.store.files.selection(self._fingerprint(op.spec, *inputs[1:]))

    def _told(self, op: CopyOp, vertex: Vertex, inputs: Sequence[Result], read: Mapping[bytes, bytes] | None) -> Digest:
        """Return the digest of what a copy selects, and remember it; `read` as in `Selection.digest`."""
        digest = self._selection(op, vertex, inputs).digest(self.store.files, read)
        if len(inputs) > 1 and not _reads_context(vertex):
            self.store.files.remember_selection(self._fingerprint(op.spec, *inputs[1:]), digest)
        return digest

    @staticmethod
    def _fingerprint(spec: CopySpec, *results: Result) -> bytes:
        """Layers never change: it is enough to know which they are, and no tree is touched where they were seen."""
        chains = " ".join(chain_id(result.layers) for result in results)
        return key_of(ingredients(CopyOp(spec=spec), (("selected from", chains),))).encode()

    def _selection(self, op: CopyOp, vertex: Vertex, inputs: Sequence[Result]) -> Selection:
        """Return what a copy selects, looked at once."""
        with self._lock:
            known = self._selections.get(vertex.id)
        if known is None or known.spec != op.spec:
            paths = any(isinstance(source, PathSource) for source in op.spec.sources)
            at = [source.input for source in op.spec.sources if isinstance(source, TreeSource)]
            trees = {one: self.tree(vertex.inputs[one], inputs[one]) for one in at}
            known = select(op.spec, self.tree(vertex.inputs[1], inputs[1]) if paths else EmptyTree(), trees=trees)
            with self._lock:
                self._selections[vertex.id] = known
        return known

    def _content_of_mount(self, vertex: Vertex, inputs: Sequence[Result], at: int, source: str) -> Digest:
        """The digest of what a mount shows, or of what a cache starts with: `source` in the input `at`."""
        spec = CopySpec(sources=(PathSource(os.fsencode(source)),), dest=b"/")
        return self._content(spec, vertex.inputs[at], inputs[at])

    def _content(self, spec: CopySpec, vertex: Vertex, result: Result) -> Digest:
        """Return the digest of what `spec` selects from `vertex`."""
        if isinstance(vertex.op, ContextOp):
            return select(spec, self.context(vertex.op.name)).digest(self.store.files)
        fingerprint = self._fingerprint(spec, result)
        known = self.store.files.selection(fingerprint)
        if known is None:
            known = select(spec, self.tree(vertex, result)).digest(self.store.files)
            self.store.files.remember_selection(fingerprint, known)
        return known

    # -- trees ----------------------------------------------------------------------------------------------------

    def tree(self, vertex: Vertex, result: Result) -> FileTree:
        """Return what `vertex` yielded as a tree of files."""
        if isinstance(vertex.op, ContextOp):
            return self.context(vertex.op.name)
        return self.view(result.layers)

    def context(self, name: str) -> LocalContext:
        """Return a local context, read once."""
        with self._lock:
            if name not in self._trees:
                self._trees[name] = self.contexts[name]()
            return self._trees[name]

    def view(self, layers: tuple[DiffId, ...]) -> View:
        """Return the merged view of a chain; trees that are missing are made."""
        with self._lock:
            known = self._views.get(layers)
            below = self._views.get(layers[:-1])
        if known is None:
            known = self.store.layers.view(layers, below=below)
            with self._lock:
                known = self._views.setdefault(layers, known)
        return known

    def _dest(self, op: CopyOp, inputs: Sequence[Result]) -> FileTree | None:
        """The tree a copy lands in; None for an empty one, which knows no names."""
        if op.spec.independent or not inputs[0].layers:
            return None
        return self.view(inputs[0].layers)

    # -- making ---------------------------------------------------------------------------------------------------

    def make(self, vertex: Vertex, inputs: Sequence[Result], emit: Callable[[Event], None]) -> Result:
        """Make the result of `vertex`, or find what another process has made meanwhile."""
        with self._located(vertex):
            if isinstance(vertex.op, GitOp):
                return _of_checkout(self._ready_repositories().fetch(vertex.op))
            vertex = self._fetched(vertex, emit)
            if isinstance(vertex.op, CopyOp) and self._is_new(vertex, inputs):
                with self._turn(self._lineage(vertex.op, vertex).key):
                    # Whoever had the turn before may have made it.
                    if self._is_new(vertex, inputs):
                        return self._made_unread(vertex, vertex.op, inputs)
            key, listed = self._step_key(vertex, inputs)
            # One maker per key among all processes: the second waits, and then finds.
            with self._turn(key):
                if not vertex.ignore_cache and (found := self._find(key, inputs[0])) is not None:
                    return found
                return self._kept(key, listed, self._made(vertex, inputs, emit), inputs[0])

    def _kept(self, key: CacheKey, listed: tuple[Ingredient, ...], made: MadeLayer, below: Result) -> Result:
        """Record a step that was made; return what it results in."""
        self.store.cache.put(CacheRecord(key=key, layers=(made.layer,), ingredients=listed, created=made.created))
        return Result(layers=(*below.layers, made.layer), created=(*below.created, made.created), note=made.note)

    def check(self, vertices: Sequence[Vertex]) -> None:
        """Refuse steps for platforms that this machine does not run or that need devices it lacks; LocatedError.

        What the others need is begun.
        """
        runs = [(one, one.op) for one in vertices if isinstance(one.op, RunOp)]
        foreign = [(one, op.platform) for one, op in runs if op.platform != self.host]
        if foreign:
            from builder.foreign import check  # noqa: PLC0415 - most steps are for this machine

            self._emulators = check(foreign, self.host, self.store.root / "tmp")
        if devices := [one for one, op in runs if op.devices]:
            self._run_steps().check_devices(devices)
        # What is fetched may turn out to be what was there: then no step has to run.
        fetches = any(isinstance(one.op, GitOp) or (isinstance(one.op, CopyOp) and one.op.remotes) for one in vertices)
        if ops := [op for one, op in runs if one.ignore_cache or not fetches]:
            self._run_steps().begin(ops)

    def _fetched(self, vertex: Vertex, emit: Callable[[Event], None]) -> Vertex:
        """Return `vertex` with what it downloads as files among its sources."""
        op = vertex.op
        if not isinstance(op, CopyOp) or not op.remotes:
            return vertex
        from builder.remote import shown  # noqa: PLC0415 - few builds speak HTTP

        downloads = self._ready_downloads()
        sources = list(op.spec.sources)
        for remote in op.remotes:
            name = shown(remote.url)

            def report(current: int, total: int | None, name: str = name) -> None:
                now, done = self.clock(), current == total
                emit(Transfer(vertex=vertex.id, time=now, id=name, current=current, total=total, done=done))

            file = downloads.fetch(remote, report)
            sources.append(FileSource(remote.name, file.file, file.mtime_ns, remote.word))
        sources.sort(key=lambda source: source.word)
        fetched: Vertex = vertex.replace(op=CopyOp(spec=op.spec.replace(sources=tuple(sources))))
        return fetched

    def _now_ns(self) -> int:
        return int(self.clock() * 1e9)

    def _made(self, vertex: Vertex, inputs: Sequence[Result], emit: Callable[[Event], None]) -> MadeLayer:
        op = vertex.op
        below = inputs[0].layers
        match op:
            case MkdirOp():
                dest: FileTree | None = self.view(below) if below else None
                listed = self._content_key(op, ())
                found = self._reusable(vertex, key_of(listed), dest)
                if found is not None:
                    return found
                from builder.copy import plan_mkdir  # noqa: PLC0415 - a cached build copies nothing

                plan = plan_mkdir(os.fsencode(op.path), op.user, dest, created_ns=self.created_ns)
                made = self._written(vertex, plan)
                self._keep_facts(listed, plan, made)
                return made
            case CopyOp():
                return self._copied(vertex, op, inputs)
            case RunOp():
                if op.platform in self._emulators:
                    from builder.foreign import require  # noqa: PLC0415 - most steps are for this machine

                    require(vertex, op.platform, self._emulators[op.platform], self.view(below))
                return MadeLayer(self._run_steps().run(vertex, op, inputs, self, emit), self._now_ns(), "")
            case ScratchOp() | ContextOp() | ImageOp() | GitOp():
                raise AssertionError(f"BUG: {vertex.name} is never made")
            case _:
                assert_never(op)

    def _content_key(self, op: CopyOp | MkdirOp, inputs: tuple[Ingredient, ...]) -> tuple[Ingredient, ...]:
        """What a copy's layer is made of wherever it lands; the facts of its records say where that is."""
        return ingredients(op, (("layer", "independent of what is below"), *inputs, self._created))

    # -- copies ---------------------------------------------------------------------------------------------------

    def _lineage(self, op: CopyOp, vertex: Vertex) -> Lineage:
        from builder.lineage import Lineage  # noqa: PLC0415 - only where a copy is not cached

        source = vertex.inputs[1] if len(vertex.inputs) > 1 else None
        if source is None:
            return Lineage(self.store, op, "", "")
        if isinstance(source.op, ContextOp):
            return Lineage(self.store, op, f"context {source.op.name}", str(source.op.root))
        return Lineage(self.store, op, f"stage {source.stage}", "")

    def _is_new(self, vertex: Vertex, inputs: Sequence[Result]) -> bool:
        """Say whether a copy cannot be cached: it must not be, or nobody has read its sources and it was never done.

        Nor was it ever done of these if they are large, or many and new, and pieces of them were never seen. Its files
        are read once, while the layer is written, and only after that its key is known.
        """
        op = vertex.op
        assert isinstance(op, CopyOp)
        if vertex.ignore_cache:
            return True
        if len(inputs) == 1 or self._remembered(op, vertex, inputs) is not None:
            return False
        lineage = self._lineage(op, vertex)
        if not lineage.is_known():
            return True
        samples = self._selection(op, vertex, inputs).samples(self.store.files)
        return not lineage.has_seen(samples)

    def _made_unread(self, vertex: Vertex, op: CopyOp, inputs: Sequence[Result]) -> Result:
        """Make a copy first and see then what it was a copy of; layers that were made of the same still count."""
        dest = self._dest(op, inputs)
        selection = self._selection(op, vertex, inputs)
        selection.defer()
        plan = self._plan(op, vertex, inputs, dest)
        lineage = self._lineage(op, vertex)
        from layerstore import Contents  # noqa: PLC0415 - a cached build makes no layer

        contents = Contents(asks=not selection.asked)
        made = self._written(vertex, plan, contents, lineage.latest())
        selection.amend(contents.capabilities)
        content = self._told(op, vertex, inputs, contents.read)
        step = self._copy_step(op, inputs, content)
        if not vertex.ignore_cache and (found := self._find(key_of(step), inputs[0])) is not None:
            return found
        listed = self._content_key(op, (("sources", str(content)),))
        reusable = self._reusable(vertex, key_of(listed), dest)
        if reusable is None:
            self._keep_facts(listed, plan, made)
        lineage.note(made.layer, selection.samples(self.store.files))
        return self._kept(key_of(step), step, reusable or made, inputs[0])

    def _copied(self, vertex: Vertex, op: CopyOp, inputs: Sequence[Result]) -> MadeLayer:
        """Make the layer of a copy whose content is known, or take one that was made on another parent."""
        dest = self._dest(op, inputs)
        content = self._content_of_copy(op, vertex, inputs)
        listed = self._content_key(op, (("sources", str(content)),))
        found = self._reusable(vertex, key_of(listed), dest)
        if found is not None:
            return found
        selection = self._selection(op, vertex, inputs)
        plan = self._plan(op, vertex, inputs, dest)
        lineage = self._lineage(op, vertex)
        from layerstore import Contents  # noqa: PLC0415 - a cached build makes no layer

        contents = Contents(selection.data)
        made = self._written(vertex, plan, contents, lineage.latest())
        if not selection.data and self._told(op, vertex, inputs, contents.read) != content:
            raise BuildError(
                "the sources changed while they were copied", hint="build again once nothing writes to them"
            )
        self._keep_facts(listed, plan, made)
        lineage.note(made.layer, selection.samples(self.store.files))
        return made

    def _plan(self, op: CopyOp, vertex: Vertex, inputs: Sequence[Result], dest: FileTree | None) -> CopyPlan:
        from builder.copy import plan_copy  # noqa: PLC0415 - a cached build copies nothing

        selection = self._selection(op, vertex, inputs)
        return plan_copy(op.spec, selection, dest, created_ns=self.created_ns, spool=str(self.store.root / "tmp"))

    def _reusable(self, vertex: Vertex, key: CacheKey, dest: FileTree | None) -> MadeLayer | None:
        """Return a layer that was made of the same content on a parent of which the same facts hold."""
        if not vertex.ignore_cache:
            from builder.facts import facts_hold  # noqa: PLC0415 - a cached build copies nothing

            for record in self.store.cache.find(key):
                if facts_hold(record.facts, dest):
                    note = "layer reused: nothing that it depends on has changed"
                    return MadeLayer(record.layers[0], record.created, note)
        return None

    def _written(
        self, vertex: Vertex, plan: CopyPlan, contents: Contents | None = None, like: DiffId | None = None
    ) -> MadeLayer:
        from layerstore import Compression, Forms  # noqa: PLC0415 - a cached build makes no layer

        forms = Forms.TREE if vertex.id in self.wants_tree else Forms.BLOB
        entries = self._until_canceled(plan.entries())
        compression = Compression.ZSTD if self.compress else None
        layer = self.store.layers.write(entries, forms=forms, compression=compression, contents=contents, like=like)
        return MadeLayer(layer.diff_id, self._now_ns(), "")

    def _keep_facts(self, listed: tuple[Ingredient, ...], plan: CopyPlan, made: MadeLayer) -> None:
        """Record a layer under what it was made of, if what it depends on in its parent is known."""
        if plan.facts is not None:
            self.store.cache.put(
                CacheRecord(
                    key=key_of(listed),
                    layers=(made.layer,),
                    facts=plan.facts,
                    ingredients=listed,
                    created=made.created,
                )
            )

    def _until_canceled(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        for entry in entries:
            if self._canceled:
                raise Canceled("canceled")
            yield entry

    def _turn(self, key: CacheKey) -> AbstractContextManager[None]:
        """Wait to be the one maker of `key` among all processes."""
        from builder.turns import turn  # noqa: PLC0415 - a cached build makes nothing

        return turn(self.store, f"step-{key.hex}", lambda: self._canceled)

    def materialise(self, vertex: Vertex, result: Result, source: str) -> Path:
        """Return where on the host `source` of a context lies, made like a copy and once per content."""
        from builder.copy import plan_copy  # noqa: PLC0415 - a cached build copies nothing
        from layerstore import Forms  # noqa: PLC0415 - likewise

        tree = self.tree(vertex, result)
        resolved = tree.resolve(os.fsencode(source))
        if tree.lstat(resolved) is None:  # select would take a name with a star in it for a wildcard
            missing = (
                f'failed to compute cache key: failed to calculate checksum: "/{os.fsdecode(resolved)}": not found'
            )
            raise BuildError(missing, hint="name a path that the context has")
        spec = CopySpec(sources=(PathSource(resolved or b"."),), dest=b"/", parents=bool(resolved))
        selection = select(spec, tree)
        listed = self._content_key(CopyOp(spec=spec), (("bind", selection.digest(self.store.files)),))
        key = key_of(listed)
        with self._turn(key):
            found = self.store.cache.find(key)
            if found:
                diff_id = found[0].layers[0]
            else:
                plan = plan_copy(spec, selection, None, created_ns=self.created_ns)
                diff_id = self.store.layers.write(self._until_canceled(plan.entries()), forms=Forms.TREE).diff_id
                self.store.cache.put(
                    CacheRecord(key=key, layers=(diff_id,), ingredients=listed, created=self._now_ns())
                )
        return self.store.layers.tree(diff_id) / os.fsdecode(resolved)

    def _run_steps(self) -> RunSteps:
        with self._lock:
            if self._canceled:
                raise Canceled("canceled")
            if self._steps is None:
                self._steps = self._make_steps()
            return self._steps

    def _ready_downloads(self) -> Downloads:
        with self._lock:
            if self._canceled:
                raise Canceled("canceled")
            if self._downloads is None:
                self._downloads = self._remotes.downloads()
            return self._downloads

    def _ready_repositories(self) -> Repositories:
        with self._lock:
            if self._canceled:
                raise Canceled("canceled")
            if self._repositories is None:
                self._repositories = self._remotes.repositories()
            return self._repositories

    def cancel(self) -> None:
        """Kill the steps that run, and end what is being fetched."""
        with self._lock:
            self._canceled = True
            steps, downloads, repositories = self._steps, self._downloads, self._repositories
        if repositories is not None:
            repositories.cancel()
        if downloads is not None:
            downloads.cancel()
        if steps is not None:
            steps.cancel()

    def close(self) -> Callable[[], None]:
        """End what the steps needed, which waits for the kernel: in a thread, where there were any.

        Call the result to wait for that; RunnerError.
        """
        if self._steps is None:
            return _nothing
        from runner.background import start  # noqa: PLC0415 - nothing of the runner is loaded for a cached build

        return start(self._steps.close)

    # -- errors ---------------------------------------------------------------------------------------------------

    def _located(self, vertex: Vertex) -> _Located:
        return _Located(vertex)


def _nothing() -> None:
    """Where no step ran there is nothing to wait for."""


def _reads_context(vertex: Vertex) -> bool:
    """Say whether a copy reads the host's files, which can change, and not layers alone."""
    return any(isinstance(one.op, ContextOp) for one in vertex.inputs[1:])


def _of_checkout(checkout: Checkout) -> Result:
    return Result(layers=(checkout.layer,), created=(checkout.made_ns,), cached=checkout.found)


class _Located:
    """Gives errors of a vertex that have no place yet the place of their word, or of the instruction."""

    def __init__(self, vertex: Vertex) -> None:
        self.vertex = vertex

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, LocatedError | Canceled) or self.vertex.span is None:
            return
        from runner.errors import RunnerError  # noqa: PLC0415 - nothing of the runner is loaded for a cached build

        if not isinstance(error, BuildError | StoreError | RunnerError):
            return
        span = self.vertex.span
        if isinstance(error, CopyError) and self.vertex.words:
            span = self.vertex.words[error.word] if error.word >= -1 else span
        code = error.code if isinstance(error, BuildError) else _CODES[isinstance(error, RunnerError)]
        diagnostic = Diagnostic(code=code, message=error.message, span=span, hint=error.hint)
        raise LocatedError((diagnostic,)) from error

"""From a Dockerfile, a target and arguments to a graph of operations and the image config that goes with its result.

Only what the target needs is planned. Base images are asked of a `Resolver`; nothing is executed and no context is
read. The order of dispatch, the scopes and the history texts follow BuildKit's dockerfile2llb.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, assert_never

import grammar
from builder.errors import LocatedError
from builder.events import VertexId
from builder.graph import Graph, Vertex, vertex_id
from builder.image import ImageConfig, Json
from builder.instructions import Instructions
from builder.ops import ContextOp, CopyOp, GitOp, ImageOp, Op, RemoteFile, ScratchOp
from builder.selection import CopySpec, PathSource
from builder.stage import StageState
from builder.steptext import step_text
from grammar import Diagnostic, Span, Word
from grammar.record import Record, field
from grammar.text import did_you_mean, quote
from layerstore.digest import DiffId
from layerstore.errors import StoreError
from layerstore.platforms import InvalidPlatform, Platform
from layerstore.reference import InvalidReference, Reference

MAIN_CONTEXT = "context"


class LocalDirectory(Record):
    """A named context that is a directory of the host."""

    path: Path


class ImageContext(Record):
    """A named context that stands for an image (`docker-image://`)."""

    reference: str


class GitContext(Record):
    """A named context that is a git repository; `reference` is what was written."""

    reference: str
    op: GitOp


class FileContext(Record):
    """A named context that is a file to fetch by HTTP(S), as it is: an archive is not unpacked."""

    file: RemoteFile


NamedContext = LocalDirectory | ImageContext | GitContext | FileContext


class FetchedContext(Record):
    """A main context that was fetched: its layers, and what it is called.

    `time_ns` is when it was committed or last changed, in nanoseconds since the epoch, None if nothing says so.
    """

    reference: str
    layers: tuple[DiffId, ...]
    time_ns: int | None = None


class Base(Record):
    """An image to build on: its name for people, its config as JSON and its layers, lowest first."""

    reference: str
    document: Json
    op: ImageOp


class Resolver(Protocol):
    """Where base images come from."""

    def image(self, reference: Reference, platform: Platform) -> Base:
        """Return the image, from the store or a registry; StoreError or BuildError if it cannot be had."""


class PlanOptions(Record):
    """What a build is asked for besides the Dockerfile.

    `platform` is what is built for; `several_platforms` says that the build has others, so that the names of steps have
    to tell. `context` is the main context, a directory if it is local, None if there is none. `global_args` are the
    values of ARGs before the first FROM that are known better than their text says. `no_cache` holds the names of the
    stages that are built anew, `no_cache_all` covers them all. `shm_size` is in bytes, 0 for the default. `allow` holds
    granted entitlements; `cdi_directories` is where the devices of RUN are described, the one with precedence last.
    """

    platform: Platform
    build_platform: Platform
    several_platforms: bool = False
    context: Path | FetchedContext | None = None
    target: str | None = None
    build_args: Mapping[str, str] = field(default=MappingProxyType({}))
    global_args: Mapping[str, str] = field(default=MappingProxyType({}))
    labels: Mapping[str, str] = field(default=MappingProxyType({}))
    contexts: Mapping[str, NamedContext] = field(default=MappingProxyType({}))
    no_cache_all: bool = False
    no_cache: frozenset[str] = frozenset()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()
    cdi_directories: tuple[Path, ...] = ()


class Plan(Record):
    """What is to be done for a target: `target` is the vertex whose layers, with `config`, are the image."""

    graph: Graph
    target: Vertex
    config: ImageConfig
    stage: str
    platform: Platform
    warnings: tuple[Diagnostic, ...] = ()


def plan(dockerfile: grammar.Dockerfile, options: PlanOptions, resolver: Resolver) -> Plan:
    """Plan the target of `options`; LocatedError for what the Dockerfile gets wrong, the resolver's errors located."""
    return Planner(dockerfile, options, resolver).plan()


def plan_platforms(
    dockerfile: grammar.Dockerfile, options: PlanOptions, platforms: Sequence[Platform], resolver: Resolver
) -> tuple[Plan, ...]:
    """Plan the target for each of `platforms` over one graph: what is the same for several is one vertex.

    Errors as `plan`.
    """
    if len(platforms) > 1:
        options = options.replace(several_platforms=True)
    planners: list[Planner] = []
    plans = []
    for platform in platforms:
        planner = Planner(dockerfile, options.replace(platform=platform), resolver)
        if planners:
            planner.graph, planner.bases = planners[0].graph, planners[0].bases
        planners.append(planner)
        plans.append(planner.plan())
    return tuple(plans)


class Planner:
    """Plans one target; `stages` holds what has been planned so far, each stage once."""

    def __init__(self, dockerfile: grammar.Dockerfile, options: PlanOptions, resolver: Resolver) -> None:
        self.dockerfile = dockerfile
        self.options = options
        self.resolver = resolver
        self.escape = dockerfile.ast.escape
        self.graph = Graph()
        self.stages: dict[int, StageState] = {}
        self.bases: dict[tuple[str, str], Base] = {}
        self.instructions = Instructions(self)
        self.target = self._find_target()
        self.globals = self._global_scope()

    def plan(self) -> Plan:
        """Plan the target and what it needs."""
        for written in self.dockerfile.stages:
            self.check_from(written)
        self.check_references()
        for index in self._reachable():
            self.plan_stage(index)
        stage = self.plan_stage(self.target)
        stage.config.set_labels(self.options.labels.items())
        return Plan(
            graph=self.graph,
            target=stage.tip,
            config=stage.config,
            stage=stage.name,
            platform=stage.platform,
        )

    # -- scopes ---------------------------------------------------------------------------------------------------

    def _find_target(self) -> int:
        stages = self.dockerfile.stages
        wanted = self.options.target
        if not wanted:
            return len(stages) - 1
        names = [stage.name or "" for stage in stages]
        for index in reversed(range(len(stages))):
            if names[index] == wanted.lower():
                return index
        named = [name for name in names if name]
        message = f'target stage "{wanted}" could not be found{did_you_mean(wanted, named)}'
        hint = f"stages: {', '.join(named) or 'none has a name'}"
        raise self.error("unknown-target", message, None, hint=hint)

    def _global_scope(self) -> dict[str, str]:
        """Automatic platform arguments, then the ARGs before the first FROM, left to right."""
        target, build = self.options.platform, self.options.build_platform
        stage = self.dockerfile.stages[self.target]
        scope: dict[str, str] = {}
        for prefix, platform in (("BUILD", build), ("TARGET", target)):
            scope[prefix + "PLATFORM"] = str(platform)
            scope[prefix + "OS"] = platform.os
            scope[prefix + "OSVERSION"] = ""
            scope[prefix + "ARCH"] = platform.architecture
            scope[prefix + "VARIANT"] = platform.variant
        scope["TARGETSTAGE"] = self.options.target or stage.name or "default"
        given = self.options.build_args
        scope.update({name: given[name] for name in scope if name in given})
        for instruction in self.dockerfile.global_args:
            for pair in instruction.pairs:
                name = pair.name.text
                if name in given:
                    scope[name] = given[name]
                elif name in self.options.global_args:
                    scope[name] = self.options.global_args[name]
                elif pair.value is not None:
                    scope[name] = self.expand(pair.value, scope)
        return scope

    def expand(self, word: Word, env: Mapping[str, str]) -> str:
        """Expand a word; LocatedError at the word."""
        if "$" not in word.text and self.escape not in word.text and '"' not in word.text and "'" not in word.text:
            return word.text
        try:
            return grammar.expand(word.text, env, escape=self.escape).text
        except grammar.ExpandError as error:
            raise self.expansion_error(word, error) from error

    def expansion_error(self, word: Word, error: grammar.ExpandError) -> LocatedError:
        """Return what went wrong with the variables of `word`, at the word."""
        return self.error(
            "expansion", str(error), word.span, hint=getattr(error, "hint", "") or "write a literal $ as \\$"
        )

    def error(self, code: str, message: str, span: Span | None, *, hint: str = "") -> LocatedError:
        """Return a located error of this Dockerfile."""
        return LocatedError((Diagnostic(code=code, message=message, span=span, hint=hint),))

    # -- stages ---------------------------------------------------------------------------------------------------

    def _reachable(self) -> list[int]:
        """The stages that the target names, directly or not, in the order of the file.

        Triggers of base images may name more; those are planned when they are met.
        """
        seen: set[int] = set()
        work = [self.target]
        while work:
            index = work.pop()
            if index in seen:
                continue
            seen.add(index)
            stage = self.dockerfile.stages[index]
            name = self.expand(stage.from_.image, self.globals)
            if (base := self._stage_index(name, before=index, fold=False)) is not None:
                work.append(base)
            for instruction in stage.instructions:
                found = [self._from_index(text) for text in stage_names(instruction)]
                work += [one for one in found if one is not None and one < index]
        return sorted(seen - {self.target})

    def _is_alone(self) -> bool:
        """Say whether the Dockerfile has one stage and reads nothing else, so that steps go without its name.

        As in the reference, every mount counts as something that is read, whatever its type.
        """
        if len(self.dockerfile.stages) > 1:
            return False
        for instruction in self.dockerfile.stages[0].instructions:
            match instruction:
                case grammar.Run(mounts=mounts) if mounts:
                    return False
                case grammar.Copy(from_=from_) if from_ is not None and self._from_index(from_.text) is None:
                    return False
        return True

    def _stage_index(self, name: str, *, before: int, fold: bool) -> int | None:
        wanted = name.lower() if fold else name
        if self.named_context(wanted) is not None:
            return None
        for index in reversed(range(before)):
            if self.dockerfile.stages[index].name == wanted:
                return index
        return None

    def _from_index(self, text: str, *, numbers: bool = True) -> int | None:
        """The stage that `--from=text` means, by name (of equal ones the last) or by number; it may be a later one."""
        found = self._stage_index(text, before=len(self.dockerfile.stages), fold=True)
        if found is None and numbers and text.isascii() and text.isdigit() and int(text) < len(self.dockerfile.stages):
            return int(text)
        return found

    def named_context(self, name: str) -> NamedContext | None:
        """Return the named context that stands for `name` (a stage or an image), if there is one."""
        contexts = self.options.contexts
        if not contexts or name == "scratch":
            return None
        for key in (f"{name}::{self.options.platform}", name):
            if key in contexts:
                return contexts[key]
        try:
            familiar = Reference.parse(name).familiar
        except InvalidReference:
            return None
        short = familiar.removesuffix(":latest")
        for key in (f"{short}::{self.options.platform}", familiar, short):
            if key in contexts:
                return contexts[key]
        return None

    def plan_stage(self, index: int) -> StageState:
        """Plan the stage `index` with what it needs, once."""
        if (known := self.stages.get(index)) is not None:
            return known
        written = self.dockerfile.stages[index]
        stage = self._start(index, written)
        self.stages[index] = stage
        triggers = self._triggers(stage)
        stage.total = stage.from_image + len(triggers) + _counted(written.instructions)
        self._name_source(stage)
        stage.trigger = True
        for instruction in triggers:
            self.instructions.apply(stage, instruction)
        stage.trigger = False
        for instruction in written.instructions:
            self.instructions.apply(stage, instruction)
        return stage

    def check_from(self, written: grammar.Stage) -> None:
        """See that the words of a FROM mean something, whether the stage is needed or not. LocatedError."""
        image = written.from_.image
        if not self.expand(image, self.globals):
            message = f"base name ({image.text}) should not be blank"
            raise self.error("blank-base", message, image.span, hint="give the ARG a default or pass --build-arg")
        self._platform(written.from_)

    def check_references(self) -> None:
        """See that the images of all stages can be called as they are. LocatedError."""
        for written in self.dockerfile.stages:
            image = written.from_.image
            name = self.expand(image, self.globals)
            if name == "scratch" or self._stage_index(name, before=written.index, fold=False) is not None:
                continue
            if self.named_context(name) is None and not (written.name and self.named_context(written.name)):
                self._reference(name, image.span)

    def _reference(self, name: str, span: Span) -> Reference:
        try:
            return Reference.parse(name)
        except InvalidReference as error:
            detail = str(error).removeprefix(f"invalid image reference {name}")
            message = f'failed to parse stage name "{name}": invalid reference format{detail}'
            raise self.error("reference", message, span, hint=getattr(error, "hint", "")) from error

    def _start(self, index: int, written: grammar.Stage) -> StageState:
        """Make the state a stage starts with, from its FROM."""
        from_ = written.from_
        platform = self._platform(from_)
        name = self.expand(from_.image, self.globals)
        label = "" if self._is_alone() else written.name or f"stage-{index}"
        context = self.named_context(written.name) if written.name else None
        base = self._stage_index(name, before=index, fold=False) if context is None else None
        if base is not None:
            stage = self.plan_stage(base).fork()
            if from_.platform is not None:
                stage.platform = platform
        else:
            stage = self._start_from_source(from_, name, platform, context)
        stage.written = written
        stage.name = written.name or str(index)
        stage.label = label
        stage.ignore_cache = self.options.no_cache_all or stage.name in self.options.no_cache
        return stage

    def _start_from_source(
        self, from_: grammar.From, name: str, platform: Platform, context: NamedContext | None
    ) -> StageState:
        context = context or self.named_context(name)
        match context:
            case None if name == "scratch":
                # Nothing is for no platform: what --platform says is not asked.
                platform = self.options.platform
                return self._fresh(ImageConfig.scratch(platform), self._vertex(ScratchOp()), platform)
            case None:
                base = self._base(name, platform, from_.image.span)
            case ImageContext():
                base = self._base(context.reference, platform, from_.image.span)
            case LocalDirectory():
                source = self.context_vertex(name, context.path)
                copied = CopyOp(spec=CopySpec(sources=(PathSource(b"/"),), dest=b"/"))
                vertex = self._vertex(copied, (self._vertex(ScratchOp()), source), span=from_.span)
                return self._fresh(ImageConfig.scratch(platform), vertex, platform)
            case GitContext() | FileContext():
                vertex = self._remote_vertex(name, context, from_.span)
                return self._fresh(ImageConfig.scratch(platform), vertex, platform)
            case _:
                assert_never(context)
        config = ImageConfig.of_base(base.document, base.op.layers)
        stage = self._fresh(config, self._vertex(base.op, name=base.reference), platform)
        stage.from_image = True
        return stage

    def _fresh(self, config: ImageConfig, tip: Vertex, platform: Platform) -> StageState:
        stage = StageState(config, tip, platform)
        stage.assign(config.env)
        return stage

    def _name_source(self, stage: StageState) -> None:
        """Give the vertex of a base image its place in the stage: `[stage 1/4] FROM …`.

        A base of several stages has its place in the first one. A stage that begins with another has no step for it.
        """
        if not stage.from_image:
            return
        prefix = self._prefix(stage)
        if not stage.tip.name.startswith("["):
            name = prefix + "FROM " + stage.tip.name
            named: Vertex = stage.tip.replace(name=name, stage=stage.name, span=stage.written.from_.span)
            self.graph.vertices[named.id] = named
            stage.tip = named

    def _triggers(self, stage: StageState) -> tuple[grammar.Instruction, ...]:
        """Take the ONBUILD triggers out of the inherited config and parse them."""
        texts = stage.config.config.pop("OnBuild", None) or []
        parsed: list[grammar.Instruction] = []
        for text in texts:
            try:
                parsed.append(grammar.parse_instruction(text, at=stage.written.from_.span))
            except grammar.LocatedGrammarError as error:
                message = f"ONBUILD trigger {text!r} of the base: {error.diagnostics[0].message}"
                raise self.error("trigger", message, stage.written.from_.span) from error
        return tuple(parsed)

    def _platform(self, from_: grammar.From) -> Platform:
        if from_.platform is None or not from_.platform.text:
            return self.options.platform
        text = self.expand(from_.platform, self.globals)
        if not text:
            message = f"empty platform value from expression {from_.platform.text}"
            raise self.error(
                "platform", message, from_.platform.span, hint="give the ARG a default or pass --build-arg"
            )
        try:
            return Platform.parse(text, host=self.options.build_platform)
        except InvalidPlatform as error:
            message = f"failed to parse platform {text}: {error}"
            raise self.error("platform", message, from_.platform.span, hint="write it like linux/amd64") from error

    def _base(self, name: str, platform: Platform, span: Span) -> Base:
        key = (name, str(platform))
        if key in self.bases:
            return self.bases[key]
        reference = self._reference(name, span)
        try:
            base = self.resolver.image(reference, platform)
        except StoreError as error:
            message = f"{name}: failed to resolve source metadata for {reference.canonical}: {error}"
            raise self.error("base-image", message, span, hint=error.hint) from error
        self.bases[key] = base
        return base

    # -- vertices -------------------------------------------------------------------------------------------------

    def _vertex(
        self,
        op: Op,
        inputs: tuple[Vertex, ...] = (),
        *,
        name: str = "",
        stage: str = "",
        span: Span | None = None,
        words: tuple[Span, ...] = (),
        ignore_cache: bool = False,
    ) -> Vertex:
        return self.graph.add(
            Vertex(
                id=VertexId(vertex_id(op, inputs)),
                op=op,
                inputs=inputs,
                name=name,
                stage=stage,
                span=span,
                words=words,
                ignore_cache=ignore_cache,
            )
        )

    def context_vertex(self, name: str, root: Path) -> Vertex:
        """Return the vertex of a local directory."""
        shown = "load build context" if name == MAIN_CONTEXT else f"[context {name}] load from client"
        prefix = "[internal] " if name == MAIN_CONTEXT else ""
        return self._vertex(ContextOp(name=name, root=root), name=prefix + shown)

    def git_vertex(self, op: GitOp, text: str, span: Span | None) -> Vertex:
        """Return the vertex of a git repository, written as `text`."""
        from builder.gitreference import shown_remote  # noqa: PLC0415 - few Dockerfiles name repositories

        return self._vertex(op, name="[internal] load git source " + shown_remote(text), span=span)

    def _remote_vertex(self, name: str, context: GitContext | FileContext, span: Span) -> Vertex:
        """Return the vertex of a named context that is fetched when it is needed."""
        if isinstance(context, GitContext):
            return self.git_vertex(context.op, context.reference, span)
        op = CopyOp(spec=CopySpec(sources=(), dest=b"/"), remotes=(context.file,))
        return self._vertex(op, (self._vertex(ScratchOp()),), name=f"[context {name}] {context.file.url}", span=span)

    def source_vertex(self, stage: StageState, name: str | None, span: Span, *, mount: str | None = None) -> Vertex:
        """Return what `--from=name`, or `from=name` of a mount on `mount`, reads: a stage, a context or an image.

        None is the context. A number means a stage for COPY alone.
        """
        if name is None:
            if self.options.context is None:
                raise self.error(
                    "no-context", "there is no build context to read from", span, hint="give a directory as context"
                )
            if isinstance(self.options.context, FetchedContext):
                fetched = self.options.context
                return self._vertex(ImageOp(reference=fetched.reference, layers=fetched.layers, platform=""))
            return self.context_vertex(MAIN_CONTEXT, self.options.context)
        own = self.dockerfile.stages.index(stage.written)
        index = self._from_index(name, numbers=mount is None)
        if index == own:  # in a trigger: of a stage that names itself it reads what there is so far
            return stage.tip
        if index is not None and index > own:
            raise self._later_stage(stage, name, span, mount)
        if index is not None:
            return self.plan_stage(index).tip
        if mount is None and name.isascii() and name.isdigit():
            count = len(self.dockerfile.stages)
            hint = f"the stages are 0 to {count - 1}"
            raise self.error("stage-index", f"invalid stage index {name}", span, hint=hint)
        match self.named_context(name):
            case LocalDirectory(path=path):
                return self.context_vertex(name, path)
            case ImageContext(reference=reference):
                base = self._base(reference, stage.platform, span)
            case GitContext() | FileContext() as remote:
                return self._remote_vertex(name, remote, span)
            case None if name == "scratch":
                return self._vertex(ScratchOp())
            case None:
                base = self._base(name, stage.platform, span)
        return self._vertex(base.op, name=f"FROM {base.reference}", span=span)

    def _later_stage(self, stage: StageState, name: str, span: Span, mount: str | None) -> LocatedError:
        here = stage.written.name or f"stage-{stage.written.index}"
        if mount is None:
            message = f"cannot copy from stage {quote(name)}, it needs to be defined before current stage {quote(here)}"
        else:
            message = (
                f"cannot mount from stage {quote(name)} to {quote(mount)}, "
                "stage needs to be defined before current command"
            )
        return self.error("later-stage", message, span, hint=f"move the stage {name} above the stage {here}")

    def _prefix(self, stage: StageState) -> str:
        stage.index += 1
        label = stage.label + " " if stage.label else ""
        if self.options.several_platforms:
            label = f"{stage.platform}{_target_of(stage)} {label}"
        width = len(str(stage.total))
        trigger = "ONBUILD " if stage.trigger else ""
        return f"[{label}{stage.index:>{width}}/{stage.total}] {trigger}"

    def advance(self, stage: StageState, op: Op, inputs: tuple[Vertex, ...], instruction: grammar.Instruction) -> None:
        """Make `op` the stage's new tip."""
        words: tuple[Span, ...] = ()
        if isinstance(instruction, grammar.Copy | grammar.Add):
            paths = (word.span for word in instruction.sources)
            heredocs = (heredoc.span for heredoc in instruction.heredocs)
            words = (*paths, *heredocs, instruction.destination.span)
        elif isinstance(instruction, grammar.Run):
            words = tuple(word.span for word in instruction.devices)
        stage.tip = self._vertex(
            op,
            inputs,
            name=self._prefix(stage) + step_text(instruction, op, stage.env, escape=self.escape),
            stage=stage.name,
            span=instruction.span,
            words=words,
            ignore_cache=stage.ignore_cache,
        )


def _target_of(stage: StageState) -> str:
    """What a stage on one platform builds for another, as its ARGs tell: `->arm64`, empty if it is the same."""
    env = stage.env
    system, architecture, variant = (env.get(name, "") for name in ("TARGETOS", "TARGETARCH", "TARGETVARIANT"))
    target = Platform.of(system or stage.platform.os, architecture or stage.platform.architecture, variant)
    if text := env.get("TARGETPLATFORM"):
        try:
            target = Platform.parse(text, host=stage.platform)
        except InvalidPlatform:
            return ""
    if target.os != stage.platform.os:
        return f"->{target}"
    return "" if target.architecture == stage.platform.architecture else f"->{'/'.join(filter(None, target[1:]))}"


def _counted(instructions: tuple[grammar.Instruction, ...]) -> int:
    """How many instructions are shown as steps."""
    return sum(isinstance(one, grammar.Run | grammar.Copy | grammar.Add | grammar.Workdir) for one in instructions)


def stage_names(instruction: grammar.Instruction) -> list[str]:
    """Return the stages, contexts or images that an instruction names with --from or a mount's from=."""
    match instruction:
        case grammar.Copy(from_=from_) if from_ is not None:
            return [from_.text]
        case grammar.Run(mounts=mounts):
            return [
                value
                for word in mounts
                for option in word.text.split(",")
                if (value := _option(option, "from")) is not None
            ]
    return []


def _option(option: str, name: str) -> str | None:
    key, _, value = option.partition("=")
    return value if key.strip().lower() == name else None

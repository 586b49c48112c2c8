"""From a Dockerfile, a target and arguments to a graph of operations and the image config that goes with its result.

Only what the target needs is planned. Base images are asked of a `Resolver`; nothing is executed and no context is read.
The order of dispatch, the scopes and the history texts follow BuildKit's dockerfile2llb.
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Protocol, assert_never

import grammar
from builder.copy import CopySpec, PathSource, Source, TextSource
from builder.errors import LocatedError
from builder.events import VertexId
from builder.graph import Graph, Vertex, vertex_id
from builder.image import ImageConfig, Json, go_duration, go_list, go_quoted_list
from builder.mounts import MountPlanner
from builder.ops import ContextOp, CopyOp, ImageOp, MkdirOp, Op, RunOp, ScratchOp
from builder.ports import InvalidPort, expand_ports
from grammar import Diagnostic, Span, Word
from grammar.record import Record, field
from layerstore.errors import StoreError
from layerstore.platforms import InvalidPlatform, Platform
from layerstore.reference import InvalidReference, Reference

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
NEVER_IN_ENV = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
DEFAULT_SHELL = ("/bin/sh", "-c")
PIPES = "/dev/pipes/"
MAIN_CONTEXT = "context"


class LocalDirectory(Record):
    """A named context that is a directory of the host."""

    path: Path


class ImageContext(Record):
    """A named context that stands for an image (`docker-image://`)."""

    reference: str


NamedContext = LocalDirectory | ImageContext


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

    `context` is the main context's directory, None if there is none. `no_cache` holds the names of the stages that are built
    anew, `no_cache_all` covers them all. `shm_size` is in bytes, 0 for the default. `allow` holds granted entitlements.
    """

    platform: Platform
    build_platform: Platform
    context: Path | None = None
    target: str | None = None
    build_args: Mapping[str, str] = field(default=MappingProxyType({}))
    labels: Mapping[str, str] = field(default=MappingProxyType({}))
    contexts: Mapping[str, NamedContext] = field(default=MappingProxyType({}))
    no_cache_all: bool = False
    no_cache: frozenset[str] = frozenset()
    extra_hosts: tuple[tuple[str, str], ...] = ()
    network: str = "default"
    shm_size: int = 0
    ulimits: tuple[str, ...] = ()
    allow: frozenset[str] = frozenset()


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


class StageState:
    """A stage while it is planned: the state that instructions change.

    `env` is what variables are replaced from, `args` the ARGs so far with their values. `label` and `index` of `total` are
    the stage's part of its steps' names; `trigger` is set while ONBUILD triggers of the base are planned.
    """

    def __init__(self, config: ImageConfig, tip: Vertex, platform: Platform) -> None:
        self.config = config
        self.tip = tip
        self.platform = platform
        self.env: dict[str, str] = {}
        self.args: list[tuple[str, str | None]] = []
        self.written: grammar.Stage
        self.name = ""
        self.label = ""
        self.total = 0
        self.index = 0
        self.cmd_is_set = False
        self.ignore_cache = False
        self.trigger = False

    def fork(self) -> StageState:
        """Return what a stage that is based on this one starts with."""
        stage = StageState(self.config.fork(), self.tip, self.platform)
        stage.env = dict(self.env)
        stage.args = list(self.args)
        return stage

    @property
    def shell(self) -> tuple[str, ...]:
        return tuple(self.config.config.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        return self.config.config.get("WorkingDir") or "/"


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
        self.mounts = MountPlanner(self)
        self.target = self._find_target()
        self.globals = self._global_scope()

    def plan(self) -> Plan:
        """Plan the target and what it needs."""
        for index in self._reachable():
            self._plan_stage(index)
        stage = self._plan_stage(self.target)
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
        from difflib import get_close_matches  # noqa: PLC0415 - only needed to explain an error

        near = get_close_matches(wanted.lower(), [name for name in names if name], n=1)
        suffix = f" (did you mean {near[0]}?)" if near else ""
        known = ", ".join(name for name in names if name) or "none has a name"
        raise self.error("unknown-target", f'target stage "{wanted}" could not be found{suffix}', None, hint=f"stages: {known}")

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
                name = self.expand(pair.name, scope)
                if name in given:
                    scope[name] = given[name]
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
            raise self._expansion_error(word, error) from error

    def _expansion_error(self, word: Word, error: grammar.ExpandError) -> LocatedError:
        from builder.image import go_quote  # noqa: PLC0415 - error path

        message = f"failed to process {go_quote(word.text)}: {error}"
        return self.error("expansion", message, word.span, hint=getattr(error, "hint", "") or "write a literal $ as \\$")

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
                work += [found for text in _from_names(instruction) if (found := self._from_index(text, index)) is not None]
        return sorted(seen - {self.target})

    def _stage_index(self, name: str, *, before: int, fold: bool) -> int | None:
        wanted = name.lower() if fold else name
        if self.named_context(wanted) is not None:
            return None
        for index in reversed(range(before)):
            if self.dockerfile.stages[index].name == wanted:
                return index
        return None

    def _from_index(self, text: str, before: int) -> int | None:
        """The stage that `--from=text` means in stage `before`, by name or by number."""
        found = self._stage_index(text, before=before, fold=True)
        if found is None and text.isascii() and text.isdigit() and int(text) < before:
            return int(text)
        return found

    def named_context(self, name: str) -> NamedContext | None:
        """Return the named context that stands for `name` (a stage or an image), if there is one."""
        contexts = self.options.contexts
        if not contexts:
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

    def _plan_stage(self, index: int) -> StageState:
        if (known := self.stages.get(index)) is not None:
            return known
        written = self.dockerfile.stages[index]
        stage = self._start(index, written)
        self.stages[index] = stage
        triggers = self._triggers(stage)
        stage.total += _counted(triggers) + _counted(written.instructions)
        self._name_source(stage)
        stage.trigger = True
        for instruction in triggers:
            self._dispatch(stage, instruction.replace(span=written.from_.span))
        stage.trigger = False
        for instruction in written.instructions:
            self._dispatch(stage, instruction)
        return stage

    def _start(self, index: int, written: grammar.Stage) -> StageState:
        """Make the state a stage starts with, from its FROM."""
        from_ = written.from_
        platform = self._platform(from_)
        name = self.expand(from_.image, self.globals)
        if not name:
            message = f"base name ({from_.image.text}) should not be blank"
            raise self.error("blank-base", message, from_.image.span, hint="give the ARG a default or pass --build-arg")
        label = written.name or (f"stage-{index}" if len(self.dockerfile.stages) > 1 else "")
        context = self.named_context(written.name) if written.name else None
        base = self._stage_index(name, before=index, fold=False) if context is None else None
        if base is not None:
            stage = self._plan_stage(base).fork()
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
            case _:
                assert_never(context)
        config = ImageConfig.of_base(base.document, base.op.layers)
        stage = self._fresh(config, self._vertex(base.op, name=base.reference), platform)
        stage.total = 1
        return stage

    def _fresh(self, config: ImageConfig, tip: Vertex, platform: Platform) -> StageState:
        stage = StageState(config, tip, platform)
        stage.env = dict(pair.partition("=")[::2] for pair in config.config.get("Env") or ())
        return stage

    def _name_source(self, stage: StageState) -> None:
        """Give the vertex of a base image its place in the stage: `[stage 1/4] FROM …`."""
        if isinstance(stage.tip.op, ImageOp) and stage.index == 0 and stage.total and not stage.tip.name.startswith("["):
            name = self._prefix(stage) + "FROM " + stage.tip.name
            named: Vertex = stage.tip.replace(name=name, stage=stage.name, span=stage.written.from_.span)
            self.graph.vertices[named.id] = named
            stage.tip = named

    def _triggers(self, stage: StageState) -> tuple[grammar.Instruction, ...]:
        """Take the ONBUILD triggers out of the inherited config and parse them."""
        texts = stage.config.config.pop("OnBuild", None) or []
        parsed: list[grammar.Instruction] = []
        for text in texts:
            try:
                parsed.append(grammar.parse_instruction(text))
            except grammar.LocatedGrammarError as error:
                message = f"ONBUILD trigger {text!r} of the base: {error.diagnostics[0].message}"
                raise self.error("trigger", message, stage.written.from_.span) from error
        return tuple(parsed)

    def _platform(self, from_: grammar.From) -> Platform:
        if from_.platform is None:
            return self.options.platform
        text = self.expand(from_.platform, self.globals)
        if not text:
            message = f"empty platform value from expression {from_.platform.text}"
            raise self.error("platform", message, from_.platform.span, hint="give the ARG a default or pass --build-arg")
        try:
            return Platform.parse(text, host=self.options.build_platform)
        except InvalidPlatform as error:
            raise self.error("platform", str(error), from_.platform.span, hint="write it like linux/amd64") from error

    def _base(self, name: str, platform: Platform, span: Span) -> Base:
        key = (name, str(platform))
        if key in self.bases:
            return self.bases[key]
        try:
            reference = Reference.parse(name)
        except InvalidReference as error:
            message = f'failed to parse stage name "{name}": {error}'
            raise self.error("reference", message, span, hint=getattr(error, "hint", "")) from error
        try:
            base = self.resolver.image(reference, platform)
        except StoreError as error:
            message = f"{name}: failed to resolve source metadata for {reference.canonical}: {error}"
            raise self.error("base-image", message, span, hint=error.hint) from error
        self.bases[key] = base
        return base

    # -- vertices -------------------------------------------------------------------------------------------------

    def _vertex(  # noqa: PLR0913 - the fields of one vertex
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

    def source_vertex(self, stage: StageState, name: str | None, span: Span) -> Vertex:
        """Return what `--from=name`, or `from=name` of a mount, reads: a stage, a context or an image; None is the context."""
        if name is None:
            if self.options.context is None:
                raise self.error("no-context", "there is no build context to read from", span, hint="give a directory as context")
            return self.context_vertex(MAIN_CONTEXT, self.options.context)
        own = self.dockerfile.stages.index(stage.written)
        index = self._from_index(name, own)
        if index is not None:
            return self._plan_stage(index).tip
        if name.isascii() and name.isdigit():
            message = f"invalid stage index {name}"
            raise self.error("stage-index", message, span, hint=f"stages before this one: 0 to {own - 1}" if own else "")
        match self.named_context(name):
            case LocalDirectory(path=path):
                return self.context_vertex(name, path)
            case ImageContext(reference=reference):
                base = self._base(reference, stage.platform, span)
            case None if name == "scratch":
                return self._vertex(ScratchOp())
            case None:
                base = self._base(name, stage.platform, span)
        return self._vertex(base.op, name=f"FROM {base.reference}", span=span)

    def _prefix(self, stage: StageState) -> str:
        stage.index += 1
        label = stage.label + " " if stage.label else ""
        width = len(str(stage.total))
        trigger = "ONBUILD trigger: " if stage.trigger else ""
        return f"[{label}{stage.index:>{width}}/{stage.total}] {trigger}"

    def _step_name(self, stage: StageState, instruction: grammar.Instruction) -> str:
        """What progress shows: the instruction's place in its stage and its text on one line."""
        length = len(instruction.keyword)
        return self._prefix(stage) + instruction.keyword.upper() + instruction.original.strip()[length:]

    def _advance(self, stage: StageState, op: Op, inputs: tuple[Vertex, ...], instruction: grammar.Instruction) -> None:
        """Make `op` the stage's new tip."""
        words: tuple[Span, ...] = ()
        if isinstance(instruction, grammar.Copy | grammar.Add):
            paths = (word.span for word in instruction.sources)
            heredocs = (heredoc.span for heredoc in instruction.heredocs)
            words = (*paths, *heredocs, instruction.destination.span)
        stage.tip = self._vertex(
            op,
            inputs,
            name=self._step_name(stage, instruction),
            stage=stage.name,
            span=instruction.span,
            words=words,
            ignore_cache=stage.ignore_cache,
        )

    # -- instructions ---------------------------------------------------------------------------------------------

    def _dispatch(self, stage: StageState, instruction: grammar.Instruction) -> None:  # noqa: C901, PLR0912 - one closed sum
        match instruction:
            case grammar.Arg():
                self._arg(stage, instruction)
            case grammar.Env():
                self._env(stage, instruction)
            case grammar.Label():
                self._label(stage, instruction)
            case grammar.Run():
                self._run(stage, instruction)
            case grammar.Copy() | grammar.Add():
                self._copy(stage, instruction)
            case grammar.Workdir():
                self._workdir(stage, instruction)
            case grammar.User():
                text = self.expand(instruction.name, stage.env)
                stage.config.set_or_drop("User", text)
                stage.config.commit(f"USER {text}")
            case grammar.Cmd():
                args = self._command(stage, instruction.command)
                stage.config.set_or_drop("Cmd", list(args))
                stage.config.config["ArgsEscaped"] = True
                stage.cmd_is_set = True
                stage.config.commit(f"CMD {go_quoted_list(args)}")
            case grammar.Entrypoint():
                args = self._command(stage, instruction.command)
                stage.config.set_or_drop("Entrypoint", list(args))
                if not stage.cmd_is_set:
                    stage.config.config.pop("Cmd", None)
                stage.config.commit(f"ENTRYPOINT {go_quoted_list(args)}")
            case grammar.Shell():
                stage.config.set_or_drop("Shell", list(instruction.args))
                stage.config.commit(f"SHELL {go_list(instruction.args)}")
            case grammar.Volume():
                self._volume(stage, instruction)
            case grammar.Expose():
                self._expose(stage, instruction)
            case grammar.Healthcheck():
                _healthcheck(stage.config, instruction)
            case grammar.Stopsignal():
                text = self.expand(instruction.signal, stage.env)
                self._check_signal(text, instruction.signal.span)
                stage.config.set_or_drop("StopSignal", text)
                stage.config.commit(f"STOPSIGNAL {text}")
            case grammar.Onbuild():
                stage.config.config.setdefault("OnBuild", []).append(instruction.text)
            case grammar.Maintainer():
                stage.config.document["author"] = instruction.name
                stage.config.commit(f"MAINTAINER {instruction.name}")
            case grammar.From():
                raise AssertionError("BUG: FROM inside a stage")
            case _:
                assert_never(instruction)

    def _check_signal(self, text: str, span: Span) -> None:
        from runner.errors import SpecError  # noqa: PLC0415 - few Dockerfiles have a STOPSIGNAL
        from runner.signals import parse_signal  # noqa: PLC0415

        try:
            parse_signal(text)
        except SpecError as error:
            hint = "use a name such as SIGTERM or a number"
            raise self.error("stopsignal", f"invalid signal: {text}", span, hint=hint) from error

    def _command(self, stage: StageState, command: grammar.ShellForm | grammar.ExecForm) -> tuple[str, ...]:
        if isinstance(command, grammar.ExecForm):
            return command.args
        return (*stage.shell, command.text)

    def _arg(self, stage: StageState, instruction: grammar.Arg) -> None:
        """ARG: a build argument beats the default here, which beats the global scope; pairs apply left to right."""
        texts = []
        for pair in instruction.pairs:
            name = self.expand(pair.name, stage.env)
            if name in self.options.build_args:
                value: str | None = self.options.build_args[name]
            elif pair.value is not None:
                value = self.expand(pair.value, stage.env)
            else:
                value = self.globals.get(name)
            if value is not None and name not in NEVER_IN_ENV:
                stage.env[name] = value
            stage.args.append((name, value))
            texts.append(name if value is None else f"{name}={value}")
        stage.config.commit("ARG " + " ".join(texts))

    def _pairs(self, stage: StageState, pairs: tuple[grammar.Pair, ...]) -> list[tuple[str, str]]:
        """Expand key-value pairs, all with the values from before the instruction."""
        return [(self.expand(pair.key, stage.env), self.expand(pair.value, stage.env)) for pair in pairs]

    def _env(self, stage: StageState, instruction: grammar.Env) -> None:
        pairs = self._pairs(stage, instruction.pairs)
        for key, value in pairs:
            stage.env[key] = value
            stage.config.set_env(key, value)
        stage.config.commit("ENV " + " ".join(f"{key}={value}" for key, value in pairs))

    def _label(self, stage: StageState, instruction: grammar.Label) -> None:
        pairs = self._pairs(stage, instruction.pairs)
        stage.config.set_labels(pairs)
        stage.config.commit("LABEL " + " ".join(f"{key}={value}" for key, value in pairs))

    def _volume(self, stage: StageState, instruction: grammar.Volume) -> None:
        paths = [self.expand(word, stage.env) for word in instruction.paths]
        for path, word in zip(paths, instruction.paths, strict=True):
            if not path.strip():
                raise self.error("volume", "VOLUME specified can not be an empty string", word.span, hint="name a directory")
        volumes = stage.config.config.setdefault("Volumes", {})
        volumes.update({path: {} for path in paths})
        stage.config.commit(f"VOLUME {go_list(paths)}")

    def _expose(self, stage: StageState, instruction: grammar.Expose) -> None:
        ports: list[str] = []
        # The reference sorts the words as written, before variables are put in.
        for word in sorted(instruction.ports, key=lambda word: word.text):
            try:
                words = grammar.expand_words(word.text, stage.env, escape=self.escape).words
                ports += [port for one in words for port in expand_ports(one)]
            except grammar.ExpandError as error:
                raise self._expansion_error(word, error) from error
            except InvalidPort as error:
                hint = "write ports as 8080, 8080/udp or 8000-8010"
                raise self.error("expose", str(error), word.span, hint=hint) from error
        ports = list(dict.fromkeys(ports))
        stage.config.config.setdefault("ExposedPorts", {}).update({port: {} for port in ports})
        stage.config.commit(f"EXPOSE {go_list(ports)}")

    def _workdir(self, stage: StageState, instruction: grammar.Workdir) -> None:
        text = self.expand(instruction.path, stage.env)
        path = text if text.startswith("/") else posixpath.normpath(posixpath.join(stage.workdir, text))
        if path.startswith("//"):
            path = "/" + path.lstrip("/")
        stage.config.config["WorkingDir"] = path
        makes = posixpath.normpath(path) != "/"
        if makes:
            op = MkdirOp(path=path, user=stage.config.config.get("User") or "")
            self._advance(stage, op, (stage.tip,), instruction)
        else:
            stage.index += 1
        stage.config.commit(f"WORKDIR {path}", layer=makes)

    # -- RUN ------------------------------------------------------------------------------------------------------

    def _run(self, stage: StageState, instruction: grammar.Run) -> None:
        args, scripts = self._run_command(stage, instruction)
        mounts, sources = self.mounts.plan(stage, instruction)
        self._entitled(instruction)
        network = instruction.network or self.options.network
        if instruction.network == "default":
            network = self.options.network
        given = self.options.build_args
        op = RunOp(
            args=args,
            env=tuple(f"{name}={value}" for name, value in stage.env.items()),
            cwd=stage.workdir,
            user=stage.config.config.get("User") or "",
            mounts=mounts,
            network=network,
            security=instruction.security or "sandbox",
            hostname=given.get("BUILDKIT_SANDBOX_HOSTNAME") or "buildkitsandbox",
            extra_hosts=self.options.extra_hosts,
            shm_size=self.options.shm_size,
            ulimits=self.options.ulimits,
            scripts=scripts,
            platform=str(stage.platform),
            proxies=_proxies(given, stage.env),
        )
        self._advance(stage, op, (stage.tip, *sources), instruction)
        stage.config.commit(f"RUN {_command_text(stage, args)} # buildkit", layer=True)

    def _entitled(self, instruction: grammar.Run) -> None:
        for granted, wanted in (("security.insecure", instruction.security == "insecure"), ("network.host", instruction.network == "host")):
            if wanted and granted not in self.options.allow:
                raise self.error("entitlement", f"{granted} is not allowed", instruction.span, hint=f"pass --allow {granted}")
        if instruction.devices:
            hint = "bind the device in with the host's own means"
            raise self.error("device", "RUN --device is not supported", instruction.devices[0].span, hint=hint)

    def _run_command(
        self, stage: StageState, instruction: grammar.Run
    ) -> tuple[tuple[str, ...], tuple[tuple[str, bytes], ...]]:
        """Return the arguments to execute and the scripts they need; heredocs become text for the shell or a script."""
        command = instruction.command
        if isinstance(command, grammar.ExecForm):
            return command.args, ()
        text = command.text
        if not instruction.heredocs:
            return (*stage.shell, text), ()
        first = instruction.heredocs[0]
        if len(instruction.heredocs) == 1 and text.strip() == first.text:
            if first.content.startswith("#!"):
                return (*stage.shell, PIPES + first.name), ((first.name, _bytes(first.body)),)
            return (*stage.shell, first.body), ()
        bodies = "".join(f"\n{one.content}{one.name}" for one in instruction.heredocs)
        return (*stage.shell, text + bodies), ()

    # -- COPY and ADD ---------------------------------------------------------------------------------------------

    def _copy(self, stage: StageState, instruction: grammar.Copy | grammar.Add) -> None:
        dest = self.expand(instruction.destination, stage.env)
        chown = self._flag(stage, instruction.chown)
        chmod = self._flag(stage, instruction.chmod)
        sources = self._sources(stage, instruction)
        is_copy = isinstance(instruction, grammar.Copy)
        from_ = instruction.from_ if isinstance(instruction, grammar.Copy) else None
        if isinstance(instruction, grammar.Add) and instruction.checksum is not None:
            message = "checksum requires HTTP(S) or Git sources"
            raise self.error("checksum", message, instruction.checksum.span, hint="take --checksum out for local files")
        spec = CopySpec(
            sources=tuple(sources),
            dest=_bytes(dest),
            workdir=_bytes(stage.workdir),
            chown=chown,
            chmod=chmod,
            link=bool(instruction.link),
            parents=bool(instruction.parents) if isinstance(instruction, grammar.Copy) else False,
            exclude=tuple(word.text for word in instruction.excludes),
            unpack=isinstance(instruction, grammar.Add) and instruction.unpack is not False,
        )
        inputs = self._copy_inputs(stage, spec, from_, instruction.span)
        self._advance(stage, CopyOp(spec=spec), inputs, instruction)
        stage.config.commit(_copy_text("COPY" if is_copy else "ADD", spec, dest), layer=True)

    def _copy_inputs(
        self, stage: StageState, spec: CopySpec, from_: Word | None, span: Span
    ) -> tuple[Vertex, ...]:
        """The parent first, then the tree that path sources are in; heredocs alone need none."""
        if from_ is not None:
            return stage.tip, self.source_vertex(stage, from_.text, from_.span)
        if any(isinstance(source, PathSource) for source in spec.sources):
            return stage.tip, self.source_vertex(stage, None, span)
        return (stage.tip,)

    def _flag(self, stage: StageState, word: Word | None) -> str:
        return "" if word is None else self.expand(word, stage.env)

    def _sources(self, stage: StageState, instruction: grammar.Copy | grammar.Add) -> list[Source]:
        """Return the sources in the reference's order: paths, then heredocs."""
        sources: list[Source] = []
        for word in instruction.sources:
            text = self.expand(word, stage.env)
            self._refuse_remote(instruction, word, text)
            sources.append(PathSource(_bytes(text), len(sources)))
        for heredoc in instruction.heredocs:
            content = heredoc.body
            if heredoc.expand:
                try:
                    content = grammar.expand_heredoc(content, stage.env).text
                except grammar.ExpandError as error:
                    raise self.error("expansion", f"heredoc {heredoc.name}: {error}", heredoc.span) from error
            sources.append(TextSource(_bytes(heredoc.name), _bytes(content), len(sources)))
        return sources

    def _refuse_remote(self, instruction: grammar.Copy | grammar.Add, word: Word, text: str) -> None:
        lowered = text.lower()
        url = lowered.startswith(("http://", "https://"))
        git = lowered.startswith(("git://", "git@", "ssh://")) or (url and lowered.partition("#")[0].endswith(".git"))
        if not (url or git):
            return
        if isinstance(instruction, grammar.Copy):
            what = "a git ref" if git else "a URL"
            raise self.error("copy-remote", f"source can't be {what} for COPY", word.span, hint="use ADD for remote sources")
        hint = "download it in a RUN, or before the build, and COPY it"
        raise self.error("add-remote", f"ADD of {text} is not supported: sources are local files", word.span, hint=hint)


# -- helpers that need no planner --------------------------------------------------------------------------------------


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _counted(instructions: tuple[grammar.Instruction, ...]) -> int:
    """How many instructions are shown as steps."""
    return sum(
        isinstance(one, grammar.Run | grammar.Copy | grammar.Add | grammar.Workdir) for one in instructions
    )


def _from_names(instruction: grammar.Instruction) -> list[str]:
    """The stages an instruction names with --from or a mount's from=."""
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


def _proxies(given: Mapping[str, str], env: Mapping[str, str]) -> tuple[str, ...]:
    """The proxy arguments in both spellings, for those that the environment does not have already."""
    found: list[str] = []
    for name in PROXIES:
        value = given.get(name, given.get(name.lower()))
        if value is not None:
            found += [f"{one}={value}" for one in (name, name.lower()) if one not in env]
    return tuple(found)


def _command_text(stage: StageState, args: tuple[str, ...]) -> str:
    """A RUN's arguments as history shows them: the ARGs declared so far, with the values now in force, go before."""
    shown: dict[str, str] = {}
    for name, value in stage.args:
        shown[name] = f"{name}={stage.env.get(name, value or '')}"
    prefix = [f"|{len(shown)}", *shown.values()] if shown else []
    return " ".join([*prefix, *args])


def _copy_text(keyword: str, spec: CopySpec, dest: str) -> str:
    words = [keyword]
    if spec.parents:
        words.append("--parents")
    if spec.chown:
        words.append("--chown=" + spec.chown)
    if spec.chmod:
        words.append("--chmod=" + spec.chmod)
    for source in spec.sources:
        match source:
            case PathSource(path=path):
                words.append(path.decode("utf-8", "surrogateescape"))
            case TextSource(name=name):
                words.append("<<" + name.decode("utf-8", "surrogateescape"))
            case _:
                raise AssertionError("BUG: a downloaded file in a plan")
    return " ".join([*words, dest]) + " # buildkit"


def _healthcheck(config: ImageConfig, instruction: grammar.Healthcheck) -> None:
    match instruction.test:
        case None:
            test = ["NONE"]
        case grammar.ShellForm(text=text):
            test = ["CMD-SHELL", text]
        case grammar.ExecForm(args=args):
            test = ["CMD", *args]
        case _:
            assert_never(instruction.test)
    times = {
        "Interval": instruction.interval or 0,
        "Timeout": instruction.timeout or 0,
        "StartPeriod": instruction.start_period or 0,
        "StartInterval": instruction.start_interval or 0,
    }
    retries = instruction.retries or 0
    health: Json = {"Test": test, **{name: value for name, value in times.items() if value}}
    if retries:
        health["Retries"] = retries
    config.config["Healthcheck"] = health
    shown = " ".join(f"{name}:{go_duration(value)}" for name, value in times.items())
    config.commit(f"HEALTHCHECK {{Test:{go_list(test)} {shown} Retries:{retries}}}")

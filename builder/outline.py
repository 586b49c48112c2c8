"""What a Dockerfile offers to its callers: the stages that can be built, and what a build of one can be given.

Nothing is read but the Dockerfile: no base image, no context.
"""

from __future__ import annotations

import contextlib
import posixpath
from collections.abc import Iterator, Sequence

import grammar
from builder.errors import LocatedError
from builder.plan import Base, Planner, PlanOptions
from grammar import Span
from grammar.record import Record
from grammar.resolve import describe
from layerstore.platforms import Platform
from layerstore.reference import Reference


class Target(Record):
    """A stage that can be built; `name` is empty where it has none, `base` is an image or stage.

    As written, or with variables replaced (`resolved`).
    """

    name: str
    default: bool
    description: str
    base: str
    platform: str
    span: Span


class Argument(Record):
    """A build argument: `value` is what it has in this build, empty where nothing gives it one."""

    name: str
    description: str
    value: str
    span: Span


class Wanted(Record):
    """A secret or a key agent that a RUN mounts; `required` if one of its mounts cannot do without."""

    name: str
    required: bool
    span: Span


class Outline(Record):
    """What a target can be given, each in the order of the file."""

    name: str
    description: str
    args: tuple[Argument, ...]
    secrets: tuple[Wanted, ...]
    ssh: tuple[Wanted, ...]


def stages_of(data: bytes, name: str) -> grammar.Dockerfile:
    """Return the stages of a Dockerfile, be their references right or wrong; GrammarError."""
    try:
        return grammar.resolve(grammar.parse(data, name=name))
    except grammar.ResolveError as error:
        if error.dockerfile is None:
            raise
        return error.dockerfile


def targets(dockerfile: grammar.Dockerfile) -> tuple[Target, ...]:
    """Return the stages in the order of the file; the last is the default."""
    return tuple(
        Target(
            name=stage.name or "",
            default=stage is dockerfile.stages[-1],
            description=stage.description,
            base=stage.from_.image.text,
            platform=stage.from_.platform.text if stage.from_.platform else "",
            span=stage.from_.span,
        )
        for stage in dockerfile.stages
    )


def resolved(dockerfile: grammar.Dockerfile, options: PlanOptions, platforms: Sequence[Platform]) -> tuple[Target, ...]:
    """Return the stages with their bases and platforms as builds for `platforms` have them; LocatedError.

    What differs between platforms is listed with commas.
    """
    with _quoting(dockerfile):
        each = [_Outliner(dockerfile, options.replace(platform=one), _NoImages()).sources() for one in platforms]
    return tuple(
        target.replace(
            base=",".join(dict.fromkeys(sources[at][0] for sources in each)),
            platform=",".join(dict.fromkeys(str(sources[at][1]) for sources in each)),
        )
        for at, target in enumerate(targets(dockerfile))
    )


def outline(dockerfile: grammar.Dockerfile, options: PlanOptions) -> Outline:
    """Return what the target of `options` and the stages that it needs can be given; LocatedError.

    Of the ARGs before the first FROM there are those that a FROM of these stages uses, one of their ARGs takes over, or
    another such ARG is made of.
    """
    with _quoting(dockerfile):
        return _Outliner(dockerfile, options, _NoImages()).outline()


@contextlib.contextmanager
def _quoting(dockerfile: grammar.Dockerfile) -> Iterator[None]:
    try:
        yield
    except LocatedError as error:
        error.source, error.name = dockerfile.ast.source, dockerfile.ast.name
        raise


class _NoImages:
    """An outline asks for no image."""

    def image(self, reference: Reference, platform: Platform) -> Base:
        raise AssertionError(f"BUG: an outline asks for the image {reference.canonical} for {platform}")


class _Outliner(Planner):
    """A planner that plans no step: it knows which stages are needed, and the values of arguments."""

    def outline(self) -> Outline:
        stages = [self.dockerfile.stages[index] for index in sorted({*self._reachable(), self.target})]
        target = self.dockerfile.stages[self.target]
        secrets: dict[str, Wanted] = {}
        agents: dict[str, Wanted] = {}
        mounts: list[tuple[grammar.Mount, Span]] = []
        args = tuple(sorted(self._args(stages, mounts), key=lambda arg: arg.span.start))
        for mount, span in mounts:
            if mount.type == "secret":
                _want(secrets, mount.id or posixpath.basename(mount.target or ""), mount, span)
            elif mount.type == "ssh":
                _want(agents, mount.id or "default", mount, span)
        return Outline(
            name=target.name or "",
            description=target.description,
            args=args,
            secrets=tuple(secrets.values()),
            ssh=tuple(agents.values()),
        )

    def sources(self) -> list[tuple[str, Platform]]:
        """The base of each stage, and its platform: that of the stage it is based on, unless it names its own."""
        found: list[tuple[str, Platform]] = []
        for index, stage in enumerate(self.dockerfile.stages):
            base, platform = self.expand(stage.from_.image, self.globals), self._platform(stage.from_)
            below = self._stage_index(base, before=index, fold=False)
            inherits = below is not None and stage.from_.platform is None
            found.append((base, found[below][1] if inherits and below is not None else platform))
        return found

    def _args(self, stages: list[grammar.Stage], mounts: list[tuple[grammar.Mount, Span]]) -> Iterator[Argument]:
        """The arguments of the stages, each name once, and the global ones behind them; `mounts` gets all mounts."""
        used: set[str] = set()
        seen: set[str] = set()
        scopes: dict[str, dict[str, str]] = {}
        for stage in stages:
            for word in (stage.from_.image, stage.from_.platform):
                if word is not None:
                    used |= self._names(word)
            scope = dict(scopes.get(self.expand(stage.from_.image, self.globals), {}))
            for instruction in stage.instructions:
                if isinstance(instruction, grammar.Env):
                    scope |= {self.expand(p.key, scope): self.expand(p.value, scope) for p in instruction.pairs}
                elif isinstance(instruction, grammar.Run):
                    mounts += self._mounts(instruction, scope)
                elif isinstance(instruction, grammar.Arg):
                    for pair in instruction.pairs:
                        argument = self._argument(instruction, pair, scope)
                        used.add(argument.name)
                        # What the global scope declares is told there, unless this default takes its place.
                        if argument.name not in seen and (pair.value or argument.name not in self._declared()):
                            seen.add(argument.name)
                            yield argument
            if stage.name:
                scopes[stage.name] = scope
        yield from self._global_args(used, seen)

    def _mounts(self, run: grammar.Run, scope: dict[str, str]) -> Iterator[tuple[grammar.Mount, Span]]:
        for word in run.mounts:

            def expand(text: str, span: Span = word.span) -> str:
                return self.expand(grammar.Word(text=text, span=span), scope)

            try:
                yield grammar.parse_mount(word.text, expand=expand), word.span
            except grammar.MountError as error:
                raise self.error("mount", str(error), word.span, hint=getattr(error, "hint", "")) from error

    def _argument(self, instruction: grammar.Arg, pair: grammar.ArgPair, scope: dict[str, str]) -> Argument:
        name = pair.name.text
        value = self.options.build_args.get(name)
        if value is None:
            value = self.expand(pair.value, scope) if pair.value else self.globals.get(name)
        if value is not None:
            scope[name] = value
        description = describe(instruction.comments, name)
        return Argument(name=name, description=description, value=value or "", span=instruction.span)

    def _global_args(self, used: set[str], seen: set[str]) -> Iterator[Argument]:
        for instruction in reversed(self.dockerfile.global_args):
            for pair in reversed(instruction.pairs):
                name = pair.name.text
                if name not in used:
                    continue
                if pair.value is not None:
                    used |= self._names(pair.value)
                if name not in seen:
                    seen.add(name)
                    description = describe(instruction.comments, name)
                    value = self.globals.get(name, "")
                    yield Argument(name=name, description=description, value=value, span=instruction.span)

    def _declared(self) -> set[str]:
        return {pair.name.text for arg in self.dockerfile.global_args for pair in arg.pairs}

    def _names(self, word: grammar.Word) -> set[str]:
        """The variables that a word names; LocatedError if it cannot be expanded."""
        self.expand(word, self.globals)
        found = grammar.expand(word.text, self.globals, escape=self.escape)
        return {*found.used, *found.unset}


def _want(wanted: dict[str, Wanted], name: str, mount: grammar.Mount, span: Span) -> None:
    known = wanted.get(name)
    if known is None:
        wanted[name] = Wanted(name=name, required=mount.required, span=span)
    elif mount.required and not known.required:
        wanted[name] = known.replace(required=True)

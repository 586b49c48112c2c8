"""A planner that lets the rules of `grammar/lint` see what it plans; nothing of its graph is kept."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Mapping
from pathlib import Path

import grammar
from builder.build import BuildOptions
from builder.checkcontext import ContextView, unused_patterns
from builder.context import LocalContext
from builder.dockerignore import IgnoreFile, find_ignore_file
from builder.errors import LocatedError
from builder.instructions import NEVER_IN_ENV, Instructions
from builder.ops import ImageOp
from builder.plan import FetchedContext, Planner, stage_names
from builder.stage import StageState
from builder.storebases import StoreBases
from grammar import Span, Word
from grammar.lint.engine import Linter
from grammar.lint.fix import Fix, Text
from grammar.lint.planned import PlannedFile, PlannedStage, PlannedStep
from grammar.lint.rule import Finding, OtherFile, PlanRule, Rule, StageScope
from grammar.lint.rules import GRAPH_RULES, INSTRUCTION_RULES
from grammar.lint.rules.context import CopyIgnoredFile, UnusedIgnorePattern
from grammar.lint.rules.platforms import (
    FromPlatformFlagConstDisallowed,
    InvalidBaseImagePlatform,
    RedundantTargetPlatform,
)
from grammar.lint.rules.variables import InvalidDefaultArgInFrom, UndefinedArgInFrom, UndefinedVar, declare, rename
from grammar.text import nearest, quote
from layerstore import Store
from layerstore.platforms import InvalidPlatform, Platform
from layerstore.reference import InvalidReference, Reference

_REMOTE = ("http://", "https://", "git://", "git@", "ssh://")
_ENTITLEMENTS = frozenset({"device", "network.host", "security.insecure"})
_POSIX_SHELLS = frozenset({"sh", "bash", "ash", "dash", "ksh", "zsh"})


class _Current:
    """The instruction that is being planned, and which of its words were looked at."""

    def __init__(self, stage: StageState, instruction: grammar.Instruction, *, known: bool) -> None:
        self.stage = stage
        self.instruction = instruction
        self.known = known
        self.seen: set[tuple[Span, str]] = set()


class CheckPlanner(Planner):
    """A planner that tells a linter what it sees; its graph is thrown away."""

    def __init__(
        self, dockerfile: grammar.Dockerfile, options: BuildOptions, store: Store | None, linter: Linter
    ) -> None:
        self.linter = linter
        self.text = Text(dockerfile.ast.source)
        self.store_bases = StoreBases(store)
        self.current: _Current | None = None
        self.scopes: dict[int, StageScope] = {}
        self.unknown_stages: set[int] = set()
        self.declarations: set[tuple[int, str]] = set()
        self.ignore_path = _ignore_path(options)
        self.ignore = (
            None if self.ignore_path is None else IgnoreFile(self.ignore_path.read_bytes(), name=self.ignore_path.name)
        )
        self.steps: dict[int, list[PlannedStep]] = {}
        super().__init__(dockerfile, options.plan.replace(allow=_ENTITLEMENTS), self.store_bases)
        self.instructions = CheckInstructions(self)
        self.global_names = {pair.name.text for arg in dockerfile.global_args for pair in arg.pairs}

    def check_bases(self) -> None:
        """Look at the FROM of every stage, which comes before anything is planned; LocatedError."""
        self._check_defaults()
        for stage in self.dockerfile.stages:
            self._check_from(stage)
            self.check_from(stage)

    def check(self, *, whole: bool) -> None:
        """Plan what is to be looked at; the linter gets the findings, LocatedError ends it."""
        self.check_references()
        needed = range(len(self.dockerfile.stages)) if whole else self._reachable()
        for index in needed:
            self.plan_stage(index)
        self.plan_stage(self.target)
        self._check_ignore_file()
        wanted = [rule for rule in GRAPH_RULES if self.linter.wants(rule)]
        planned = self._planned_file(whole=whole) if wanted else None
        for rule in wanted:
            assert planned is not None
            for finding in rule.check(planned):
                self.linter.report(rule, finding)

    # -- what rules about the whole see -----------------------------------------------------------------------------

    def note(self, stage: StageState, instruction: grammar.Instruction) -> PlannedStep:
        """Return an instruction as it stands, before it is planned."""
        sources: tuple[str, ...] = ()
        destination = image = ""
        local = False
        index: int | None = None
        if isinstance(instruction, grammar.Copy | grammar.Add):
            sources = tuple(self.expand(word, stage.env) for word in instruction.sources)
            destination = posixpath.join(stage.workdir, self.expand(instruction.destination, stage.env))
            from_ = instruction.from_ if isinstance(instruction, grammar.Copy) else None
            if from_ is None:
                local = any(not source.startswith(_REMOTE) for source in sources)
            else:
                index = self._from_index(from_.text)
                image = from_.text if index is None and self.named_context(from_.text) is None else ""
        return PlannedStep(
            instruction=instruction,
            env=dict(stage.env),
            args=frozenset(name for name, _ in stage.args),
            workdir=stage.workdir,
            posix=stage.shell[0].rpartition("/")[2] in _POSIX_SHELLS,
            sources=sources,
            destination=destination,
            local=local,
            stage=index,
            image=image,
        )

    def _planned_file(self, *, whole: bool) -> PlannedFile:
        root = _directory(self.options.context)
        context = None if root is None else LocalContext(root, self.ignore, label="context", opened_ns=0)
        return PlannedFile(
            dockerfile=self.dockerfile,
            text=self.text,
            stages={index: self._planned_stage(index) for index in sorted(self.stages)},
            target=None if whole else self.target,
            global_args=frozenset(self.global_names),
            context=None if context is None else ContextView(context),
        )

    def _planned_stage(self, index: int) -> PlannedStage:
        written = self.dockerfile.stages[index]
        base = self._base_stage(index)
        named = [name for one in written.instructions for name in stage_names(one)]
        uses = {found for name in named if (found := self._from_index(name)) is not None and found < index}
        image = self.expand(written.from_.image, self.globals) if base is None else ""
        own = written.name and self.named_context(written.name) is not None
        return PlannedStage(
            stage=written,
            base=base,
            image="" if own or image == "scratch" or self.named_context(image) is not None else image,
            known=index not in self.unknown_stages,
            uses=frozenset(uses if base is None else {*uses, base}),
            steps=tuple(self.steps.get(index, ())),
        )

    def _check_ignore_file(self) -> None:
        rule = UnusedIgnorePattern()
        root = _directory(self.options.context)
        if self.ignore is None or self.ignore_path is None or root is None or not self.linter.wants(rule):
            return
        text = self.ignore_path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
        file = OtherFile(name=self.ignore.name, text=text)
        for span, pattern, why in unused_patterns(self.ignore, root):
            message = rule.message.format(quote(pattern), why)
            self.linter.report(rule, Finding(None, message, span, file=file))

    def tell(self, rule: PlanRule, instruction: grammar.Instruction, *values: str, fix: Fix | None = None) -> bool:
        """Report that an instruction breaks a rule; say if anybody wants to hear it."""
        return self.linter.report(rule, rule.finding(instruction, *values, fix=fix))

    # -- FROM -----------------------------------------------------------------------------------------------------

    def _check_defaults(self) -> None:
        """Expand FROM as if there were no build arguments."""
        given, self.options = self.options, self.options.replace(build_args={})
        try:
            defaults = self._global_scope()
            names = [self.expand(stage.from_.image, defaults) for stage in self.dockerfile.stages]
        except LocatedError:
            return  # the plan itself will most likely fail, and say why
        finally:
            self.options = given
        for stage, name in zip(self.dockerfile.stages, names, strict=True):
            try:
                Reference.parse(name)
            except InvalidReference:
                self.tell(InvalidDefaultArgInFrom(), stage.from_, stage.from_.image.text)

    def _check_from(self, stage: grammar.Stage) -> None:
        from_ = stage.from_
        self._undeclared(from_, from_.image)
        if from_.platform is None or not from_.platform.text:
            return
        expansion = self._undeclared(from_, from_.platform)
        if expansion.used == {"TARGETPLATFORM"} and not expansion.unset:
            if expansion.text == self.globals["TARGETPLATFORM"]:
                rule = RedundantTargetPlatform()
                # A stage may be for another platform, and then says nothing redundant to the one based on it.
                fix = rule.without(from_, self.text) if self._base_stage(stage.index) is None else None
                self.tell(rule, from_, from_.platform.text, fix=fix)
        elif not expansion.used and not expansion.unset:
            self._constant_platform(stage, expansion.text)

    def _undeclared(self, from_: grammar.From, word: Word) -> grammar.Expansion:
        """Expand a word of FROM, and tell of variables that no ARG above the first FROM declares."""
        fault: grammar.ExpandError | None = None
        try:
            expansion = grammar.expand(word.text, self.globals, escape=self.escape)
            unset = expansion.unset
        except grammar.ExpandError as error:
            fault, unset = error, error.unset
        declared = {pair.name.text for arg in self.dockerfile.global_args for pair in arg.pairs} | set(self.globals)
        for name in sorted(unset - declared):
            near = nearest(name, sorted(declared))
            fix = rename(name, near, word, self.text) if near else None
            self.tell(UndefinedArgInFrom(), from_, name, f" (did you mean {near}?)" if near else "", fix=fix)
        if fault is not None:
            raise self.expansion_error(word, fault) from fault
        return expansion

    def _constant_platform(self, stage: grammar.Stage, text: str) -> None:
        try:
            platform = Platform.parse(text, host=self.options.build_platform)
        except InvalidPlatform:
            return  # planning the stage says so
        if platform.os not in (stage.name or "") and platform.architecture not in (stage.name or ""):
            self.tell(FromPlatformFlagConstDisallowed(), stage.from_, text)

    def _start(self, index: int, written: grammar.Stage) -> StageState:
        outer, self.current = self.current, None
        stage = super()._start(index, written)
        self.current = outer
        self.scopes[index] = StageScope(stage.env, text=self.text, escape=self.escape)
        self.scopes[index].shell_is_set = bool(stage.config.config.get("Shell"))
        base = self._base_stage(index)
        if base is not None:
            self.scopes[index].workdir_is_set = self.scopes[base].workdir_is_set
            if base in self.unknown_stages:
                self.unknown_stages.add(index)
        elif isinstance(stage.tip.op, ImageOp):
            self._check_base(index, stage, stage.tip.op)
        return stage

    def _base_stage(self, index: int) -> int | None:
        written = self.dockerfile.stages[index]
        if written.name and self.named_context(written.name) is not None:
            return None
        return self._stage_index(self.expand(written.from_.image, self.globals), before=index, fold=False)

    def _check_base(self, index: int, stage: StageState, op: ImageOp) -> None:
        if op.reference in self.store_bases.unknown:
            self.unknown_stages.add(index)
            return
        document = stage.config.document
        found = Platform.of(document["os"], document["architecture"], document.get("variant", ""))
        if (found.os, found.architecture) != (stage.platform.os, stage.platform.architecture):
            from_ = self.dockerfile.stages[index].from_
            name = self.expand(from_.image, self.globals)
            self.tell(InvalidBaseImagePlatform(), from_, name, str(found), str(stage.platform))

    # -- instructions ---------------------------------------------------------------------------------------------

    def begin(self, stage: StageState, instruction: grammar.Instruction) -> list[tuple[Rule, Finding]]:
        """Look at an instruction before it is planned; return what the rules about it found."""
        index = self.dockerfile.stages.index(stage.written)
        self.current = _Current(stage, instruction, known=index not in self.unknown_stages)
        return self.linter.look_at(INSTRUCTION_RULES, instruction, self.scopes[index])

    def expand(self, word: Word, env: Mapping[str, str]) -> str:
        """As the plan expands it; tell of the variables that are not defined."""
        current = self.current
        if current is not None and env is current.stage.env and "$" in word.text:
            try:
                expansion = grammar.expand(word.text, env, escape=self.escape)
            except grammar.ExpandError as error:
                self._undefined(current, word, error.unset)
                raise self.expansion_error(word, error) from error
            self._undefined(current, word, expansion.unset)
            return expansion.text
        return super().expand(word, env)

    def undefined_in_heredocs(self, instruction: grammar.Instruction) -> None:
        """Tell of variables in the files that a COPY or ADD holds."""
        if self.current is None or not isinstance(instruction, grammar.Copy | grammar.Add):
            return
        for heredoc in instruction.heredocs:
            if heredoc.expand:
                expansion = grammar.expand_heredoc(heredoc.content, self.current.stage.env)
                self._undefined(self.current, Word(text=heredoc.text, span=heredoc.span), expansion.unset)

    def _undefined(self, current: _Current, word: Word, unset: frozenset[str]) -> None:
        if (word.span, word.text) in current.seen or not current.known:
            return
        current.seen.add((word.span, word.text))
        declared = {name for name, _ in current.stage.args} | NEVER_IN_ENV
        for name in sorted(unset - declared):
            near = nearest(name, current.stage.assigned)
            fix = self._declaration(current, name)
            if fix is None and near and not current.stage.trigger:
                fix = rename(name, near, word, self.text)
            hint = f" (did you mean ${near}?)" if near else ""
            self.tell(UndefinedVar(), current.instruction, name, hint, fix=fix)

    def _declaration(self, current: _Current, name: str) -> Fix | None:
        """The fix that takes a global ARG over into a stage, once for a stage and those based on it."""
        if name not in self.global_names or current.stage.trigger:
            return None
        index: int | None = current.stage.written.index
        while index is not None:
            if (index, name) in self.declarations:
                return None
            index = self._base_stage(index)
        self.declarations.add((current.stage.written.index, name))
        return declare(name, current.instruction, self.dockerfile.ast, self.text)

    def check_sources(self, stage: StageState, instruction: grammar.Instruction) -> None:
        """Tell of sources that the ignore file takes out of the context."""
        if self.ignore is None or self.ignore.has_exceptions:
            return
        if not isinstance(instruction, grammar.Copy | grammar.Add):
            return
        if isinstance(instruction, grammar.Copy) and instruction.from_ is not None:
            return
        for word in instruction.sources:
            source = self.expand(word, stage.env)
            path = posixpath.normpath("/" + source).lstrip("/")
            if path and not source.startswith(_REMOTE) and self.ignore.explain(os.fsencode(path)) is not None:
                self.tell(CopyIgnoredFile(), instruction, instruction.keyword.capitalize(), source)


class CheckInstructions(Instructions):
    """Plans instructions as a build does, and lets the rules look at each."""

    def __init__(self, planner: CheckPlanner) -> None:
        super().__init__(planner)
        self._checker = planner

    def apply(self, stage: StageState, instruction: grammar.Instruction) -> None:
        """Plan one instruction; LocatedError for what it gets wrong."""
        checker = self._checker
        outer = checker.current
        findings = checker.begin(stage, instruction)
        noted = checker.note(stage, instruction)
        super().apply(stage, instruction)
        if not stage.trigger:
            checker.steps.setdefault(stage.written.index, []).append(noted)
        checker.undefined_in_heredocs(instruction)
        for rule, finding in findings:
            # What a trigger of the base says is written elsewhere.
            checker.linter.report(rule, finding._replace(fix=None) if stage.trigger else finding)
        checker.check_sources(stage, instruction)
        checker.current = outer


def _directory(context: Path | FetchedContext | None) -> Path | None:
    """Return where the context is on the host; what is fetched is whole, and nothing of it is looked at."""
    return context if isinstance(context, Path) else None


def _ignore_path(options: BuildOptions) -> Path | None:
    """The file whose rules the build's own context is read with."""
    root = _directory(options.plan.context)
    return find_ignore_file(root, options.path) if root is not None and options.heeds_ignore_file else None

"""What the names in a Dockerfile are: stages and variables, where they are declared and where they are used.

Works on drafts: what cannot be read declares nothing. Values are those of a build without `--build-arg`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import grammar
from grammar import ExpandError, Node, Position, Span, Word
from grammar.draft import Draft, Piece
from grammar.manual import AUTOMATIC_ARGS
from grammar.resolve import describe
from grammar.variables import Named, named, named_in_shell

_MOUNT_FROM = re.compile(r"""(?:(?<=[,"'])|(?<=--mount=))from=([^,"'\s]+)""", re.IGNORECASE)
_EXPANDED = frozenset({"from", "add", "copy", "env", "expose", "label", "stopsignal", "user", "volume", "workdir"})
_AT_RUN_TIME = frozenset({"cmd", "entrypoint", "healthcheck"})


class Stage(NamedTuple):
    """A FROM and what follows it; `name` is as written, `lines` its first and last line, from 1."""

    number: int
    name: str
    image: str
    keyword: Span
    head: Span
    lines: tuple[int, int]
    description: str


class Variable(NamedTuple):
    """One declaration of a variable by `ARG`, `ENV` or nobody (`automatic`).

    `value` is the default as written, None where there is none; `known` what it comes to, None if that is not known
    here. `outer` is the ARG above the first FROM that a bare ARG takes over. `group` is shared by all declarations of
    what a reader would call one variable.
    """

    name: str
    kind: str
    span: Span | None
    value: str | None
    known: str | None
    description: str
    outer: Variable | None
    group: int


class Use(NamedTuple):
    """A place that names a stage, by its index in `stages`, or a variable; `by_name` is False for `--from=0`."""

    span: Span
    target: int | Variable
    declares: bool = False
    by_name: bool = True


class Symbols:
    """The names of one draft."""

    def __init__(self, draft: Draft) -> None:
        self.draft = draft
        self.stages: tuple[Stage, ...] = ()
        self.uses: list[Use] = []
        # Where a FROM names a stage; and the names in FROM, COPY --from and mounts that name none.
        self.bases: set[Span] = set()
        self.foreign: list[tuple[Span, str]] = []
        # For each piece: the stage it is in (-1 above the first), and the variables that count before it.
        self.stage_of: list[int] = []
        self.visible: list[Mapping[str, Variable]] = []
        _Reader(self).read()
        self.uses.sort(key=lambda use: (use.span.start, not use.declares))

    def use_at(self, position: Position) -> Use | None:
        """Return what is named at a place, its last character's right side included; a use before a declaration."""
        found = [use for use in self.uses if use.span.start <= position <= use.span.end]
        return min(found, key=lambda use: use.declares, default=None)

    def uses_of(self, target: int | Variable) -> list[Use]:
        """Return all places that name a stage or a variable, in the order of the file, each once."""
        if isinstance(target, int):
            return [use for use in self.uses if use.target == target]
        found = {
            use.span: use for use in self.uses if isinstance(use.target, Variable) and use.target.group == target.group
        }
        return list(found.values())

    def stage_named(self, name: str, *, before: int | None = None, fold: bool = True) -> int | None:
        """Return the index of the last stage of that name, of those `before` an index if there is one."""
        wanted = name.lower() if fold else name
        for stage in reversed(self.stages[:before]):
            if stage.name and stage.name.lower() == wanted:
                return stage.number
        return None


class _Scope:
    """The variables of one stage; an ENV wins over an ARG wherever they stand."""

    def __init__(self, args: dict[str, Variable], envs: dict[str, Variable]) -> None:
        self.args = args
        self.envs = envs
        self.visible: Mapping[str, Variable] = {**args, **envs}

    def declare(self, variable: Variable) -> None:
        (self.envs if variable.kind == "ENV" else self.args)[variable.name] = variable
        self.visible = {**self.args, **self.envs}

    def copy(self) -> _Scope:
        return _Scope(dict(self.args), dict(self.envs))


class _Reader:
    """Goes through a draft once, from top to bottom."""

    def __init__(self, symbols: Symbols) -> None:
        self.symbols = symbols
        self.escape = symbols.draft.ast.escape
        self.stages: list[Stage] = []
        self.groups: list[int] = []
        automatic = {name: self._automatic(name, text) for name, text in AUTOMATIC_ARGS.items()}
        # Above the first FROM, and in every FROM.
        self.globals = _Scope(automatic, {})
        self.scope = self.globals
        self.scopes: list[_Scope] = []
        # References to stages, told apart once all stages are known.
        self.references: list[tuple[Span, str]] = []

    def read(self) -> None:
        for index, piece in enumerate(self.symbols.draft.pieces):
            node = piece.node
            if node is not None and node.keyword == "from":
                self._end_stage(index)
                self._from(piece, node)
                continue
            self._note()
            if node is not None:
                self._instruction(piece, node)
        self._end_stage(len(self.symbols.draft.pieces))
        self.symbols.stages = tuple(self.stages)
        self._resolve_references()
        self.symbols.uses = [self._settled(use) for use in self.symbols.uses]
        # Pieces between two declarations share one mapping.
        grouped: dict[int, Mapping[str, Variable]] = {}
        for visible in self.symbols.visible:
            if id(visible) not in grouped:
                grouped[id(visible)] = {name: self._with_group(variable) for name, variable in visible.items()}
        self.symbols.visible = [grouped[id(visible)] for visible in self.symbols.visible]

    def _note(self) -> None:
        self.symbols.stage_of.append(len(self.stages) - 1)
        self.symbols.visible.append(self.scope.visible)

    # -- stages -------------------------------------------------------------------------------------------------------

    def _end_stage(self, index: int) -> None:
        """Let the last stage reach to the piece before `index`."""
        if self.stages:
            stage = self.stages[-1]
            last = max(self.symbols.draft.pieces[index - 1].end, stage.lines[0])
            self.stages[-1] = stage._replace(lines=(stage.lines[0], last))

    def _from(self, piece: Piece, node: Node) -> None:
        words = node.words
        index = len(self.stages)
        named_as = words[2] if len(words) == 3 and words[1].text.lower() == "as" else None
        name = named_as.text if named_as is not None else ""
        self.scope = self.globals
        self.stages.append(
            Stage(
                number=index,
                name=name,
                image=words[0].text if words else "",
                keyword=node.word.span,
                head=node.span,
                lines=(piece.line.first, piece.end),
                description=describe(piece.line.comments, name.lower()) if name else "",
            )
        )
        self._note()
        self._find(piece, self._head_end(node), len(node.text))
        base = None
        if words:
            base = self._base(words[0], index)
        if named_as is not None:
            self._use(Use(named_as.span, index, declares=True))
        self.scope = self.scopes[base].copy() if base is not None else _Scope({}, {})
        self.scopes.append(self.scope)

    def _base(self, word: Word, index: int) -> int | None:
        """The stage above that a FROM names, which it does in lower case."""
        for stage in reversed(self.stages[:index]):
            if stage.name and stage.name.lower() == word.text:
                self._use(Use(word.span, stage.number))
                self.symbols.bases.add(word.span)
                return stage.number
        self.symbols.foreign.append((word.span, word.text))
        return None

    def _resolve_references(self) -> None:
        for span, name in self.references:
            if name.isascii() and name.isdecimal():
                index = int(name) if len(name) < 10 else -1
                if 0 <= index < len(self.stages):
                    self._use(Use(span, index, by_name=False))
                continue
            found = self.symbols.stage_named(name)
            if found is None:
                self.symbols.foreign.append((span, name))
            else:
                self._use(Use(span, found))

    # -- instructions -------------------------------------------------------------------------------------------------

    def _instruction(self, piece: Piece, node: Node) -> None:
        keyword = node.keyword
        if keyword == "arg":
            self._arg(piece, node)
        elif keyword in _EXPANDED:
            if keyword != "add":
                self._flag_references(piece, node)
            self._find(piece, self._head_end(node), len(node.text))
            self._heredocs(piece, node)
            if keyword == "env":
                self._env(piece, node)
        elif keyword == "run":
            self._flag_references(piece, node)
            start = self._head_end(node)
            for flag in node.flags:
                first = piece.line.offset(flag.span.start)
                start = first + len(flag.text)
                self._find(piece, first, start)
            if not node.json:
                self._find_in_shell(piece, start, self.scope.visible)
            self._heredocs(piece, node)
        elif keyword in _AT_RUN_TIME and not node.json:
            self._find_in_shell(piece, self._head_end(node), self.scope.envs)

    def _head_end(self, node: Node) -> int:
        return node.start + len(node.word.text)

    def _arg(self, piece: Piece, node: Node) -> None:
        for key, value in node.pairs:
            if value is not None:
                start = piece.line.offset(value.span.start)
                self._find(piece, start, start + len(value.text))
            outer = None
            if value is None and self.scope is not self.globals:
                outer = self.globals.visible.get(key.text)
            self._declare("ARG", piece, key, value, outer)

    def _env(self, piece: Piece, node: Node) -> None:
        # All values are those from before the instruction.
        before = self.scope.visible
        for key, value in node.pairs:
            self._declare("ENV", piece, key, value, None, before)

    def _declare(
        self,
        kind: str,
        piece: Piece,
        key: Word,
        value: Word | None,
        outer: Variable | None,
        before: Mapping[str, Variable] | None = None,
    ) -> None:
        name = key.text
        if not name or "$" in name:
            return
        known = outer.known if outer is not None else None
        if value is not None:
            known = self._known(value.text, self.scope.visible if before is None else before)
        earlier = self.scope.visible.get(name)
        group = len(self.groups)
        self.groups.append(group)
        for other in (outer, earlier):
            if other is not None:
                self._join(group, other.group)
        variable = Variable(
            name=name,
            kind=kind,
            span=key.span,
            value=None if value is None else value.text,
            known=known,
            description=describe(piece.line.comments, name),
            outer=outer,
            group=group,
        )
        self.scope.declare(variable)
        self._use(Use(key.span, variable, declares=True))
        if outer is not None:
            self._use(Use(key.span, outer))

    def _automatic(self, name: str, text: str) -> Variable:
        group = len(self.groups)
        self.groups.append(group)
        return Variable(name, "automatic", None, None, None, text, None, group)

    def _known(self, text: str, visible: Mapping[str, Variable]) -> str | None:
        """What a value comes to; None if it cannot be said without a build."""
        names = {one.name for one in named(text, escape=self.escape)}
        values = {name: variable.known for name, variable in visible.items()}
        if any(name in values and values[name] is None for name in names):
            return None
        try:
            env = {name: value for name, value in values.items() if value is not None}
            return grammar.expand(text, env, escape=self.escape).text
        except ExpandError:
            return None

    # -- places -------------------------------------------------------------------------------------------------------

    def _flag_references(self, piece: Piece, node: Node) -> None:
        for flag in node.flags:
            start = piece.line.offset(flag.span.start)
            if flag.name == "from" and flag.value:
                at = flag.text.find(flag.value)
                if at > 0:
                    self.references.append((_span(piece, start + at, start + at + len(flag.value)), flag.value))
            elif flag.name == "mount":
                for match in _MOUNT_FROM.finditer(flag.text):
                    self.references.append((_span(piece, start + match.start(1), start + match.end(1)), match[1]))

    def _find(self, piece: Piece, start: int, end: int) -> None:
        """Note the variables in a stretch of a line that the build expands."""
        text = piece.line.text[start:end]
        if "$" in text:
            self._take(piece, start, named(text, escape=self.escape), self.scope.visible)

    def _find_in_shell(self, piece: Piece, start: int, visible: Mapping[str, Variable]) -> None:
        text = piece.line.text[start:]
        if "$" in text:
            self._take(piece, start, named_in_shell(text), visible)

    def _take(self, piece: Piece, start: int, found: list[Named], visible: Mapping[str, Variable]) -> None:
        for one in found:
            variable = visible.get(one.name)
            if variable is not None:
                self._use(Use(_span(piece, start + one.start, start + one.end), variable))

    def _heredocs(self, piece: Piece, node: Node) -> None:
        line = piece.last + 1
        for heredoc in node.heredocs:
            content = heredoc.content
            if node.keyword == "run":
                found = named_in_shell(content) if "$" in content else []
            else:
                found = named(content, quotes=False) if heredoc.expand and "$" in content else []
            for one in found:
                variable = self.scope.visible.get(one.name)
                if variable is not None:
                    above = content.count("\n", 0, one.start)
                    column = one.start - (content.rfind("\n", 0, one.start) + 1) + 1
                    start = Position(line + above, column)
                    self._use(Use(Span(start, Position(start.line, column + len(one.name))), variable))
            line += content.count("\n") + 1

    def _use(self, use: Use) -> None:
        # A name that a continuation breaks in two has no place of its own.
        if use.span.start.line == use.span.end.line:
            self.symbols.uses.append(use)

    # -- groups -------------------------------------------------------------------------------------------------------

    def _root(self, group: int) -> int:
        while self.groups[group] != group:
            group = self.groups[group]
        return group

    def _join(self, one: int, other: int) -> None:
        first, second = sorted((self._root(one), self._root(other)))
        self.groups[second] = first

    def _with_group(self, variable: Variable) -> Variable:
        return variable._replace(group=self._root(variable.group))

    def _settled(self, use: Use) -> Use:
        return use if isinstance(use.target, int) else use._replace(target=self._with_group(use.target))


def _span(piece: Piece, start: int, end: int) -> Span:
    return piece.line.span(start, end)


def children(symbols: Symbols, stage: Stage) -> Iterator[Piece]:
    """Yield the pieces of a stage below its FROM that can be read."""
    for piece, index in zip(symbols.draft.pieces, symbols.stage_of, strict=True):
        if index == stage.number and piece.node is not None and piece.node.keyword != "from":
            yield piece

"""What a rule is: a name, a page (its docstring) and, for most rules, a check. Knows the shapes and no rule."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from inspect import cleandoc
from typing import ClassVar, NamedTuple

from grammar.ast import Instruction, Word
from grammar.diagnostics import Diagnostic, Position, Severity, Span
from grammar.errors import ExpandError
from grammar.expand import expand
from grammar.lint.fix import Fix, Text
from grammar.lint.planned import PlannedFile
from grammar.record import Record
from grammar.resolve import Dockerfile

_PAGES = "https://docs.docker.com/go/dockerfile/rule/"
_WORD_START = re.compile(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


BUILDKIT = "buildkit"
"""The group of the rules that BuildKit has too, under the same names."""
PYBUILD = "pybuild"
"""The group of the rules that BuildKit lacks."""
STYLE = "style"
"""The group of the rules that are a matter of taste: each has to be asked for."""


class Rule:
    """A rule: the class is its name and the docstring its page; `description` is one line about it.

    An `experimental` rule has to be asked for.
    """

    description: ClassVar[str]
    group: ClassVar[str] = BUILDKIT
    experimental: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """The name, for those of BuildKit as it has it, such as `StageNameCasing`."""
        return type(self).__name__

    @property
    def slug(self) -> str:
        """The name as it stands in addresses, such as `stage-name-casing`."""
        return _WORD_START.sub("-", self.name).lower()

    @property
    def url(self) -> str:
        """Where BuildKit documents the rule; "" if it does not have it."""
        return f"{_PAGES}{self.slug}/" if self.group == BUILDKIT else ""

    @property
    def reference(self) -> str:
        """Where people read about the rule: an address or a command."""
        return self.url or f"pybuild check --explain {self.name}"

    @property
    def page(self) -> str:
        """The page as Markdown, without its title."""
        return cleandoc(type(self).__doc__ or "")


class OtherFile(Record):
    """A text that a Dockerfile brings along, such as its ignore file; `name` is what messages call it."""

    name: str
    text: str


class Finding(NamedTuple):
    """One place that a rule objects to; `span` is that of the instruction unless the rule knows better.

    A finding in another file belongs to no instruction.
    """

    instruction: Instruction | None
    message: str
    span: Span
    fix: Fix | None = None
    file: OtherFile | None = None


def found(instruction: Instruction, message: str, fix: Fix | None = None) -> Finding:
    """Return a finding about a whole instruction."""
    return Finding(instruction, message, instruction.span, fix)


class Violation(Record):
    """A rule that a Dockerfile breaks, and where; `message` is the reference's text where it has the rule.

    `fix` is what would repair it. `file` is None for the Dockerfile.
    """

    rule: Rule
    message: str
    span: Span
    fix: Fix | None = None
    file: OtherFile | None = None
    severity: Severity = Severity.WARNING

    @property
    def lines(self) -> tuple[int, int]:
        """The first and the last line, 1-based and inclusive."""
        return self.span.lines

    @property
    def diagnostic(self) -> Diagnostic:
        """The violation as something to tell with a place; `file` says in which text."""
        return Diagnostic(
            severity=self.severity, code=self.rule.name, message=self.message, span=self.span, hint=self.rule.reference
        )


class FileRule(Rule, ABC):
    """A rule about the text: it needs neither values nor base images, and looks at every stage."""

    @abstractmethod
    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield what the rule objects to, in the order of the file."""


class StageScope:
    """What is known where an instruction stands; rules keep their own notes about a stage here.

    `env` is what variables are replaced from, `text` the file. `shell_is_set` tells of a SHELL here or in the base.
    `workdir_is_set` is handed on to stages based on this one; `last` holds the latest instruction of each keyword that
    counts once.
    """

    def __init__(self, env: Mapping[str, str], *, text: Text, escape: str, workdir_is_set: bool = False) -> None:
        self.env = env
        self.text = text
        self.escape = escape
        self.shell_is_set = False
        self.workdir_is_set = workdir_is_set
        self.last: dict[str, Instruction] = {}

    def expand(self, word: Word) -> str:
        """Return the word with variables replaced; one that cannot be expanded is returned as written."""
        try:
            return expand(word.text, self.env, escape=self.escape).text
        except ExpandError:
            return word.text


class InstructionRule(Rule, ABC):
    """A rule about one instruction where it stands; it looks at the stages that are built."""

    @abstractmethod
    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield what the rule objects to; called once for every instruction of a stage, in order."""


class GraphRule(Rule, ABC):
    """A rule about what the stages of a plan are and how they hang together."""

    @abstractmethod
    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield what the rule objects to; called once, when all stages that are looked at are planned."""


class PlanRule(Rule):
    """A rule about what only a plan knows (values, base images, the context); the planner calls it by `message`."""

    message: ClassVar[str]

    def finding(self, instruction: Instruction, *values: str, fix: Fix | None = None) -> Finding:
        """Return the finding about `instruction` whose message names `values`."""
        return found(instruction, self.message.format(*values), fix)


def keyword(instruction: Instruction) -> str:
    """Return the keyword as it is written."""
    return instruction.original.lstrip()[: len(instruction.keyword)]


def line_span(number: int, text: str) -> Span:
    """Return the place of a whole line."""
    return Span(Position(number, 1), Position(number, len(text) + 1))

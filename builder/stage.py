"""A stage while it is planned: the state that its instructions change, and what they may ask of the plan around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

import grammar
from builder.errors import LocatedError
from builder.graph import Vertex
from builder.image import ImageConfig
from builder.ops import GitOp, Op
from grammar import Span, Word
from layerstore.platforms import Platform

if TYPE_CHECKING:
    from builder.plan import PlanOptions

DEFAULT_SHELL = ("/bin/sh", "-c")


class StageState:
    """A stage while it is planned: the state that instructions change.

    `env` is what variables are replaced from, `assigned` its names, that set last at the end, `args` the ARGs so far
    and their values. `label` and `index` of `total` are the stage's part of its steps' names, where an image that it is
    based on counts (`from_image`); `trigger` is set while ONBUILD triggers of the base are planned.
    """

    def __init__(self, config: ImageConfig, tip: Vertex, platform: Platform) -> None:
        self.config = config
        self.tip = tip
        self.platform = platform
        self.env: dict[str, str] = {}
        self.assigned: dict[str, None] = {}
        self.args: list[tuple[str, str | None]] = []
        self.written: grammar.Stage
        self.name = ""
        self.label = ""
        self.total = 0
        self.index = 0
        self.from_image = False
        self.cmd_is_set = False
        self.ignore_cache = False
        self.trigger = False

    def fork(self) -> StageState:
        """Return what a stage that is based on this one starts with: what ENV set there beats its ARGs here."""
        stage = StageState(self.config.fork(), self.tip, self.platform)
        stage.assigned = dict(self.assigned)
        stage.env = dict(self.env)
        stage.assign(self.config.env)
        stage.args = list(self.args)
        return stage

    def assign(self, values: Mapping[str, str]) -> None:
        """Set variables."""
        self.env.update(values)
        for name in values:
            self.assigned.pop(name, None)
            self.assigned[name] = None

    @property
    def shell(self) -> tuple[str, ...]:
        """The program and arguments that shell forms are handed to."""
        return tuple(self.config.config.get("Shell") or DEFAULT_SHELL)

    @property
    def workdir(self) -> str:
        """The working directory, absolute."""
        return self.config.config.get("WorkingDir") or "/"


class Planning(Protocol):
    """The plan that a stage is part of, as the planners of single instructions see it (`builder.plan.Planner`).

    `globals` is the scope of FROM lines: automatic arguments and the ARGs before the first FROM.
    """

    options: PlanOptions
    globals: dict[str, str]
    escape: str

    def expand(self, word: Word, env: Mapping[str, str]) -> str:
        """Return `word` with its variables replaced; LocatedError at the word."""

    def error(self, code: str, message: str, span: Span | None, *, hint: str = "") -> LocatedError:
        """Return a located error of this Dockerfile."""

    def expansion_error(self, word: Word, error: grammar.ExpandError) -> LocatedError:
        """Return what went wrong with the variables of `word`, at the word."""

    def source_vertex(self, stage: StageState, name: str | None, span: Span, *, mount: str | None = None) -> Vertex:
        """Return what `--from=name`, or a mount on `mount`, reads; None is the build's own context."""

    def git_vertex(self, op: GitOp, text: str, span: Span | None) -> Vertex:
        """Return the vertex of a git repository, written as `text`."""

    def advance(self, stage: StageState, op: Op, inputs: tuple[Vertex, ...], instruction: grammar.Instruction) -> None:
        """Make `op` the stage's new tip."""

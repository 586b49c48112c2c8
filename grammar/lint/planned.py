"""What a plan knows of a Dockerfile, as rules see it: the stages, which need which, and where each step stands.

Values only; whoever plans fills them in.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from grammar.ast import Instruction
from grammar.lint.fix import Text
from grammar.record import Record
from grammar.resolve import Dockerfile, Stage


class Context(Protocol):
    """The build context, without what its ignore file hides; paths are relative to its root."""

    def read(self, path: str) -> str | None:
        """Return the text of a file; None if there is no such file."""

    def is_directory(self, path: str) -> bool:
        """Say whether a path, "" for the root, is a directory."""


class PlannedStep(Record):
    """One instruction where it stands.

    `env` holds the variables that are set there, `args` the names of the build arguments among them, `workdir` is
    absolute. Of a COPY or ADD, `sources` are the paths and URLs with variables replaced and `destination` is absolute;
    `local` says that the sources are in the build context, `stage` is the index of the stage that they are in, `image`
    the name of the image. `posix` says that shell forms go to a shell that knows `$NAME`.
    """

    instruction: Instruction
    env: Mapping[str, str]
    args: frozenset[str]
    workdir: str
    posix: bool
    sources: tuple[str, ...] = ()
    destination: str = ""
    local: bool = False
    stage: int | None = None
    image: str = ""


class PlannedStage(Record):
    """One stage: `base` is the index of the stage it is based on, else `image` the name of its base image.

    `uses` are the indexes of all stages that it refers to. `known` says that the variables of the base image are known.
    """

    stage: Stage
    base: int | None
    image: str
    known: bool
    uses: frozenset[int]
    steps: tuple[PlannedStep, ...]


class PlannedFile(Record):
    """A Dockerfile as far as it was planned: `stages` by index; `target` is the one asked for, None if none was.

    `global_args` are the names that ARG declares above the first FROM.
    """

    dockerfile: Dockerfile
    text: Text
    stages: Mapping[int, PlannedStage]
    target: int | None
    global_args: frozenset[str]
    context: Context | None

    @property
    def ends(self) -> tuple[int, ...]:
        """The stages that are built for their own sake: the target, or without one the last and all that none uses."""
        if self.target is not None:
            return (self.target,)
        used = {index for stage in self.stages.values() for index in stage.uses}
        last = len(self.dockerfile.stages) - 1
        return tuple(index for index in self.stages if index == last or index not in used)

    @property
    def shipped(self) -> frozenset[int]:
        """The stages whose layers, history and config are part of an image: the ends and what they are based on."""
        found: set[int] = set()
        for end in self.ends:
            index: int | None = end
            while index is not None and index not in found:
                found.add(index)
                index = self.stages[index].base
        return frozenset(found)

    def shipped_steps(self) -> Iterator[tuple[PlannedStage, PlannedStep]]:
        """Yield the steps that are part of an image, in the order of the file."""
        for index in sorted(self.shipped):
            for step in self.stages[index].steps:
                yield self.stages[index], step

    def depends_on_context(self, index: int) -> bool:
        """Say whether a stage has files of the build context, its own or those of stages it uses."""
        todo, seen = [index], set()
        while todo:
            at = todo.pop()
            if at in seen or at not in self.stages:
                continue
            seen.add(at)
            if any(step.local for step in self.stages[at].steps):
                return True
            todo += self.stages[at].uses
        return False

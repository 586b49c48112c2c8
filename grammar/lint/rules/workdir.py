"""Rules about WORKDIR."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Instruction, Workdir
from grammar.lint.rule import Finding, InstructionRule, StageScope, found
from grammar.text import quote


class WorkdirRelativePath(InstructionRule):
    """A relative directory starts at that of the base image, which may be another one tomorrow.

    Bad:

        FROM nginx
        WORKDIR html

    Good:

        FROM nginx
        WORKDIR /usr/share/nginx/html
    """

    description = (
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes"
    )

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield the first WORKDIR of a chain of stages if it is relative; making that one absolute repairs the rest."""
        if not isinstance(instruction, Workdir):
            return
        path = scope.expand(instruction.path)
        if not scope.workdir_is_set and not path.startswith("/"):
            message = f"Relative workdir {quote(path)} can have unexpected results if the base image changes"
            yield found(instruction, message)
        scope.workdir_is_set = True

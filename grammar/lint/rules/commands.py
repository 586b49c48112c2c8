"""Rules about CMD, ENTRYPOINT and HEALTHCHECK."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Cmd, Entrypoint, Healthcheck, Instruction, Shell, ShellForm
from grammar.lint.rule import Finding, InstructionRule, StageScope, found, keyword


class MultipleInstructionsDisallowed(InstructionRule):
    """Of several CMD, ENTRYPOINT or HEALTHCHECK of one stage only the last counts; the others mislead.

    Bad:

        CMD ["serve"]
        CMD ["serve", "--verbose"]

    Good:

        CMD ["serve", "--verbose"]
    """

    description = "Multiple instructions of the same type should not be used in the same stage"

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield the earlier one of two, which is the one without effect."""
        if not isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            return
        earlier = scope.last.get(instruction.keyword)
        scope.last[instruction.keyword] = instruction
        if earlier is not None:
            yield found(
                earlier,
                f"Multiple {keyword(instruction)} instructions should not be used in the same stage because only the "
                "last one will be used",
            )


class JSONArgsRecommended(InstructionRule):
    """In shell form the program is a child of a shell, which does not pass signals on: stopping takes ten seconds.

    Whoever sets SHELL wants one, so then nothing is said.

    Bad:

        CMD serve --verbose

    Good:

        CMD ["serve", "--verbose"]
    """

    description = "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals"

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield a CMD or ENTRYPOINT in shell form where no SHELL was set."""
        if isinstance(instruction, Shell):
            scope.shell_is_set = True
        if not isinstance(instruction, Cmd | Entrypoint) or scope.shell_is_set:
            return
        if isinstance(instruction.command, ShellForm):
            yield found(
                instruction,
                f"JSON arguments recommended for {keyword(instruction)} to prevent unintended behavior related to OS "
                "signals",
            )

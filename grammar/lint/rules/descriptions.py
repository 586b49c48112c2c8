"""Rules about comments that describe."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Arg, From, Instruction
from grammar.lint.rule import FileRule, Finding, found
from grammar.resolve import Dockerfile


class InvalidDefinitionDescription(FileRule):
    """A comment above FROM or ARG is its description where it starts with the name; others describe nothing.

    The rule has to be asked for: `# check=experimental=InvalidDefinitionDescription`.

    Bad:

        # the version of the program
        ARG VERSION

    Good:

        # VERSION is the version of the program
        ARG VERSION
    """

    description = (
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this "
        "is not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment."
    )
    experimental = True

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every FROM with a name and every ARG below a comment whose last line starts with another word."""
        for instruction in dockerfile.ast.instructions:
            names = _names(instruction)
            if not names or not instruction.comments or instruction.comments[-1].split(" ")[0] in names:
                continue
            shown = names[0] if len(names) == 1 else "<arg_key>"
            kind = instruction.keyword.upper()
            yield found(instruction, f"Comment for {kind} should follow the format: `# {shown} <description>`")


def _names(instruction: Instruction) -> list[str]:
    match instruction:
        case From(name=name) if name is not None:
            return [name.text.lower()]
        case Arg(pairs=pairs):
            return [pair.name.text for pair in pairs]
    return []

"""Rules about variables."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grammar.ast import Ast, Instruction, Run, Word
from grammar.diagnostics import Position, Span
from grammar.lint.fix import Edit, Fix, Text, insertion
from grammar.lint.planned import PlannedFile
from grammar.lint.rule import PYBUILD, Finding, GraphRule, PlanRule, found, keyword
from grammar.lint.shell import script_of, variables
from grammar.text import WIDE_BLANKS


class UndefinedArgInFrom(PlanRule):
    """FROM sees the ARGs above the first FROM and the automatic ones, nothing else; others are empty.

    Bad:

        ARG VARIANT=bookworm
        FROM debian:${VARIENT}

    Good:

        ARG VARIANT=bookworm
        FROM debian:${VARIANT}
    """

    description = "FROM command must use declared ARGs"
    message = "FROM argument '{0}' is not declared{1}"


class UndefinedVar(PlanRule):
    """A variable that neither ARG, ENV nor the base image declares is empty: most often its name is misspelt.

    Commands are not looked at: their variables belong to the shell. Nor is a stage whose base image is not in the
    store, since its variables are not known.

    Bad:

        ARG REGION=north
        ENV HOST=$REGIN.example.com

    Good:

        ARG REGION=north
        ENV HOST=$REGION.example.com
    """

    description = "Variables should be defined before their use"
    message = "Usage of undefined variable '${0}'{1}"


class UndeclaredGlobalArg(GraphRule):
    """A RUN uses an ARG that is declared above the first FROM only: in the stage it is empty.

    What it does: it looks in the commands of RUN for variables that an ARG above the first FROM declares and neither
    the stage nor its base image nor the command itself sets. Words of other instructions are the business of
    UndefinedVar, which has the same fix. Where the base image is not in the store, nothing is said of variables that
    choose it, which it may well set itself.

    Why is this bad: ARGs above the first FROM are seen by FROM lines alone; a stage that wants one has to say so.

    Bad:

        ARG VERSION=1.2
        FROM debian
        RUN fetch app-$VERSION

    Good:

        ARG VERSION=1.2
        FROM debian
        ARG VERSION
        RUN fetch app-$VERSION
    """

    description = "A stage has to declare the global ARGs that it uses"
    group = PYBUILD

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield the first use of each variable in a stage, with the fix that declares it."""
        told: set[tuple[int, str]] = set()
        for index, stage in sorted(file.stages.items()):
            chosen = "" if stage.known else f"{stage.stage.from_.image.text} {stage.image}"
            for step in stage.steps:
                if not isinstance(step.instruction, Run) or not step.posix:
                    continue
                for name in variables(script_of(step.instruction).text):
                    # A stage that this one is based on repairs both.
                    if name not in file.global_args or name in step.env or {(index, name), (stage.base, name)} & told:
                        continue
                    if f"${name}" in chosen or f"${{{name}" in chosen:
                        continue
                    told.add((index, name))
                    message = f"Usage of global ARG '${name}', which the stage does not declare: it is empty here"
                    fix = declare(name, step.instruction, file.dockerfile.ast, file.text)
                    yield found(step.instruction, message, fix)


def rename(name: str, wanted: str, word: Word, text: Text) -> Fix | None:
    """Return the fix that uses the variable `wanted` in a word in place of `name`: a guess, so it is not safe."""
    written = text.at(word.span)
    if written != word.text:
        return None  # a continuation runs through it, or quotes are gone
    start = text.offset(word.span.start)
    edits = tuple(
        Edit(Span(text.position(start + found.start(1)), text.position(start + found.end(1))), wanted)
        for found in re.finditer(rf"\$\{{?({re.escape(name)})(?![A-Za-z0-9_])", written)
    )
    return Fix(title=f"Use {wanted}", edits=edits, safe=False) if edits else None


def declare(name: str, instruction: Instruction, ast: Ast, text: Text) -> Fix:
    """Return the fix that declares a build argument above an instruction and the comments that belong to it."""
    above = [one for one in ast.instructions if one.span.start < instruction.span.start]
    first = above[-1].span.end.line + 1 if above else 1
    number = instruction.span.start.line
    line = text.line(number)
    while number > first and text.line(number - 1).lstrip(WIDE_BLANKS).startswith("#"):
        number -= 1
    indent = line[: instruction.span.start.column - 1]
    written = "arg" if keyword(instruction).islower() else "ARG"
    ending = "\r\n" if line.endswith("\r") else "\n"
    edit = insertion(Position(number, 1), f"{indent}{written} {name}{ending}")
    return Fix(title=f"Declare ARG {name} here", edits=(edit,))


class InvalidDefaultArgInFrom(PlanRule):
    """Without build arguments FROM should still name an image, or nobody can build the file without reading it.

    Bad:

        ARG TAG
        FROM debian:${TAG}

    Good:

        ARG TAG=bookworm
        FROM debian:${TAG}
    """

    description = "Default value for global ARG results in an empty or invalid base image name"
    message = "Default value for ARG {0} results in empty or invalid base image name"

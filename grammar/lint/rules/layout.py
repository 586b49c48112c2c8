"""Rules about how instructions are laid out: keywords and continuation lines."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Add, Copy, Instruction, Onbuild, Run
from grammar.diagnostics import Span
from grammar.lint.fix import Edit, Fix, Text
from grammar.lint.rule import FileRule, Finding, found, keyword, line_span
from grammar.resolve import Dockerfile


class ConsistentInstructionCasing(FileRule):
    """Keywords may be written in any case, but one file should keep to one: the one that most of its keywords have.

    Bad:

        FROM debian
        run make

    Good:

        FROM debian
        RUN make
    """

    description = "All commands within the Dockerfile should use the same casing (either upper or lower)"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every instruction in another case than most; where there are as many of both, upper case is right."""
        instructions = [one for stage in dockerfile.stages for one in (stage.from_, *stage.instructions)]
        words = [keyword(one) for one in instructions]
        lower = sum(word == word.lower() for word in words) > sum(word == word.upper() for word in words)
        case = "lowercase" if lower else "uppercase"
        text = Text(dockerfile.ast.source)
        for instruction, word in zip(instructions, words, strict=True):
            wanted = word.lower() if lower else word.upper()
            if word != wanted:
                message = f"Command '{word}' should match the case of the command majority ({case})"
                yield found(instruction, message, _respelled(instruction, text, word, wanted))


def _respelled(instruction: Instruction, text: Text, word: str, wanted: str) -> Fix | None:
    """Write the keyword as it is wanted, unless a continuation runs through it."""
    start = instruction.span.start
    span = Span(start, start._replace(column=start.column + len(word)))
    if text.at(span) != word:
        return None
    return Fix(title=f"Write {wanted}", edits=(Edit(span, wanted),))


class NoEmptyContinuation(FileRule):
    """A blank line does not end an instruction that is continued, though it looks as if it did.

    Bad:

        RUN make \\

            install

    Good:

        RUN make \\
            # a comment is fine
            install
    """

    description = "Empty continuation lines will become errors in a future release"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield the last line of every instruction with a blank line inside; bodies of heredocs are not looked at."""
        text = Text(dockerfile.ast.source)
        lines = dockerfile.ast.source.split("\n")
        for instruction in dockerfile.ast.instructions:
            first, last = instruction.span.start.line, _last_line(instruction, lines, dockerfile.ast.escape)
            blank = [number for number in range(first, last + 1) if not lines[number - 1].strip()]
            if blank:
                edits = tuple(Edit(text.whole_line(number), "") for number in blank)
                fix = Fix(title="Remove the empty lines", edits=edits)
                yield Finding(instruction, "Empty continuation line", line_span(last, lines[last - 1]), fix)


def _last_line(instruction: Instruction, lines: list[str], escape: str) -> int:
    """The last line of an instruction without the bodies of its heredocs."""
    inner = instruction.trigger or instruction if isinstance(instruction, Onbuild) else instruction
    if isinstance(inner, Run | Copy | Add) and inner.heredocs:
        bodies = sum(heredoc.content.count("\n") + 1 for heredoc in inner.heredocs)
        return instruction.span.end.line - bodies
    last = instruction.span.end.line
    # A continuation that nothing follows takes the blank lines at the end of the file in.
    count = len(lines) - (lines[-1] == "")
    if lines[last - 1].rstrip().endswith(escape) and not any(line.strip() for line in lines[last:]):
        return count
    return last

"""Rules about forms that have better successors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from grammar.ast import Env, Instruction, Label, Maintainer
from grammar.diagnostics import Span
from grammar.errors import ExpandError, LocatedGrammarError
from grammar.expand import expand
from grammar.lint.fix import Edit, Fix, Text, apply_fixes, insertion
from grammar.lint.rule import FileRule, Finding, InstructionRule, StageScope, found
from grammar.parse import parse_instruction
from grammar.resolve import Dockerfile
from grammar.text import BLANKS

_AWKWARD = "a b\"c'd\\e$f"


class MaintainerDeprecated(FileRule):
    """MAINTAINER is deprecated: a label says who made an image, and can be looked for.

    Bad:

        MAINTAINER mira@example.com

    Good:

        LABEL org.opencontainers.image.authors="mira@example.com"
    """

    description = "The MAINTAINER instruction is deprecated, use a label instead to define an image author"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every MAINTAINER."""
        message = "Maintainer instruction is deprecated in favor of using label"
        each = [one for one in dockerfile.ast.instructions if isinstance(one, Maintainer)]
        fixes = [_authors(one, dockerfile) for one in each]
        # The last one counts: a label in the place of another would name somebody else.
        whole = None not in fixes
        for instruction, fix in zip(each, fixes, strict=True):
            yield found(instruction, message, fix if whole else None)


class LegacyKeyValueFormat(InstructionRule):
    """With a blank instead of `=` everything to the end of the line is one value, which is easily misread.

    Bad:

        ENV DIR /srv/my app

    Good:

        ENV DIR="/srv/my app"
    """

    description = "Legacy key/value format with whitespace separator should not be used"

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield an ENV or LABEL that is written that way."""
        if isinstance(instruction, Env | Label) and instruction.legacy:
            name = instruction.original.lstrip()[: len(instruction.keyword)]  # as it is written
            message = f'"{name} key=value" should be used instead of legacy "{name} key value" format'
            yield found(instruction, message, _modern(instruction, scope.text, scope.escape))


def _authors(instruction: Maintainer, dockerfile: Dockerfile) -> Fix | None:
    """Say it with a label; the value of MAINTAINER is taken as it is, that of LABEL has its variables replaced."""
    escape = dockerfile.ast.escape
    written = Text(dockerfile.ast.source).at(instruction.span)
    if "\n" in written:
        return None  # there may be comments between the lines
    keyword = "label" if written.startswith(instruction.keyword) else "LABEL"
    value = "".join(escape + c if c in ('"', "$", escape) else c for c in instruction.name)
    made = f'{keyword} org.opencontainers.image.authors="{value}"'
    label = _parsed(made, escape)
    if not isinstance(label, Label) or len(label.pairs) != 1:
        return None
    if _expanded(label.pairs[0].value.text, {}, escape) != instruction.name:
        return None
    return Fix(title="Write a label instead", edits=(Edit(instruction.span, made),))


def _modern(instruction: Env | Label, text: Text, escape: str) -> Fix | None:
    """Put `=` between key and value, and quotes around the value where it has blanks."""
    pair = instruction.pairs[0]
    gap = Span(pair.key.span.end, pair.value.span.start)
    if text.at(gap).strip(BLANKS):
        return None  # a continuation, maybe with comments
    quoted = (Edit(gap, '="'), insertion(pair.value.span.end, '"'))
    escaped = [insertion(text.position(offset), escape) for offset in _bare_blanks(text, pair.value.span, escape)]
    for edits in ((Edit(gap, "="),), quoted, (Edit(gap, "="), *escaped)):
        fix = Fix(title=f"Write {pair.key.text}=…", edits=edits)
        if _says_the_same(instruction, fix, text, escape):
            return fix
    return None


def _bare_blanks(text: Text, span: Span, escape: str) -> Iterator[int]:
    """Yield where blanks stand outside of quotes."""
    open_quote = ""
    skip = False
    for offset in range(text.offset(span.start), text.offset(span.end)):
        char = text.source[offset]
        if skip:
            skip = False
        elif char == escape and open_quote != "'":
            skip = True
        elif char == open_quote:
            open_quote = ""
        elif not open_quote and char in "\"'":
            open_quote = char
        elif not open_quote and char in BLANKS:
            yield offset


def _says_the_same(instruction: Env | Label, fix: Fix, text: Text, escape: str) -> bool:
    """Whether the instruction, once repaired, has the same key and value whatever its variables are."""
    head = text.offset(instruction.span.start)
    tail = text.offset(instruction.span.end)
    fixed = apply_fixes(text.source, (fix,))
    made = _parsed(fixed[head : len(fixed) - (len(text.source) - tail)], escape)
    if not isinstance(made, Env | Label) or len(made.pairs) != 1:
        return False
    before, after = instruction.pairs[0], made.pairs[0]
    try:
        names = (expansion := expand(before.value.text, {}, escape=escape)).unset | expansion.used
    except ExpandError:
        return False
    worlds: list[dict[str, str]] = [{}, dict.fromkeys(names, ""), dict.fromkeys(names, _AWKWARD)]
    return before.key == after.key and all(
        _expanded(before.value.text, world, escape) == _expanded(after.value.text, world, escape) for world in worlds
    )


def _parsed(text: str, escape: str) -> Instruction | None:
    try:
        return parse_instruction(text, escape=escape)
    except LocatedGrammarError:
        return None


def _expanded(word: str, env: Mapping[str, str], escape: str) -> str | None:
    try:
        return expand(word, env, escape=escape).text
    except ExpandError:
        return None

"""Rules about forms that have better successors."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Env, Instruction, Label, Maintainer
from grammar.lint.rule import FileRule, Finding, InstructionRule, StageScope, found
from grammar.resolve import Dockerfile


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
        for instruction in dockerfile.ast.instructions:
            if isinstance(instruction, Maintainer):
                yield found(instruction, "Maintainer instruction is deprecated in favor of using label")


class LegacyKeyValueFormat(InstructionRule):
    """With a blank instead of `=` everything to the end of the line is one value, which is easily misread.

    Bad:

        ENV DIR /srv/my app

    Good:

        ENV DIR="/srv/my app"
    """

    description = "Legacy key/value format with whitespace separator should not be used"

    def check(self, instruction: Instruction, _scope: StageScope) -> Iterator[Finding]:
        """Yield an ENV or LABEL that is written that way."""
        if isinstance(instruction, Env | Label) and instruction.legacy:
            name = instruction.keyword.upper()
            yield found(instruction, f'"{name} key=value" should be used instead of legacy "{name} key value" format')

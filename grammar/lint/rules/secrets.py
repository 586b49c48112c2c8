"""Rules about secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grammar.ast import Arg, Env, Instruction
from grammar.lint.rule import Finding, InstructionRule, StageScope, found
from grammar.text import quote

_TELLING = re.compile(
    r"(?:_|^)(?:apikey|auth|credentials?|key|password|pword|passwd|secret|token)(?:_|$)", re.IGNORECASE
)
_HARMLESS = re.compile(r"(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


class SecretsUsedInArgOrEnv(InstructionRule):
    """Values of ARG and ENV stay in the image's history and config, where everybody who has the image reads them.

    The rule goes by names: those with a part such as key, password, secret or token, unless another part (public,
    file, version) says that it is harmless.

    Bad:

        ARG API_TOKEN
        RUN fetch --token "$API_TOKEN"

    Good:

        RUN --mount=type=secret,id=api,env=API_TOKEN fetch --token "$API_TOKEN"
    """

    description = "Sensitive data should not be used in the ARG or ENV commands"

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield every variable with such a name."""
        match instruction:
            case Arg(pairs=pairs):
                words = [pair.name for pair in pairs]
            case Env(pairs=settings):
                words = [pair.key for pair in settings]
            case _:
                return
        kind = instruction.keyword.upper()
        for name in map(scope.expand, words):
            if _TELLING.search(name) and not _HARMLESS.search(name):
                message = f"Do not use ARG or ENV instructions for sensitive data ({kind} {quote(name)})"
                yield found(instruction, message)

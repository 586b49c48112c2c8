"""Rules about secrets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grammar.ast import Add, Arg, Copy, Env, Instruction, Label, Run
from grammar.lint.planned import PlannedFile
from grammar.lint.rule import PYBUILD, Finding, GraphRule, InstructionRule, StageScope, found
from grammar.lint.shell import script_of, variables
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
            if _is_telling(name):
                message = f"Do not use ARG or ENV instructions for sensitive data ({kind} {quote(name)})"
                yield found(instruction, message)


def _is_telling(name: str) -> bool:
    return _TELLING.search(name) is not None and _HARMLESS.search(name) is None


class SecretArgInImage(GraphRule):
    """The value of a build argument that looks like a secret becomes part of the image.

    What it does: it follows ARGs whose names tell of secrets (as in SecretsUsedInArgOrEnv) through the stages that an
    image is based on: their values are in the history of every RUN below them, in the config where ENV or LABEL use
    them, and in a layer where the text of a COPY does. Stages that files are only copied from are not looked at.

    Why is this bad: whoever has the image reads them, with `pybuild history` for example.

    Bad:

        FROM debian
        ARG API_TOKEN
        RUN fetch --token "$API_TOKEN"

    Good:

        FROM debian
        RUN --mount=type=secret,id=api,env=API_TOKEN fetch --token "$API_TOKEN"
    """

    description = "Values of secret build arguments should not reach the image"
    group = PYBUILD

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield the first RUN that uses each such ARG, and every other instruction whose text has its value."""
        told: set[str] = set()
        for _, step in file.shipped_steps():
            for name in sorted(filter(_is_telling, step.args)):
                one = step.instruction
                message = ""
                match one:
                    case Run() if name not in told and name in variables(script_of(one).text):
                        told.add(name)
                        message = f"The value of ARG {quote(name)} is in the history of this RUN"
                    case Env(pairs=pairs) | Label(pairs=pairs) if any(_uses(pair.value.text, name) for pair in pairs):
                        message = f"The value of ARG {quote(name)} becomes part of the image's config"
                    case Copy() | Add() if any(doc.expand and _uses(doc.content, name) for doc in one.heredocs):
                        message = f"The value of ARG {quote(name)} becomes part of a layer"
                if message:
                    yield found(one, message)


def _uses(text: str, name: str) -> bool:
    return re.search(rf"\$(?:{name}(?!\w)|\{{{name}\W)", text) is not None

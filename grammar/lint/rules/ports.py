"""Rules about EXPOSE."""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Expose, Instruction, Word
from grammar.errors import ExpandError
from grammar.expand import expand_words
from grammar.lint.fix import Fix, rewrite
from grammar.lint.rule import Finding, InstructionRule, StageScope, found


class ExposeInvalidFormat(InstructionRule):
    """EXPOSE says which port a program listens on; addresses and host ports are for `run -p`, here they are dropped.

    Bad:

        EXPOSE 127.0.0.1:8080:80

    Good:

        EXPOSE 80
    """

    description = (
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release"
    )

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield every port with something before it."""
        for word, port in _ports(instruction, scope):
            if ":" in port:
                message = f"EXPOSE instruction should not define an IP address or host-port mapping, found '{port}'"
                yield found(instruction, message, _rewritten(scope, word, port, port.rpartition(":")[2]))


class ExposeProtoCasing(InstructionRule):
    """Protocols are written in lower case in the image's config, so they should be here.

    Bad:

        EXPOSE 53/UDP

    Good:

        EXPOSE 53/udp
    """

    description = "Protocol in EXPOSE instruction should be lowercase"

    def check(self, instruction: Instruction, scope: StageScope) -> Iterator[Finding]:
        """Yield every port whose protocol has capitals."""
        for word, port in _ports(instruction, scope):
            number, _, protocol = port.rpartition("/") if "/" in port else (port, "", "")
            if protocol != protocol.lower():
                message = f"Defined protocol '{port}' in EXPOSE instruction should be lowercase"
                yield found(instruction, message, _rewritten(scope, word, port, f"{number}/{protocol.lower()}"))


def _rewritten(scope: StageScope, word: Word, port: str, wanted: str) -> Fix | None:
    """Write a port in another way if it stands there without variables and quotes."""
    return rewrite(scope.text, word, wanted) if word.text == port else None


def _ports(instruction: Instruction, scope: StageScope) -> list[tuple[Word, str]]:
    """The ports as written and as expanded, sorted as the reference sorts them: as they are written."""
    if not isinstance(instruction, Expose):
        return []
    try:
        return [
            (word, port)
            for word in sorted(instruction.ports, key=lambda word: word.text)
            for port in expand_words(word.text, scope.env, escape=scope.escape).words
        ]
    except ExpandError:
        return []  # planning the instruction says so

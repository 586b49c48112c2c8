"""The errors of the grammar.

GrammarError
├── LocatedGrammarError   something in a file, with diagnostics
│   ├── ParseError        text that is no Dockerfile
│   └── ResolveError      a Dockerfile whose parts do not fit together
├── ExpandError           a word whose variables cannot be expanded; the caller knows its place
├── DeviceError           a value of `RUN --device` that means nothing; the caller knows its place
└── MountError            a value of `RUN --mount` that means nothing; the caller knows its place
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from grammar.diagnostics import Diagnostic

if TYPE_CHECKING:
    from grammar.resolve import Dockerfile


class GrammarError(Exception):
    """Catch this for everything the grammar refuses; `hint` is the next action, may be empty."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocatedGrammarError(GrammarError):
    """Something in a file; `diagnostics` says where, the first one to mend first; `source` is the text they quote."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], *, source: str = "", name: str = "Dockerfile") -> None:
        super().__init__(diagnostics[0].message, hint=diagnostics[0].hint)
        self.diagnostics = diagnostics
        self.source = source
        self.name = name

    def render(self) -> str:
        """Return all diagnostics with their caret frames, separated by empty lines."""
        return "\n\n".join(diagnostic.render(self.source, self.name) for diagnostic in self.diagnostics)


class ParseError(LocatedGrammarError):
    """Text that is no Dockerfile."""


class ResolveError(LocatedGrammarError):
    """A Dockerfile whose parts do not fit together.

    `dockerfile` is what it is all the same where only references between its stages are at fault.
    """

    dockerfile: Dockerfile | None = None


class ExpandError(GrammarError):
    """A word whose variables cannot be expanded; the caller knows its place. `unset` are those it named in vain."""

    def __init__(self, message: str, *, hint: str = "", unset: frozenset[str] = frozenset()) -> None:
        super().__init__(message, hint=hint)
        self.unset = unset


class DeviceError(GrammarError):
    """A value of `RUN --device` that means nothing; the caller knows its place."""


class MountError(GrammarError):
    """A value of `RUN --mount` that means nothing; the caller knows its place."""

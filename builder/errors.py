"""The errors of the builder; `builder/cli/errors.py` turns them into text and an exit status.

BuildError
├── LocatedError       something in the Dockerfile, with diagnostics
│   ├── StepFailed     a RUN ended with an exit code other than zero
│   └── ConfigError    something in pyproject.toml or .pybuild.toml
├── Refused            rules are broken, and the Dockerfile wants that to be an error
├── SourceError        a base image, context or archive that cannot be had
├── ExportError        an output that cannot be written
├── UsageError         options that contradict each other or name nothing
└── Canceled           interrupted by the user or by another step's failure
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grammar import Diagnostic


class BuildError(Exception):
    """Catch this for everything a build can fail with; `hint` is the next action, may be empty."""

    exit_code: ClassVar[int] = 1
    code: ClassVar[str] = "build"
    """The word in the brackets of `error[…]` once the error has been given a place."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class LocatedError(BuildError):
    """Something in the Dockerfile; `diagnostics` says where, most important first; `source` is the text they quote."""

    def __init__(self, diagnostics: tuple[Diagnostic, ...], *, source: str = "", name: str = "Dockerfile") -> None:
        super().__init__(diagnostics[0].message, hint=diagnostics[0].hint)
        self.diagnostics = diagnostics
        self.source = source
        self.name = name

    def render(self) -> str:
        """Return all diagnostics with their caret frames, separated by empty lines."""
        return "\n\n".join(diagnostic.render(self.source, self.name) for diagnostic in self.diagnostics)


class StepFailed(LocatedError):
    """A RUN failed; `tail` holds its last lines of output, `log` the path of the whole log."""

    def __init__(
        self,
        diagnostic: Diagnostic,
        *,
        tail: tuple[str, ...],
        log: str,
        status: int,
        source: str = "",
        name: str = "Dockerfile",
    ) -> None:
        super().__init__((diagnostic,), source=source, name=name)
        self.tail = tail
        self.log = log
        self.status = status


class ConfigError(LocatedError):
    """Something in pyproject.toml or .pybuild.toml that means nothing."""


class Refused(BuildError):
    """A Dockerfile that says `check=error=true` breaks the rules `names`."""

    def __init__(self, names: Iterable[str]) -> None:
        hint = "repair them, or take error=true out of the check directive"
        super().__init__(f"lint violation found for rules: {', '.join(names)}", hint=hint)


class SourceError(BuildError):
    """A base image, context or archive that cannot be had."""


class ExportError(BuildError):
    """An output that cannot be written."""


class UsageError(BuildError):
    """Options that contradict each other or name nothing."""

    exit_code = 2


class Canceled(BuildError):
    """Interrupted by the user or by another step's failure."""

    exit_code = 130

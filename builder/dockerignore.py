"""What an ignore file leaves out of a build context: its patterns and which of them hides a path.

Patterns mean what they mean to BuildKit (dockerignore syntax over moby/patternmatcher); the file system is not known here,
but for the choice of the ignore file.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One pattern as written: `text` in line `line` (1-based) of the ignore file."""

    line: int
    text: str


class IgnoreFile:
    """The compiled patterns of one ignore file; `name` is what messages call it."""

    def __init__(self, data: bytes, *, name: str = ".dockerignore") -> None:
        """Compile `data`; BuildError with file, line and column for a malformed pattern."""

    def explain(self, path: bytes) -> Rule | None:
        """Return the rule that hides `path` (an in-context path), None if it is not hidden."""


def find_ignore_file(context: Path, dockerfile: Path) -> Path | None:
    """Return the ignore file that governs `context` when built with `dockerfile`.

    `<dockerfile>.dockerignore` beside the Dockerfile wins over `.dockerignore` in the context.
    """

"""Reads the Dockerfiles that commands about their text are given."""

from __future__ import annotations

import sys

from builder.errors import UsageError


def read_dockerfile(file: str) -> tuple[bytes, str]:
    """Return the text of a file, or of standard input for `-`, and what errors call it; UsageError."""
    if file == "-":
        return sys.stdin.buffer.read(), "Dockerfile"
    try:
        with open(file, "rb") as opened:
            return opened.read(), file
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="name a Dockerfile, or - for stdin") from error

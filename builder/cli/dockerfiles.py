"""What commands about the text of Dockerfiles are given: the file, and which build of it is meant."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from builder.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


def build_meant(function: F) -> F:
    """Give a command --target, --build-arg and --platform: `target`, `build_args` and `platforms`."""
    # The last one that is applied comes first in the help.
    function = click.option(
        "--platform",
        "platforms",
        multiple=True,
        metavar="OS/ARCH[,…]",
        help="What would be built for (default: this machine).",
    )(function)
    function = click.option(
        "--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="A value for an ARG."
    )(function)
    return click.option("--target", metavar="STAGE", help="The stage to build (default: the last).")(function)


def read_dockerfile(file: str) -> tuple[bytes, str]:
    """Return the text of a file, or of standard input for `-`, and what errors call it; UsageError."""
    if file == "-":
        return sys.stdin.buffer.read(), "Dockerfile"
    try:
        with open(file, "rb") as opened:
            return opened.read(), file
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}", hint="name a Dockerfile, or - for stdin") from error

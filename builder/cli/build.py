"""`pybuild build`: a Dockerfile and a context to an image. Flags are named as in `docker buildx build`."""

from __future__ import annotations

from typing import Any

import click

from builder.cli.buildwords import OPTIONS
from builder.cli.clickwords import options
from builder.cli.context import Settings


@click.command("build")
@click.argument("context", default=".")
@options(OPTIONS)
@click.pass_obj
def command(settings: Settings, /, **given: Any) -> None:
    """Build an image from a Dockerfile.

    CONTEXT is a directory, - for a tar or a Dockerfile on standard input, or the URL of a git repository, of an
    archive, or of a Dockerfile.
    """
    from builder.cli.building import make  # noqa: PLC0415 - not for --help

    make(settings, given)

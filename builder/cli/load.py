"""`pybuild load`."""

from __future__ import annotations

import sys

import click

from builder.cli.context import Settings
from builder.cli.lookup import familiar
from builder.cli.registry import platform_of
from builder.errors import UsageError


@click.command("load")
@click.option("-i", "--input", "source", metavar="PATH", help="Read this file or OCI layout directory.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Load images for this platform only [default: all].")
@click.option("-q", "--quiet", is_flag=True, help="Print the images' names only.")
@click.pass_obj
def command(settings: Settings, *, source: str | None, platform: str | None, quiet: bool) -> None:
    """Read the images of an archive or OCI layout, by default from standard input.

    Docker archives and OCI layouts are understood, as tars in any usual compression, and OCI layouts as directories.
    """
    if source is None and settings.stdin_tty:
        raise UsageError("an archive is not read from a terminal", hint="give -i FILE, or redirect standard input")
    wanted = None if platform is None else platform_of(settings, platform)
    from layerstore.archive import load  # noqa: PLC0415 - not for --help

    with settings.open_store() as store:
        origin = sys.stdin.buffer if source is None else settings.path(source)
        images = load(store, origin, platform=wanted)
    for image in images:
        for name in image.names:
            click.echo(familiar(name) if quiet else f"Loaded image: {familiar(name)}")
        if not image.names:
            click.echo(image.id if quiet else f"Loaded image ID: {image.id}")

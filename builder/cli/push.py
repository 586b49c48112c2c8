"""`pybuild push`."""

from __future__ import annotations

import click

from builder.cli.context import Settings
from builder.cli.lookup import find_any, one_of
from builder.cli.pushing import check_level, push_image
from layerstore.reference import Reference


@click.command("push")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's name only.")
@click.option(
    "--compression",
    type=click.Choice(["uncompressed", "gzip", "zstd"]),
    help="Compress all layers this way [default: as they are, new ones with gzip unless that is in vain].",
)
@click.option("--compression-level", "level", type=int, help="Level of --compression: gzip 0-9, zstd 1-22.")
@click.option("--platform", metavar="OS/ARCH[/VARIANT]", help="Of an image for several platforms, send only this one.")
@click.argument("name")
@click.pass_obj
def command(
    settings: Settings, *, quiet: bool, compression: str | None, level: int | None, platform: str | None, name: str
) -> None:
    """Send the image NAME to the registry that is part of its name, for all the platforms that it is here for.

    What the registry has already is not sent. An image that was pulled keeps its digest.
    """
    reference = Reference.parse(name)
    check_level(compression, level)
    with settings.open_store() as store:
        image = find_any(store, name).image
        if platform is not None:
            from builder.cli.registry import platform_of  # noqa: PLC0415 - not for --help

            image = one_of(image, name, platform_of(settings, platform))
        sent = push_image(settings, store, image, reference, compression=compression, level=level, quiet=quiet)
    if not quiet:
        click.echo(f"digest: {sent.digest}", err=True)
    click.echo(reference.canonical)

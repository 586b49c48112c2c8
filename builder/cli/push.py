"""`pybuild push`."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.lookup import find_any, one_of
from layerstore.reference import Reference

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.images import Image
    from layerstore.indexes import ImageIndex
    from layerstore.oci import Descriptor
    from layerstore.registry.ahead import Ahead


@click.command("push")
@click.option("-q", "--quiet", is_flag=True, help="Print the image's name only.")
@click.option(
    "--compression",
    type=click.Choice(["uncompressed", "gzip", "zstd"]),
    help="Compress all layers this way [default: as they are, gzip for new ones].",
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


def push_image(
    settings: Settings,
    store: Store,
    image: Image | ImageIndex,
    reference: Reference,
    *,
    compression: str | None = None,
    level: int | None = None,
    quiet: bool = False,
    ahead: Ahead | None = None,
) -> Descriptor:
    """Send `image` to a registry as `reference` and return what it is there; `compression` is as for buildx.

    `ahead` has begun to send it, with a client of its own. Raises UsageError, RegistryError and other StoreErrors.
    """
    from builder.cli.registry import Transfers, client  # noqa: PLC0415 - not for --help
    from layerstore.archive import named_compression  # noqa: PLC0415
    from layerstore.images import Image  # noqa: PLC0415
    from layerstore.registry.transfer import push, push_index  # noqa: PLC0415

    chosen = None if compression is None else named_compression(compression)
    check_level(compression, level)
    opened = client(settings) if ahead is None else contextlib.nullcontext(ahead.client())
    with opened as registry, Transfers(settings, quiet=quiet, done="pushed") as progress:
        if isinstance(image, Image):
            return push(
                store, image, reference, registry, compression=chosen, level=level, progress=progress, ahead=ahead
            )
        return push_index(
            store, image, reference, registry, compression=chosen, level=level, progress=progress, ahead=ahead
        )


def check_level(compression: str | None, level: int | None) -> None:
    """Raise UsageError for a level that the compression does not have."""
    from builder.errors import UsageError  # noqa: PLC0415

    if level is None:
        return
    low, high = {"gzip": (0, 9), "zstd": (1, 22)}.get(compression or "", (1, 0))
    if not low <= level <= high:
        have = f"levels {low} to {high}" if low <= high else "no level"
        raise UsageError(
            f"--compression-level {level} means nothing with {compression or 'no --compression'}",
            hint=f"{compression} has {have}" if compression else "add --compression gzip or zstd",
        )

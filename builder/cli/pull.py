"""`pybuild pull`."""

from __future__ import annotations

import click

from builder.cli.context import Settings
from builder.cli.registry import Transfers, client, platform_of
from layerstore.reference import Reference


@click.command("pull")
@click.option(
    "--platform", metavar="OS/ARCH[/VARIANT]", help="Take the image for this platform [default: this machine's]."
)
@click.option("-q", "--quiet", is_flag=True, help="Print the image's name only.")
@click.argument("name")
@click.pass_obj
def command(settings: Settings, *, platform: str | None, quiet: bool, name: str) -> None:
    """Fetch the image NAME from its registry.

    NAME is [REGISTRY/]REPOSITORY[:TAG][@DIGEST]; the registry is docker.io and the tag latest unless given. Layers that
    are here already are not fetched again. What NAME is here for other platforms stays.
    """
    reference = Reference.parse(name)
    wanted = platform_of(settings, platform)
    from layerstore.registry.transfer import pull  # noqa: PLC0415 - not for --help

    with settings.open_store() as store, client(settings) as registry:
        known = store.images.get(reference.canonical, wanted)
        with Transfers(settings, quiet=quiet, done="pull complete") as progress:
            image = pull(store, reference, wanted, registry, progress=progress)
    if not quiet:
        click.echo(f"digest: {image.manifest}", err=True)
        same = known is not None and known.id == image.id
        click.echo(f"{reference.familiar} {'was up to date' if same else 'is now here'}", err=True)
    click.echo(reference.canonical)

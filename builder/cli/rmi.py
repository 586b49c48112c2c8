"""`pybuild rmi`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from builder.cli.context import Settings
from builder.cli.lookup import familiar, find_any
from layerstore.errors import NotFound, StoreError
from layerstore.images import Image

if TYPE_CHECKING:
    from layerstore import Store


@click.command("rmi")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "-f", "--force", is_flag=True, help="Remove an image that has several names; what is not there is no error."
)
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], force: bool) -> None:
    """Remove images.

    A name of an image that has others is taken away from it; the last name takes the image along, for all the platforms
    that it has under that name alone. Layers stay as long
    as the cache or other images use them: `pybuild store gc` frees the space.
    """
    with settings.open_store() as store:
        for name in names:
            _remove(store, name, force=force)


def _remove(store: Store, text: str, *, force: bool) -> None:
    try:
        image, name = find_any(store, text)
    except NotFound:
        if force:
            return
        raise
    if name is not None and name in image.names and len(image.names) > 1:
        store.images.untag(name)
        click.echo(f"Untagged: {familiar(name)}")
        return
    if name is None and len(image.names) > 1 and not force:
        several = ", ".join(map(familiar, image.names))
        raise StoreError(f"the image {text} has several names: {several}", hint="remove them by name, or use --force")
    # First, since it says no to the image of an index.
    if isinstance(image, Image):
        store.images.remove(image)
    else:
        store.indexes.remove(image)
    for one in image.names:
        click.echo(f"Untagged: {familiar(one)}")
    click.echo(f"Deleted: {image.id}")

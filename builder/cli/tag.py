"""`pybuild tag`."""

from __future__ import annotations

import click

from builder.cli.context import Settings
from builder.cli.lookup import find_any
from builder.errors import UsageError
from layerstore.images import Image
from layerstore.reference import Reference


@click.command("tag")
@click.argument("source")
@click.argument("target")
@click.pass_obj
def command(settings: Settings, *, source: str, target: str) -> None:
    """Give the image SOURCE one more name, for all its platforms.

    An image that had the name TARGET before loses it.
    """
    name = Reference.parse(target)
    if name.digest is not None:
        raise UsageError(f"{target} has a digest, which follows from the content", hint="give a name and a tag only")
    with settings.open_store() as store:
        found = find_any(store, source).image
        if isinstance(found, Image):
            store.images.tag(found, name.canonical)
        else:
            store.indexes.tag(found, name.canonical)

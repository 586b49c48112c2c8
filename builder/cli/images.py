"""`pybuild images`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple

import click

from builder.cli.context import Settings
from builder.cli.lookup import image_size
from builder.cli.table import age, echo_json_lines, echo_table, short_id
from builder.progress.words import size
from layerstore.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerstore import Store
    from layerstore.images import Image

NONE = "<none>"


class _Row(NamedTuple):
    repository: str
    tag: str
    digest: str
    id: str
    created: str
    size: int


@click.command("images")
@click.argument("name", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Show images without a name, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show image IDs only.")
@click.option("--digests", is_flag=True, help="Show the digests of manifests.")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the list.")
@click.pass_obj
def command(
    settings: Settings,
    *,
    name: str | None,
    everything: bool,
    quiet: bool,
    digests: bool,
    no_trunc: bool,
    form: str,
) -> None:
    """List images, newest first.

    NAME shows only the images of one repository (debian) or of one name (debian:12). SIZE is that of the layers,
    uncompressed as far as they were ever unpacked.
    """
    with settings.open_store() as store:
        rows = [row for image in store.images.list() for row in _rows(store, image, name, everything=everything)]
    identify = str if no_trunc else short_id
    if quiet:
        for identity in dict.fromkeys(row.id for row in rows):
            click.echo(identify(identity))
        return
    now = settings.clock()
    if form == "json":
        echo_json_lines(
            {
                "Repository": row.repository,
                "Tag": row.tag,
                "Digest": row.digest,
                "ID": identify(row.id),
                "CreatedAt": row.created,
                "CreatedSince": age(row.created, now),
                "Size": size(row.size),
            }
            for row in rows
        )
        return
    header = ["REPOSITORY", "TAG", *(["DIGEST"] if digests else []), "IMAGE ID", "CREATED", "SIZE"]
    echo_table(
        header,
        (
            [
                row.repository,
                row.tag,
                *([row.digest] if digests else []),
                identify(row.id),
                age(row.created, now),
                size(row.size),
            ]
            for row in rows
        ),
    )


def _rows(store: Store, image: Image, wanted: str | None, *, everything: bool) -> Iterator[_Row]:
    """Yield a row per name of the image that is wanted, or one without a name."""
    created = str(json.loads(image.config).get("created") or "")
    digest = image.manifest or NONE
    if not image.names and everything and wanted is None:
        yield _Row(NONE, NONE, digest, image.id, created, image_size(store, image))
    for name in image.names:
        reference = Reference.parse(name)
        if wanted is None or _fits(reference, wanted):
            tag = reference.tag or NONE
            yield _Row(reference.familiar_name, tag, digest, image.id, created, image_size(store, image))


def _fits(reference: Reference, wanted: str) -> bool:
    other = Reference.parse(wanted)
    # `debian` means every tag of it, `debian:latest` only that one: the text decides, the default tag hides it.
    by_tag = ":" in wanted.rpartition("/")[2] or other.digest is not None
    return reference == other if by_tag else reference.name == other.name

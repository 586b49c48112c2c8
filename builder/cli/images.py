"""`pybuild images`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from builder.cli.context import Settings
from builder.cli.lookup import layer_size
from builder.cli.table import age, echo_json_lines, echo_table, short_id
from builder.progress.words import size
from layerstore.images import Image
from layerstore.oci import config_platform
from layerstore.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from layerstore import Store
    from layerstore.indexes import ImageIndex

NONE = "<none>"


class _Row(NamedTuple):
    repository: str
    tag: str
    digest: str
    id: str
    created: str
    size: int
    platforms: list[str]


@click.command("images")
@click.argument("name", required=False)
@click.option("-a", "--all", "everything", is_flag=True, help="Show images without a name, too.")
@click.option("-q", "--quiet", is_flag=True, help="Show image IDs only.")
@click.option("--digests", is_flag=True, help="Show the digests of manifests.")
@click.option("--platforms", is_flag=True, help="Show what the images are for.")
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
    platforms: bool,
    no_trunc: bool,
    form: str,
) -> None:
    """List images, newest first; one for several platforms is one line.

    NAME shows only the images of one repository (debian) or of one name (debian:12). SIZE is that of the layers,
    uncompressed as far as they were ever unpacked.
    """
    with settings.open_store() as store:
        rows = [row for image in _all(store) for row in _rows(store, image, name, everything=everything)]
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
                "Platforms": ",".join(row.platforms),
            }
            for row in rows
        )
        return
    columns = {
        "REPOSITORY": [row.repository for row in rows],
        "TAG": [row.tag for row in rows],
        "DIGEST": [row.digest for row in rows],
        "PLATFORMS": [", ".join(row.platforms) for row in rows],
        "IMAGE ID": [identify(row.id) for row in rows],
        "CREATED": [age(row.created, now) for row in rows],
        "SIZE": [size(row.size) for row in rows],
    }
    hidden = {name for name, wanted in (("DIGEST", digests), ("PLATFORMS", platforms)) if not wanted}
    shown = {name: column for name, column in columns.items() if name not in hidden}
    echo_table(tuple(shown), zip(*shown.values(), strict=True))


def _all(store: Store) -> list[Image | ImageIndex]:
    """Everything that can have a name, newest first; images that are only there as part of an index are not listed."""
    indexes = store.indexes.list()
    parts = {member.image.id for index in indexes for member in index.members}
    images = [image for image in store.images.list() if image.names or image.id not in parts]
    return sorted((*images, *indexes), key=lambda one: -one.created)


def _rows(store: Store, image: Image | ImageIndex, wanted: str | None, *, everything: bool) -> Iterator[_Row]:
    """Yield a row per name of the image or index that is wanted, or one without a name."""
    configs: list[Any] = [json.loads(one.config) for one in _images(image)]
    created = max(str(config.get("created") or "") for config in configs)
    if isinstance(image, Image):
        platforms = [str(config_platform(configs[0]))]
    else:
        platforms = [str(member.platform) for member in image.members]
    layers = dict.fromkeys(diff_id for one in _images(image) for diff_id in one.layers)
    total = sum(layer_size(store, one) for one in layers)
    row = _Row(NONE, NONE, image.manifest or NONE, image.id, created, total, platforms)
    if not image.names and everything and wanted is None:
        yield row
    for name in image.names:
        reference = Reference.parse(name)
        if wanted is None or _fits(reference, wanted):
            yield row._replace(repository=reference.familiar_name, tag=reference.tag or NONE)


def _images(image: Image | ImageIndex) -> list[Image]:
    return [image] if isinstance(image, Image) else [member.image for member in image.members]


def _fits(reference: Reference, wanted: str) -> bool:
    other = Reference.parse(wanted)
    # `debian` means every tag of it, `debian:latest` only that one: the text decides, the default tag hides it.
    by_tag = ":" in wanted.rpartition("/")[2] or other.digest is not None
    return reference == other if by_tag else reference.name == other.name

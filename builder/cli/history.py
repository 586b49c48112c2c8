"""`pybuild history`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from builder.cli.context import Settings
from builder.cli.lookup import find_image, layer_size
from builder.cli.registry import platform_of
from builder.cli.table import age, echo_json_lines, echo_table, short_id
from builder.progress.words import size

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.images import Image

MISSING = "<missing>"
_WIDTH = 45


class _Step(NamedTuple):
    id: str
    created: str
    created_by: str
    size: int
    comment: str


@click.command("history")
@click.argument("name", metavar="IMAGE")
@click.option("--no-trunc", is_flag=True, help="Show whole IDs and commands.")
@click.option("-q", "--quiet", is_flag=True, help="Show image IDs only.")
@click.option("--format", "form", type=click.Choice(["table", "json"]), default="table", help="Form of the list.")
@click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="Of an image for several platforms, show this one [default: this machine's].",
)
@click.pass_obj
def command(settings: Settings, *, name: str, no_trunc: bool, quiet: bool, form: str, platform: str | None) -> None:
    """Show how an image was made, newest step first.

    Only the image itself has an ID: the steps between it and its base are not images, which `<missing>` says.
    """
    with settings.open_store() as store:
        steps = _steps(store, find_image(store, name, platform_of(settings, platform)).image)
    now = settings.clock()
    shown = [
        {
            "ID": step.id if no_trunc or step.id == MISSING else short_id(step.id),
            "CreatedAt": step.created,
            "CreatedSince": age(step.created, now),
            "CreatedBy": step.created_by if no_trunc else _shortened(step.created_by),
            "Size": size(step.size),
            "Comment": step.comment,
        }
        for step in steps
    ]
    if quiet:
        for row in shown:
            click.echo(row["ID"])
    elif form == "json":
        echo_json_lines(shown)
    else:
        columns = ("ID", "CreatedSince", "CreatedBy", "Size", "Comment")
        # A heredoc spans lines, a row of a table cannot.
        rows = ([" ".join(row[column].split()) for column in columns] for row in shown)
        echo_table(("IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"), rows)


def _steps(store: Store, image: Image) -> list[_Step]:
    """Return the history, newest first; an image without one has a step per layer."""
    config = json.loads(image.config)
    history: list[dict[str, Any]] = config.get("history") or [{} for _ in image.layers]
    layers = iter(image.layers)
    steps: list[_Step] = []
    for entry in history:
        diff_id = None if entry.get("empty_layer") else next(layers, None)
        steps.append(
            _Step(
                MISSING,
                entry.get("created", ""),
                " ".join(entry.get("created_by", "").split()),
                layer_size(store, diff_id) if diff_id is not None else 0,
                entry.get("comment", ""),
            )
        )
    steps.reverse()
    if steps:
        steps[0] = steps[0]._replace(id=image.id)
    return steps


def _shortened(text: str) -> str:
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"

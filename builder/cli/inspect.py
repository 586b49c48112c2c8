"""`pybuild inspect`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import click

from builder.cli.context import Settings
from builder.cli.lookup import find_image, image_size, repo_digests, repo_tags
from builder.cli.registry import platform_of
from builder.errors import BuildError, UsageError

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.images import Image

_STEP = re.compile(r"\.?([A-Za-z_][^.\[\]]*)|\.?\[(\d+)\]|\.?\[\"([^\"]*)\"\]")


@click.command("inspect")
@click.argument("names", nargs=-1, required=True, metavar="IMAGE...")
@click.option(
    "--format", "form", default="", metavar="json", help="`json`: one line per image instead of an indented array."
)
@click.option(
    "--field", default="", metavar="PATH", help="Show one field only, such as Config.Env or RootFS.Layers[0]."
)
@click.option(
    "--platform",
    metavar="OS/ARCH[/VARIANT]",
    help="Of an image for several platforms, show this one [default: this machine's].",
)
@click.pass_obj
def command(settings: Settings, *, names: tuple[str, ...], form: str, field: str, platform: str | None) -> None:
    """Show everything about images as JSON, with the keys of `docker image inspect`.

    --field takes names separated by dots, [N] for the Nth element of a list (from 0) and ["NAME"] for a name with dots
    in it. Texts are shown without quotes, lists and objects as JSON.
    """
    if form not in ("", "json"):
        raise UsageError("--format knows `json` only, not Go templates", hint="--field Config.Env shows one field")
    path = _path(field)
    wanted = platform_of(settings, platform)
    with settings.open_store() as store:
        documents = [document(store, find_image(store, name, wanted).image) for name in names]
    if field:
        for one in documents:
            value = _select(one, path, field)
            click.echo(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    elif form == "json":
        for one in documents:
            click.echo(json.dumps(one, ensure_ascii=False))
    else:
        click.echo(json.dumps(documents, indent=4, ensure_ascii=False))


def document(store: Store, image: Image) -> dict[str, Any]:
    """Return what docker's `image inspect` says of an image, as far as it exists here."""
    config = json.loads(image.config)
    history = config.get("history") or [{}]
    shown = {
        "Id": image.id,
        "RepoTags": repo_tags(store, image),
        "RepoDigests": repo_digests(store, image),
        "Comment": history[-1].get("comment", ""),
        "Created": config.get("created", ""),
        "Author": config.get("author", ""),
        "Config": config.get("config") or {},
        "Architecture": config.get("architecture", ""),
        "Variant": config.get("variant", ""),
        "Os": config.get("os", ""),
        "Size": image_size(store, image),
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
    }
    # docker leaves the variant out where there is none, and it alone.
    return {key: value for key, value in shown.items() if key != "Variant" or value}


def _path(field: str) -> list[str | int]:
    """Return the steps of a --field; UsageError if it is none."""
    steps: list[str | int] = []
    at = 0
    while at < len(field):
        match = _STEP.match(field, at)
        if match is None:
            hint = 'write names separated by dots, [N] for list elements, ["NAME"] for names with dots'
            raise UsageError(f"--field {field}: {field[at:]!r} means nothing", hint=hint)
        name, index, quoted = match.groups()
        steps.append(int(index) if index is not None else name if name is not None else quoted)
        at = match.end()
    return steps


def _select(value: Any, path: list[str | int], field: str) -> Any:
    """Return what is at `path`; BuildError with the names there are if nothing is."""
    for at, step in enumerate(path):
        match value, step:
            case dict(), str() if step in value:
                value = value[step]
            case list(), int() if step < len(value):
                value = value[step]
            case dict(), _:
                raise BuildError(f"--field {field}: there is no {step}", hint=f"there are: {', '.join(value)}")
            case list(), _:
                raise BuildError(f"--field {field}: there is no {step}", hint=f"the list has {len(value)} elements")
            case _:
                before = "".join(f".{one}" if isinstance(one, str) else f"[{one}]" for one in path[:at])
                raise BuildError(f"--field {field}: {before.lstrip('.')} is neither an object nor a list")
    return value

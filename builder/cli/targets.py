"""`pybuild targets`."""

from __future__ import annotations

import base64
import json
from typing import Any

import click

from builder.cli.context import Settings
from builder.cli.dockerfiles import read_dockerfile
from builder.cli.table import echo_table
from builder.outline import Target, resolved, stages_of, targets
from grammar import Span


@click.command("targets")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="A table, or JSON as BuildKit's."
)
@click.option("--build-arg", "build_args", multiple=True, metavar="NAME[=VALUE]", help="A value for an ARG.")
@click.option(
    "--platform", "platforms", multiple=True, metavar="OS/ARCH[,…]", help="What would be built for (default: any)."
)
@click.argument("file", metavar="[FILE]", default="Dockerfile")
@click.pass_obj
def command(
    settings: Settings, *, form: str, build_args: tuple[str, ...], platforms: tuple[str, ...], file: str
) -> None:
    """List the stages of the Dockerfile FILE (default: Dockerfile) that can be built; - reads standard input.

    The description of a stage is the comment above its FROM that begins with its name. Bases are shown as they are
    written; with --platform or --build-arg, bases and platforms are those of such a build.
    """
    data, name = read_dockerfile(file)
    dockerfile = stages_of(data, name)
    if not platforms and not build_args:
        show(targets(dockerfile), data, form)
        return
    from builder.cli.inputs import parse_platforms, plan_options  # noqa: PLC0415 - only where a build is meant

    options = plan_options(settings, None, build_args)
    wanted = parse_platforms(settings, platforms) or (options.platform,)
    show(resolved(dockerfile, options, wanted), data, form, platforms=True)


def show(found: tuple[Target, ...], data: bytes, form: str, *, bases: bool = True, platforms: bool = False) -> None:
    """Print the stages of the Dockerfile `data` as JSON or as a table; without `bases` it is BuildKit's."""
    if form == "json":
        listed = [
            present(name=one.name, default=one.default, description=one.description, base=one.base,
                    platform=one.platform, location=location(one.span))
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps({"targets": listed, "sources": [base64.b64encode(data).decode()]}, indent=2))
        return
    header = ("TARGET", *(("BASE",) if bases else ()), *(("PLATFORM",) if platforms else ()), "DESCRIPTION")
    rows = [
        (
            " ".join(filter(None, (one.name, "(default)" if one.default else ""))) or "-",
            *((one.base,) if bases else ()),
            *((one.platform,) if platforms else ()),
            one.description,
        )
        for one in found
    ]
    echo_table(header, rows)


def present(**values: Any) -> dict[str, Any]:
    """Return what is there: BuildKit leaves out what is empty or false."""
    return {key: value for key, value in values.items() if value}


def location(span: Span) -> dict[str, Any]:
    """Return a place as BuildKit writes it: lines count from 1, characters from 0."""
    places = ({"line": place.line, "character": place.column - 1} for place in span)
    return {"ranges": [dict(zip(("start", "end"), places, strict=True))]}

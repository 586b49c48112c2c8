"""`pybuild outline`."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import click

import grammar
from builder.cli.context import Settings
from builder.cli.dockerfiles import build_meant, read_dockerfile
from builder.cli.inputs import parse_platforms, plan_options
from builder.cli.table import echo_table
from builder.cli.targets import location, present
from builder.errors import UsageError
from builder.outline import Outline, Wanted, outline
from builder.plan import PlanOptions
from layerstore.platforms import Platform


@click.command("outline")
@build_meant
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="Tables, or JSON as BuildKit's."
)
@click.argument("file", metavar="[FILE]", default="Dockerfile")
@click.pass_obj
def command(
    settings: Settings,
    *,
    target: str | None,
    build_args: tuple[str, ...],
    platforms: tuple[str, ...],
    form: str,
    file: str,
) -> None:
    """Show what a build of the Dockerfile FILE (default: Dockerfile) can be given; - reads standard input.

    These are the arguments, secrets and key agents of the target and of the stages it needs. The description of an
    argument is the comment above its ARG that begins with its name.
    """
    data, name = read_dockerfile(file)
    dockerfile = grammar.resolve(grammar.parse(data, name=name))
    options = plan_options(settings, target, build_args)
    show(outline_of(dockerfile, options, parse_platforms(settings, platforms)), data, form)


def outline_of(dockerfile: grammar.Dockerfile, options: PlanOptions, platforms: Sequence[Platform]) -> Outline:
    """Return the outline of a build for `platforms`, or for that of `options`.

    LocatedError, and UsageError if it is not one and the same for all.
    """
    first, *others = platforms or (options.platform,)
    found = outline(dockerfile, options.replace(platform=first))
    for other in others:
        if outline(dockerfile, options.replace(platform=other)) != found:
            message = f"the outlines for {first} and {other} differ, and there can be only one"
            raise UsageError(message, hint="ask for one --platform at a time")
    return found


def show(found: Outline, data: bytes, form: str) -> None:
    """Print an outline of the Dockerfile `data` as tables, or as JSON in BuildKit's shape."""
    if form == "json":
        click.echo(json.dumps(_described(found, data), indent=2))
        return
    if found.name or found.description:
        head = {"TARGET": found.name, "DESCRIPTION": found.description}
        click.echo("".join(f"{title + ':':<12} {text}\n" for title, text in head.items() if text))
    _tables(found)


def _described(found: Outline, data: bytes) -> dict[str, Any]:
    args = [
        present(name=arg.name, description=arg.description, value=arg.value, location=location(arg.span))
        for arg in found.args
    ]
    return present(
        name=found.name, description=found.description, args=args, secrets=_wanted(found.secrets),
        ssh=_wanted(found.ssh), sources=[base64.b64encode(data).decode()],
    )  # fmt: skip


def _wanted(wanted: tuple[Wanted, ...]) -> list[dict[str, Any]]:
    return [present(name=one.name, required=one.required, location=location(one.span)) for one in wanted]


def _tables(found: Outline) -> None:
    tables = []
    if found.args:
        rows = [(arg.name, arg.value, arg.description) for arg in found.args]
        tables.append((("BUILD ARG", "VALUE", "DESCRIPTION"), rows))
    for title, wanted in (("SECRET", found.secrets), ("SSH", found.ssh)):
        if wanted:
            tables.append(((title, "REQUIRED", ""), [(one.name, "true" if one.required else "", "") for one in wanted]))
    for index, (header, rows) in enumerate(tables):
        if index:
            click.echo()
        echo_table(header, rows)

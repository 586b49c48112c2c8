"""`pybuild targets`."""

from __future__ import annotations

import base64
import json
from typing import Any

import click

import grammar
from builder.cli.dockerfiles import read_dockerfile
from builder.cli.table import echo_table
from builder.outline import Target, targets
from grammar import Span


@click.command("targets")
@click.option(
    "--format", "form", type=click.Choice(["text", "json"]), default="text", help="A table, or JSON as BuildKit's."
)
@click.argument("file", metavar="[FILE]", default="Dockerfile")
def command(*, form: str, file: str) -> None:
    """List the stages of the Dockerfile FILE (default: Dockerfile) that can be built; - reads standard input.

    The description of a stage is the comment above its FROM that begins with its name.
    """
    data, name = read_dockerfile(file)
    show(targets(grammar.resolve(grammar.parse(data, name=name))), data, form)


def show(found: tuple[Target, ...], data: bytes, form: str) -> None:
    """Print the stages of the Dockerfile `data` as a table, or as JSON in BuildKit's shape."""
    if form == "json":
        listed = [
            present(name=one.name, default=one.default, description=one.description, base=one.base,
                    platform=one.platform, location=location(one.span))
            for one in found
        ]  # fmt: skip
        click.echo(json.dumps({"targets": listed, "sources": [base64.b64encode(data).decode()]}, indent=2))
        return
    rows = [(one.name or "-", one.base, "yes" if one.default else "", one.description) for one in found]
    echo_table(("TARGET", "BASE", "DEFAULT", "DESCRIPTION"), rows)


def present(**values: Any) -> dict[str, Any]:
    """Return what is there: BuildKit leaves out what is empty or false."""
    return {key: value for key, value in values.items() if value}


def location(span: Span) -> dict[str, Any]:
    """Return a place as BuildKit writes it: lines count from 1, characters from 0."""
    places = ({"line": place.line, "character": place.column - 1} for place in span)
    return {"ranges": [dict(zip(("start", "end"), places, strict=True))]}

"""`pybuild graph`."""

from __future__ import annotations

import json
from typing import Any

import click

import grammar
from builder.cli.context import Settings
from builder.cli.dockerfiles import build_meant, read_dockerfile
from builder.cli.inputs import parse_platforms, plan_options
from builder.errors import LocatedError
from builder.graph import Vertex
from builder.ops import ContextOp, CopyOp, GitOp, ImageOp, MkdirOp, Op, RunOp, ScratchOp
from builder.plan import plan_platforms
from builder.storebases import StoreBases

_DOT = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n"})
# Entities of Mermaid, which has no other way to write these in a label.
_MERMAID = str.maketrans({"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;"})
_KINDS: dict[type[Op], str] = {
    ContextOp: "context",
    CopyOp: "copy",
    GitOp: "git",
    ImageOp: "image",
    MkdirOp: "mkdir",
    RunOp: "run",
    ScratchOp: "scratch",
}


@click.command("graph")
@build_meant
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "svg", "dot", "mermaid"]),
    default="text",
    help="A line a step, JSON, a picture, or the languages of Graphviz and Mermaid.",
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
    """Show the steps that the target of the Dockerfile FILE (default: Dockerfile) needs, and what each step needs.

    - reads standard input. Nothing is built, and base images are looked up in the store only: one that is not there
    counts as empty, without ONBUILD triggers.
    """
    data, name = read_dockerfile(file)
    dockerfile = grammar.resolve(grammar.parse(data, name=name))
    options = plan_options(settings, target, build_args)
    wanted = parse_platforms(settings, platforms) or (options.platform,)
    with settings.open_store() as store:
        bases = StoreBases(store)
        try:
            plans = plan_platforms(dockerfile, options, wanted, bases)
        except LocatedError as error:
            error.source, error.name = dockerfile.ast.source, dockerfile.ast.name
            raise
    for missing in sorted(bases.unknown):
        click.echo(f"note: {missing} is not in the store and counts as empty", err=True)
    targets = [made.target for made in plans]
    vertices = list(plans[0].graph.needed(*targets))
    if form == "json":
        text = _json(vertices, targets)
    elif form == "svg":
        text = _svg(vertices, targets, name)
    else:
        text = {"text": _text, "dot": _dot, "mermaid": _mermaid}[form](vertices)
    click.echo(text.encode("utf-8", "replace"))


def _name(vertex: Vertex) -> str:
    return vertex.name or _KINDS[type(vertex.op)]


def _edges(vertices: list[Vertex]) -> list[tuple[int, int]]:
    """Pairs of the numbers of an input and of what takes it, each once."""
    numbers = {vertex.id: number for number, vertex in enumerate(vertices)}
    pairs = ((numbers[one.id], number) for number, vertex in enumerate(vertices) for one in vertex.inputs)
    return list(dict.fromkeys(pairs))


def _text(vertices: list[Vertex]) -> str:
    inputs: dict[int, list[int]] = {}
    for source, number in _edges(vertices):
        inputs.setdefault(number, []).append(source)
    lines = []
    for number, vertex in enumerate(vertices):
        needs = ", ".join(f"#{source}" for source in inputs.get(number, ()))
        lines.append(f"#{number} {_name(vertex)}" + (f"  <- {needs}" if needs else ""))
    return "\n".join(lines)


def _json(vertices: list[Vertex], targets: list[Vertex]) -> str:
    """One target as `target`; of a graph for several platforms, all of them in their order as `targets`."""
    listed = [_described(vertex) for vertex in vertices]
    named: dict[str, Any] = {"target": targets[0].id}
    if len(targets) > 1:
        named["targets"] = [target.id for target in targets]
    return json.dumps({**named, "vertices": listed}, indent=2)


def _described(vertex: Vertex) -> dict[str, Any]:
    return {
        "id": vertex.id,
        "kind": _KINDS[type(vertex.op)],
        "name": _name(vertex),
        "stage": vertex.stage,
        "line": vertex.span.start.line if vertex.span else None,
        "inputs": [one.id for one in vertex.inputs],
    }


def _svg(vertices: list[Vertex], targets: list[Vertex], name: str) -> str:
    from builder.cli.graphsvg import Box, draw  # noqa: PLC0415 - one of several formats

    numbers = {vertex.id: number for number, vertex in enumerate(vertices)}
    return draw(
        [Box(_KINDS[type(one.op)], _name(one), one.span.start.line if one.span else None) for one in vertices],
        _edges(vertices),
        parents={(numbers[one.inputs[0].id], number) for number, one in enumerate(vertices) if one.inputs},
        targets={numbers[target.id] for target in targets},
        title=name,
    )


def _dot(vertices: list[Vertex]) -> str:
    nodes = [f'  v{number} [label="{_name(vertex).translate(_DOT)}"];' for number, vertex in enumerate(vertices)]
    edges = [f"  v{source} -> v{number};" for source, number in _edges(vertices)]
    return "\n".join(["digraph build {", "  node [shape=box];", *nodes, *edges, "}"])


def _mermaid(vertices: list[Vertex]) -> str:
    nodes = [f'  v{number}["{_name(vertex).translate(_MERMAID)}"]' for number, vertex in enumerate(vertices)]
    edges = [f"  v{source} --> v{number}" for source, number in _edges(vertices)]
    return "\n".join(["flowchart TD", *nodes, *edges])

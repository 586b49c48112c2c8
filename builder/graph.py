"""The graph of a build: vertices that hold operations and know their inputs; equal vertices are one.

A graph is a value: it knows neither results nor states (`builder/solve.py` does).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from builder.cachekey import definition
from builder.events import VertexId
from builder.ops import Op
from grammar import Span
from grammar.record import Record


class Vertex(Record):
    """One operation with its inputs. Two vertices with one `id` do the same to the same.

    `name` is what progress shows, `stage` the name or index of the stage it was written in, `span` its place in the
    Dockerfile. `ignore_cache` is set by --no-cache. `words` are the places of the sources, then the destination, of a
    COPY, or of the devices of a RUN.
    """

    id: VertexId
    op: Op
    inputs: tuple[Vertex, ...] = ()
    name: str = ""
    stage: str = ""
    span: Span | None = None
    words: tuple[Span, ...] = ()
    ignore_cache: bool = False

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vertex) and self.id == other.id


class Graph:
    """The vertices of one build; `add` returns the vertex that is already there for an equal operation."""

    def __init__(self) -> None:
        self.vertices: dict[VertexId, Vertex] = {}

    def add(self, vertex: Vertex) -> Vertex:
        """Take `vertex` in, or return the one of the same id."""
        return self.vertices.setdefault(vertex.id, vertex)

    def needed(self, *targets: Vertex) -> Iterator[Vertex]:
        """Yield what `targets` need and the targets themselves, inputs before those that use them, each once."""
        seen: set[VertexId] = set()
        # Iterative: a chain of two thousand instructions is deeper than the interpreter's stack.
        stack: list[tuple[Vertex, bool]] = [(target, False) for target in reversed(targets)]
        while stack:
            vertex, expanded = stack.pop()
            if expanded:
                yield vertex
            elif vertex.id not in seen:
                seen.add(vertex.id)
                stack.append((vertex, True))
                stack.extend((one, False) for one in reversed(vertex.inputs) if one.id not in seen)

    def describe(self, *targets: Vertex) -> str:
        """Return the pruned graph as text: a line a vertex, with the numbers of its inputs."""
        lines = []
        numbers: dict[VertexId, int] = {}
        for vertex in self.needed(*targets):
            numbers[vertex.id] = number = len(numbers)
            inputs = ", ".join(f"#{numbers[one.id]}" for one in vertex.inputs)
            lines.append(f"#{number} {vertex.name}" + (f"  <- {inputs}" if inputs else ""))
        return "\n".join(lines)


def vertex_id(op: Op, inputs: tuple[Vertex, ...]) -> VertexId:
    """Return the identity of `op` on `inputs`: of what is written, before any result is known."""
    state = hashlib.sha256()
    for name, value in definition(op):
        state.update(f"{len(name)}:{name}{len(value)}:".encode())
        state.update(value.encode("utf-8", "surrogateescape"))
    for one in inputs:
        state.update(one.id.encode())
    return VertexId("sha256:" + state.hexdigest())

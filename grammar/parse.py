"""From bytes to a syntax tree; every fault of the file is told, not only the first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from grammar.ast import Ast, Instruction
from grammar.diagnostics import Diagnostic, Span
from grammar.errors import ParseError
from grammar.node import UNKNOWN_INSTRUCTION, Fault, Node, read
from grammar.record import Record
from grammar.source import Source
from grammar.transform import transform


def parse(data: bytes, *, name: str = "Dockerfile") -> Ast:
    """Return the syntax tree of a Dockerfile; ParseError with located diagnostics. `name` is what errors call it.

    As in the reference, what has no shape goes before instructions that mean nothing.
    """
    source = Source(data, name=name)
    faults: list[Diagnostic] = []
    senseless: list[Diagnostic] = []
    instructions: list[Instruction] = []
    for node in _nodes(source, faults):
        try:
            instructions.append(transform(node))
        except Fault as fault:
            senseless.append(fault.diagnostic)
    if faults or senseless:
        raise ParseError(_ordered(faults, senseless), source=source.text, name=name)
    return Ast(
        directives=source.directives,
        instructions=tuple(instructions),
        comments=tuple(source.comments),
        escape=source.escape,
        source=source.text,
        name=name,
    )


def _ordered(faults: list[Diagnostic], senseless: list[Diagnostic]) -> tuple[Diagnostic, ...]:
    unknown = [one for one in faults if one.code == UNKNOWN_INSTRUCTION]
    later = sorted((*unknown, *senseless), key=lambda one: one.span.start if one.span else (0, 0))
    return (*(one for one in faults if one.code != UNKNOWN_INSTRUCTION), *later)


def parse_nodes(data: bytes, *, name: str = "Dockerfile") -> tuple[dict[str, str], list[Node]]:
    """Return directives and nodes: what the grammar alone sees, flags and argument counts unchecked; ParseError."""
    source = Source(data, name=name)
    faults: list[Diagnostic] = []
    nodes = list(_nodes(source, faults))
    if faults:
        raise ParseError(tuple(faults), source=source.text, name=name)
    return source.directives, nodes


def parse_instruction(text: str, *, escape: str = "\\", at: Span | None = None) -> Instruction:
    """Return the one instruction of a text, such as an ONBUILD trigger of an image config; ParseError.

    With `at` that is the place of everything in it: the text itself stands in no file.
    """
    source = Source(text.encode("utf-8", "surrogateescape"), name="ONBUILD", escape=escape, directives=False)
    faults: list[Diagnostic] = []
    nodes = list(_nodes(source, faults))
    if not faults and len(nodes) == 1:
        try:
            made = transform(nodes[0])
            return made if at is None else _placed(made, at)
        except Fault as fault:
            faults.append(fault.diagnostic)
    if not faults:
        span = source.line_span(nodes[1].line.first, nodes[1].line.last)
        raise source.fail("trigger", "a trigger has to be a single instruction", span, "use one ONBUILD for each")
    raise ParseError(tuple(faults), source=source.text, name=source.name)


def _placed(value: Any, at: Span) -> Any:
    """Return a part of a syntax tree with `at` for every place in it."""
    if isinstance(value, Span):
        return at
    if isinstance(value, Record):
        return value.replace(**{name: _placed(getattr(value, name), at) for name in type(value).record_fields})
    if isinstance(value, tuple):
        return tuple(_placed(one, at) for one in value)
    return value


def _nodes(source: Source, faults: list[Diagnostic]) -> Iterator[Node]:
    """Yield the instructions that have a shape, and collect the faults of the others."""
    found = False
    try:
        for line in source.lines():
            found = True
            try:
                yield read(line, source)
            except Fault as fault:
                faults.append(fault.diagnostic)
    except ParseError as error:
        # What follows an unterminated heredoc is its body; directives that contradict each other leave nothing to read.
        faults += error.diagnostics
        return
    if not found:
        raise no_instructions(source)


def no_instructions(source: Source) -> ParseError:
    """Return the error for a file that has none."""
    count = source.line_count
    if not source.text:
        return source.fail("empty-file", "the Dockerfile cannot be empty", None, "start it with FROM image")
    span = source.line_span(count, count)
    return source.fail("no-instructions", "file with no instructions", span, "start it with FROM image")

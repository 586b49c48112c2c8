"""A Dockerfile that is being written: whatever of it can be read, beside what is wrong with the rest.

For editors, which ask about files that are not finished. A build wants `grammar.parse`, which takes all or nothing.
"""

from __future__ import annotations

from typing import NamedTuple

from grammar.ast import Ast, Instruction
from grammar.diagnostics import Diagnostic
from grammar.errors import ParseError
from grammar.node import Fault, Node, read
from grammar.parse import no_instructions
from grammar.record import Record
from grammar.source import Line, Source
from grammar.transform import transform


class Piece(NamedTuple):
    """One logical line; `node` and `instruction` are None as far as it cannot be read.

    `last` is the line in which its own text ends, `end` that in which its heredocs do; both count from 1.
    """

    line: Line
    last: int
    end: int
    node: Node | None
    instruction: Instruction | None


class Draft(Record):
    """A file as far as it can be read: `ast` holds the instructions that can, `faults` what is wrong in file order."""

    pieces: tuple[Piece, ...]
    faults: tuple[Diagnostic, ...]
    ast: Ast


def parse_draft(data: bytes, *, name: str = "Dockerfile") -> Draft:
    """Return what can be read of a Dockerfile. The faults are those of `grammar.parse`; none are raised."""
    faults: list[Diagnostic] = []
    try:
        source = Source(data, name=name)
    except ParseError as error:  # a line that is too long
        empty = Ast(directives={}, instructions=(), comments=(), escape="\\", source=error.source, name=name)
        return Draft(pieces=(), faults=error.diagnostics, ast=empty)
    pieces = _pieces(source, faults)
    if not pieces and not faults:
        faults += no_instructions(source).diagnostics
    elif not pieces:
        # Directives that contradict each other keep nobody from reading the rest.
        pieces = _pieces(Source(data, name=name, directives=False), [])
    ast = Ast(
        directives=source.directives,
        instructions=tuple(piece.instruction for piece in pieces if piece.instruction is not None),
        comments=tuple(source.comments),
        escape=source.escape,
        source=source.text,
        name=name,
    )
    return Draft(pieces=tuple(pieces), faults=tuple(faults), ast=ast)


def _pieces(source: Source, faults: list[Diagnostic]) -> list[Piece]:
    pieces = []
    try:
        for line in source.lines():
            last = line.last
            node = instruction = None
            try:
                node = read(line, source)
                instruction = transform(node)
            except Fault as fault:
                faults.append(fault.diagnostic)
            except ParseError as error:
                # What follows an unterminated heredoc is its body.
                faults += error.diagnostics
                pieces.append(Piece(line, last, source.line_count, None, None))
                break
            pieces.append(Piece(line, last, line.last, node, instruction))
    except ParseError as error:
        faults += error.diagnostics
    return pieces

"""What a place is about: an instruction, a flag, an option of a mount, a stage, a variable."""

from __future__ import annotations

import re
from typing import NamedTuple

from builder.lsp.document import Document, Spot
from builder.lsp.words import describe_stage, describe_variable, option_page, page
from grammar import Flag, Node, Position, Span
from grammar.manual import INSTRUCTIONS, MOUNT_KEYS, MOUNT_TYPES
from grammar.mount import ALIASES

_FIELD = re.compile(r"""[^,"']+""")


class Hover(NamedTuple):
    """Markdown about what stands in a span."""

    span: Span
    text: str


def hover(document: Document, position: Position) -> Hover | None:
    """Return what there is to say about a place; None where there is nothing."""
    use = document.symbols.use_at(position)
    if use is not None:
        if isinstance(use.target, int):
            return Hover(use.span, describe_stage(document.symbols.stages[use.target]))
        return Hover(use.span, describe_variable(use.target))
    spot = document.spot(position)
    if spot is None or spot.piece.node is None:
        return None
    node: Node | None = spot.piece.node
    # A trigger may be anything: whoever runs it is told.
    while node is not None and node.keyword in INSTRUCTIONS:
        if node.start <= spot.offset <= node.start + len(node.word.text):
            return Hover(node.word.span, page(node.keyword))
        for flag in node.flags:
            start = spot.piece.line.offset(flag.span.start)
            if start <= spot.offset < start + len(flag.text):
                return _flag(node, flag, start, spot)
        node = node.child
    return None


def _flag(node: Node, flag: Flag, start: int, spot: Spot) -> Hover | None:
    option = INSTRUCTIONS[node.keyword].flags.get(flag.name)
    if option is None:
        return None
    at = spot.offset - start
    name = len("--") + len(flag.name)
    if flag.name == "mount" and at > name:
        for match in _FIELD.finditer(flag.text, name + 1):
            if match.start() <= at <= match.end():
                return _mount_field(spot, start, match, at)
    # The options of a mount have places of their own.
    end = name if flag.name == "mount" else len(flag.text)
    return Hover(spot.piece.line.span(start, start + end), option_page(f"--{flag.name}", option)) if at <= end else None


def _mount_field(spot: Spot, start: int, match: re.Match[str], at: int) -> Hover | None:
    key, _, value = match[0].partition("=")
    name = ALIASES.get(key.lower(), key.lower())
    if name not in MOUNT_KEYS:
        return None
    end = match.start() + len(key)
    if name == "type" and at > end and value in MOUNT_TYPES:
        span = spot.piece.line.span(start + end + 1, start + match.end())
        return Hover(span, f"`{value}`: {MOUNT_TYPES[value]}")
    # The place of a type is its key alone, since its values have pages too.
    last = end if name == "type" and at <= end else match.end()
    return Hover(spot.piece.line.span(start + match.start(), start + last), option_page(key, MOUNT_KEYS[name]))

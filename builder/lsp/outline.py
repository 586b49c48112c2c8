"""The shape of a document: its stages and instructions as a tree, and what can be folded."""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from builder.lsp.document import Document
from builder.lsp.symbols import Stage, children
from grammar import Node, Position, Span
from grammar.draft import Piece

_LONGEST = 80


class Entry(NamedTuple):
    """One line of the tree: `whole` is all that belongs to it, `head` what to jump to."""

    name: str
    detail: str
    keyword: str
    whole: Span
    head: Span
    children: tuple[Entry, ...] = ()


class Fold(Enum):
    """Why lines can be folded."""

    REGION = "region"
    COMMENT = "comment"


def outline(document: Document) -> list[Entry]:
    """Return the ARGs above the first FROM, then the stages with what is in them."""
    symbols = document.symbols
    above = [
        entry
        for piece, index in zip(symbols.draft.pieces, symbols.stage_of, strict=True)
        if index < 0 and (entry := _entry(document, piece)) is not None
    ]
    return [*above, *(_stage(document, stage) for stage in symbols.stages)]


def _stage(document: Document, stage: Stage) -> Entry:
    inside = (_entry(document, piece) for piece in children(document.symbols, stage))
    last = stage.lines[1]
    end = max(Position(last, len(document.line(last)) + 1), stage.head.end)
    return Entry(
        name=stage.name or f"stage {stage.number}",
        detail=f"FROM {stage.image}",
        keyword="from",
        whole=Span(stage.head.start, end),
        head=stage.head,
        children=tuple(entry for entry in inside if entry is not None),
    )


def _entry(document: Document, piece: Piece) -> Entry | None:
    node = piece.node
    if node is None or not node.word.text:
        return None
    end = max(Position(piece.end, len(document.line(piece.end)) + 1), node.span.end)
    return Entry(
        name=_title(node),
        detail="",
        keyword=node.keyword,
        whole=Span(node.span.start, end),
        head=node.word.span,
    )


def _title(node: Node) -> str:
    """The keyword and what follows it, on one line and not too long."""
    if node.keyword in ("arg", "env", "label"):
        rest = " ".join(key.text for key, _ in node.pairs)
    else:
        rest = " ".join(node.text[node.start + len(node.word.text) :].split())
    title = f"{node.word.text.upper()} {rest}".rstrip()
    return title if len(title) <= _LONGEST else f"{title[: _LONGEST - 1]}…"


def folds(document: Document) -> list[tuple[int, int, Fold]]:
    """Return first and last lines, from 1, of stages, of instructions and comments of several lines."""
    found = [(*stage.lines, Fold.REGION) for stage in document.symbols.stages]
    found += [(piece.line.first, piece.end, Fold.REGION) for piece in document.draft.pieces]
    inside = {number for piece in document.draft.pieces for number in range(piece.line.first, piece.end + 1)}
    start = 0
    for number in range(1, len(document.lines) + 2):
        is_comment = number not in inside and document.line(number).lstrip().startswith("#")
        if is_comment and not start:
            start = number
        elif not is_comment and start:
            found.append((start, number - 1, Fold.COMMENT))
            start = 0
    return sorted({one for one in found if one[0] < one[1]}, key=lambda one: one[:2])

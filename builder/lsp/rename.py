"""Another name for a stage, in every place that names it."""

from __future__ import annotations

from builder.errors import BuildError
from builder.lsp.document import Document
from builder.lsp.symbols import Use
from grammar import Position, Span
from grammar.transform import STAGE_NAME

_RESERVED = ("context", "scratch")


class RenameError(BuildError):
    """A name that cannot be given, or a place without one."""


def renamable(document: Document, position: Position) -> Span:
    """Return the place of the stage's name that is at a place; RenameError where there is none."""
    return _stage_use(document, position)[0].span


def rename(document: Document, position: Position, name: str) -> list[Span]:
    """Return all places to write `name` at instead of the stage's name; RenameError for a name that cannot be.

    Refused is every name by which the file would mean something else than before. A FROM names stages in lower case,
    so a name with capitals is refused where one refers to the stage.
    """
    _, stage = _stage_use(document, position)
    symbols = document.symbols
    if not STAGE_NAME.fullmatch(name.lower()):
        raise RenameError(
            f"{name!r} is no name for a stage", hint="use letters, digits, - _ and . after a first letter"
        )
    if name.lower() in _RESERVED:
        raise RenameError(f"{name} has a meaning of its own", hint="choose another name")
    if name.lower() != symbols.stages[stage].name.lower():
        if symbols.stage_named(name) is not None:
            raise RenameError(f"there is a stage called {name} already", hint="choose another name")
        captured = [span for span, other in symbols.foreign if other.lower() == name.lower()]
        if captured:
            message = f"{name} is an image or a context in line {captured[0].start.line}"
            raise RenameError(message, hint="as the name of a stage it would mean the stage there")
    spans = list(dict.fromkeys(one.span for one in symbols.uses_of(stage) if one.by_name))
    if name != name.lower() and any(span in symbols.bases for span in spans):
        raise RenameError(f"a FROM that names {name} would mean an image", hint=f"write {name.lower()}")
    return spans


def _stage_use(document: Document, position: Position) -> tuple[Use, int]:
    use = document.symbols.use_at(position)
    if use is None or not isinstance(use.target, int):
        raise RenameError("only stages can be renamed", hint="put the cursor on the name of one")
    if not use.by_name:
        raise RenameError("this stage is meant by its number", hint="put the cursor on a name")
    return use, use.target

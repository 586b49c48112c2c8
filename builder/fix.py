"""`pybuild check --fix`: repairs what rules know how to repair, round after round until nothing is left.

Imported only where a fix is asked for.
"""

from __future__ import annotations

import codecs

import grammar
from builder.build import BuildOptions, parse
from builder.check import Report, check
from grammar.lint.fix import apply_fixes, compatible
from grammar.lint.rule import Violation
from grammar.lint.selection import Selection
from grammar.record import Record
from layerstore import Store

_ROUNDS = 100


class Fixed(Record):
    """A Dockerfile after its fixes: the text, what was repaired, and the report on what is left."""

    text: bytes
    repaired: tuple[Violation, ...]
    report: Report


def fix(store: Store | None, options: BuildOptions, selection: Selection, *, unsafe: bool = False) -> Fixed:
    """Repair what the rules of `selection` object to; GrammarError for a Dockerfile that cannot be read.

    Fixes that are not safe are made if `unsafe` is set. Those that touch one another are made one after the other.
    """
    repaired: list[Violation] = []
    for _ in range(_ROUNDS):
        dockerfile = parse(options)
        report = check(store, options, dockerfile, whole=True, selection=selection)
        fixable = [one for one in report.violations if one.fix is not None and (one.fix.safe or unsafe)]
        if not fixable:
            return Fixed(text=options.dockerfile, repaired=tuple(repaired), report=report)
        source = dockerfile.ast.source
        chosen = compatible(source, [one.fix for one in fixable if one.fix is not None])
        repaired += [one for one in fixable if any(one.fix is fix for fix in chosen)]
        after = apply_fixes(source, chosen)
        options = options.replace(dockerfile=_encoded(after, like=options.dockerfile))
        _presume_parsed(options)
    raise AssertionError("BUG: fixes undo one another")


def _encoded(text: str, *, like: bytes) -> bytes:
    """The text as bytes, behind the byte order mark that the file had."""
    mark = codecs.BOM_UTF8 if like.startswith(codecs.BOM_UTF8) else b""
    return mark + text.encode("utf-8", "surrogateescape")


def _presume_parsed(options: BuildOptions) -> None:
    try:
        parse(options)
    except grammar.GrammarError as error:
        raise AssertionError(f"BUG: a fix broke the Dockerfile: {error}") from error

"""What is wrong with a document: what the parser refuses, else what a build would, and what `pybuild check` says.

Of a document with errors that is what it says of the part above the first.

Nothing is pulled: base images are looked up in the store, if there is one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import grammar
from builder.build import BuildOptions
from builder.check import check
from builder.checkconfig import CheckConfig, load
from builder.errors import BuildError, LocatedError
from builder.fix import fix
from builder.lsp.document import Document
from builder.plan import PlanOptions
from grammar import Diagnostic, GrammarError, LocatedGrammarError, Position, Span
from grammar.lint.rule import GraphRule, Violation
from grammar.lint.selection import Selection
from grammar.record import Record
from layerstore import Store
from layerstore.platforms import Platform

_DIRECTIVE = re.compile(r"\s*#\s*check\s*=", re.IGNORECASE)


class Project(Record):
    """What a document is looked at with; without a store no base image is known."""

    store: Store | None
    platform: Platform
    context: Path | None
    build_args: Mapping[str, str]


class Problem(Record):
    """One thing that is wrong; `violation` is set where a rule says so."""

    diagnostic: Diagnostic
    violation: Violation | None = None


def diagnose(document: Document, project: Project) -> tuple[Problem, ...]:
    """Return what is wrong, in the order of the file."""
    draft = document.draft
    if draft.faults:
        return tuple(sorted((*_problems(draft.faults), *_above(document, project, draft.faults)), key=_place))
    try:
        dockerfile = grammar.resolve(draft.ast)
    except LocatedGrammarError as error:
        found = (*_problems(error.diagnostics), *_above(document, project, error.diagnostics))
        return tuple(sorted(found, key=_place))
    selection, refused = _selection(document)
    try:
        report = check(project.store, _options(document, project), dockerfile, whole=True, selection=selection)
    except LocatedGrammarError as error:
        return _problems(error.diagnostics)
    except GrammarError as error:
        span = _directive(document)
        return _problems([Diagnostic(code="check-option", message=error.message, span=span, hint=error.hint)])
    problems = [*_problems(refused), *map(_violated, report.violations)]
    if report.error is not None:
        problems += _problems(_told(report.error))
    return tuple(sorted(problems, key=_place))


def _above(document: Document, project: Project, faults: Iterable[Diagnostic]) -> Iterator[Problem]:
    """Yield the warnings about what stands above all `faults`, of rules that need not know what follows."""
    first = min((one.span.start for one in faults if one.span is not None), default=Position(1, 1))
    ast = document.draft.ast
    known = tuple(one for one in ast.instructions if one.span.end <= first)
    if not any(isinstance(one, grammar.From) for one in known):
        return
    try:
        dockerfile = grammar.resolve(ast.replace(instructions=known))
        selection, _ = _selection(document)
        report = check(project.store, _options(document, project), dockerfile, whole=True, selection=selection)
    except GrammarError:
        return
    for violation in report.violations:
        # Later lines may use a stage, or copy what an ignore file hides.
        if not isinstance(violation.rule, GraphRule) and violation.file is None and violation.span.end <= first:
            yield _violated(violation)


def repaired(document: Document, project: Project) -> str:
    """Return the text of a document with all repairs made that are safe; GrammarError if it cannot be read."""
    selection, _ = _selection(document)
    return fix(project.store, _options(document, project), selection).text.decode()


def _options(document: Document, project: Project) -> BuildOptions:
    platform = project.platform
    return BuildOptions(
        plan=PlanOptions(
            platform=platform, build_platform=platform, context=project.context, build_args=project.build_args
        ),
        dockerfile=document.text.data,
        name=document.name,
        path=document.path,
        state=Path(os.devnull),
    )


def _selection(document: Document) -> tuple[Selection, list[Diagnostic]]:
    """Which rules the project wants to be looked at; all of them where its wishes cannot be read, and why."""
    try:
        config = CheckConfig() if document.path is None else load(document.path.parent)
    except BuildError as error:
        where = f"{error.name}: " if isinstance(error, LocatedError) else ""
        diagnostic = Diagnostic(code="config", message=f"{where}{error.message}", span=None, hint=error.hint)
        return CheckConfig().selection(document.path), [diagnostic]
    return config.selection(document.path), []


def _problems(diagnostics: Iterable[Diagnostic]) -> tuple[Problem, ...]:
    return tuple(Problem(diagnostic=one) for one in diagnostics)


def _violated(violation: Violation) -> Problem:
    """A violation; one in a file beside the Dockerfile is told at the top, with its place."""
    diagnostic = violation.diagnostic
    if violation.file is not None:
        message = f"{violation.file.name}:{violation.span.start.line}: {violation.message}"
        diagnostic = diagnostic.replace(message=message, span=None)
    return Problem(diagnostic=diagnostic, violation=violation)


def _told(error: BuildError | GrammarError) -> Iterator[Diagnostic]:
    if isinstance(error, LocatedError):
        yield from error.diagnostics
    else:
        yield Diagnostic(code="build", message=error.message, span=None, hint=error.hint)


def _directive(document: Document) -> Span | None:
    for number, line in enumerate(document.lines, 1):
        if _DIRECTIVE.match(line):
            return Span(Position(number, 1), Position(number, len(line) + 1))
    return None


def _place(problem: Problem) -> Position:
    span = problem.diagnostic.span
    return span.start if span is not None else Position(1, 1)

"""`pybuild check`: a Dockerfile planned without being built, and what the rules say meanwhile.

Base images are looked up in the store alone, so that a check needs neither network nor root. Imported only where a
check is asked for: a cached build does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grammar
from builder.build import BuildOptions
from builder.checkplan import CheckPlanner
from builder.errors import BuildError, LocatedError
from grammar.lint.engine import Linter
from grammar.lint.options import CheckOptions
from grammar.lint.rule import Violation
from grammar.lint.rules import FILE_RULES
from grammar.lint.selection import REFERENCE, Selection
from grammar.record import Record
from grammar.source import read_directives
from layerstore import Store

_ARGUMENT = "BUILDKIT_DOCKERFILE_CHECK"


class Report(Record):
    """What a check found: `violations` in the order of the file, and the error that ended the planning, if one did.

    `names` are the rules broken, in the order in which they were run; `error_wanted` is the file's `error=true`.
    """

    violations: tuple[Violation, ...]
    names: tuple[str, ...]
    error_wanted: bool
    error: BuildError | None


def check_options(dockerfile: grammar.Dockerfile, build_args: Mapping[str, str]) -> CheckOptions:
    """Return the options of the check: the build argument takes the place of the directive; CheckOptionError.

    The directive ends at its first space. Other than the parser's own directives it may stand below a line `#!…`.
    """
    if _ARGUMENT in build_args:
        return CheckOptions.parse(build_args[_ARGUMENT], where=f"build-arg:{_ARGUMENT}")
    directives, text = dockerfile.ast.directives, dockerfile.ast.source
    if text.startswith("#!"):
        directives = read_directives(text.partition("\n")[2])
    return CheckOptions.parse(directives.get("check", "").partition(" ")[0])


def check(
    store: Store | None,
    options: BuildOptions,
    dockerfile: grammar.Dockerfile,
    *,
    whole: bool,
    selection: Selection = REFERENCE,
) -> Report:
    """Check a Dockerfile; GrammarError for check options that mean nothing. Without a store no base image is known.

    Stages that the target does not need are looked at if `whole` is set and no target is given. The rules are those of
    the reference unless `selection` says otherwise.
    """
    wanted = check_options(dockerfile, options.plan.build_args)
    linter = Linter(wanted, selection)
    linter.check_file(FILE_RULES, dockerfile)
    error: BuildError | None = None
    try:
        planner = CheckPlanner(dockerfile, options, store, linter)
        planner.check(whole=whole and not options.plan.target)
    except LocatedError as raised:
        raised.source, raised.name = dockerfile.ast.source, dockerfile.ast.name
        error = raised
    except BuildError as raised:
        error = raised
    return Report(violations=linter.ordered, names=linter.names, error_wanted=wanted.error, error=error)


def note_of(report: Report) -> dict[str, Any]:
    """Return what a build remembers of a report, as JSON: its warnings, and the rules broken if those are an error."""
    return {
        "warnings": [
            [one.rule.name, one.message, *one.span.start, *one.span.end, one.rule.description, one.rule.url]
            for one in report.violations
        ],
        # What keeps the file from being planned is an error of the build itself, which tells it with all it knows.
        "refused": list(report.names) if report.error_wanted and report.error is None else [],
    }

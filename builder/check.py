"""`pybuild check`: a Dockerfile planned without being built, and what the rules say meanwhile.

Base images are looked up in the store alone, so that a check needs neither network nor root. Imported only where a
check is asked for: a cached build does without.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grammar
from builder.build import BuildOptions, parse
from builder.checkplan import CheckPlanner
from builder.errors import BuildError, LocatedError, Refused
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
    error: BuildError | grammar.GrammarError | None

    @property
    def failure(self) -> BuildError | grammar.GrammarError | None:
        """Why a build fails; what keeps the file from being planned goes before rules that are to be an error."""
        if self.error is None and self.error_wanted and self.names:
            return Refused(self.names)
        return self.error


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
    fault: grammar.ResolveError | None = None,
) -> Report:
    """Check a Dockerfile; GrammarError for check options that mean nothing. Without a store no base image is known.

    Stages that the target does not need are looked at if `whole` is set and no target is given. The rules are those of
    the reference unless `selection` says otherwise. A file with a `fault` is looked at as far as that lets it.
    """
    wanted = check_options(dockerfile, options.plan.build_args)
    linter = Linter(wanted, selection)
    linter.check_file(FILE_RULES, dockerfile)
    error: BuildError | grammar.GrammarError | None = fault
    try:
        planner = CheckPlanner(dockerfile, options, store, linter)
        planner.check_bases()
        if fault is None:
            planner.check(whole=whole and not options.plan.target)
    except LocatedError as raised:
        raised.source, raised.name = dockerfile.ast.source, dockerfile.ast.name
        error = raised
    except BuildError as raised:
        error = raised
    return Report(violations=linter.ordered, names=linter.names, error_wanted=wanted.error, error=error)


def check_text(store: Store, options: BuildOptions, *, selection: Selection) -> Report:
    """Check the text of a Dockerfile, all its stages unless there is a target.

    What keeps it from being understood is the error of the report.
    """
    try:
        dockerfile = parse(options)
    except grammar.ResolveError as fault:
        if fault.dockerfile is None:
            return Report(violations=(), names=(), error_wanted=False, error=fault)
        return check(store, options, fault.dockerfile, whole=True, selection=selection, fault=fault)
    except grammar.ParseError as fault:
        return Report(violations=(), names=(), error_wanted=False, error=fault)
    return check(store, options, dockerfile, whole=True, selection=selection)


def note_of(report: Report) -> dict[str, Any]:
    """Return what a build remembers of a report, as JSON: its warnings, and the rules broken if those are an error."""
    return {
        "warnings": [
            [one.rule.name, one.message, *one.span.start, *one.span.end, one.rule.description, one.rule.url]
            for one in report.violations
        ],
        # What keeps the file from being planned is an error of the build itself, which tells it with all it knows.
        "refused": list(report.names) if isinstance(report.failure, Refused) else [],
    }

"""Rules about the build context."""

from __future__ import annotations

from grammar.lint.rule import PYBUILD, PlanRule


class CopyIgnoredFile(PlanRule):
    """The ignore file takes this source out of the context: it will not be found, or the wildcard will miss it.

    An ignore file with exceptions (`!`) is not looked at, as in the reference.

    Bad, with `*.log` in .dockerignore:

        COPY build.log /

    Good, with `*.log` taken out of it:

        COPY build.log /
    """

    description = "Attempting to Copy file that is excluded by .dockerignore"
    message = 'Attempting to {0} file "{1}" that is excluded by .dockerignore'


class UnusedIgnorePattern(PlanRule):
    """A pattern of the ignore file matches nothing in the build context.

    What it does: it compares every pattern with the files that are there. Patterns for what comes and goes are excused:
    those with a well-known name (.git, node_modules, dist, *.log, …) and those that .gitignore has too, unless the same
    name lies deeper in the context, where the pattern does not look.

    Why is this bad: what was meant to be left out is sent and copied. Patterns are relative to the root of the context,
    other than in .gitignore; a comment has a line of its own.

    Bad, in .dockerignore, with src/__pycache__ in the context:

        __pycache__

    Good:

        **/__pycache__
    """

    description = "Patterns of the ignore file should match something"
    group = PYBUILD
    message = "Ignore pattern {0} matches nothing{1}"

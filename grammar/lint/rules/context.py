"""Rules about the build context."""

from __future__ import annotations

from grammar.lint.rule import PlanRule


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

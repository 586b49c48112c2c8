"""Rules about variables."""

from __future__ import annotations

from grammar.lint.rule import PlanRule


class UndefinedArgInFrom(PlanRule):
    """FROM sees the ARGs above the first FROM and the automatic ones, nothing else; others are empty.

    Bad:

        ARG VARIANT=bookworm
        FROM debian:${VARIENT}

    Good:

        ARG VARIANT=bookworm
        FROM debian:${VARIANT}
    """

    description = "FROM command must use declared ARGs"
    message = "FROM argument '{0}' is not declared{1}"


class UndefinedVar(PlanRule):
    """A variable that neither ARG, ENV nor the base image declares is empty: most often its name is misspelt.

    Commands are not looked at: their variables belong to the shell. Nor is a stage whose base image is not in the
    store, since its variables are not known.

    Bad:

        ARG REGION=north
        ENV HOST=$REGIN.example.com

    Good:

        ARG REGION=north
        ENV HOST=$REGION.example.com
    """

    description = "Variables should be defined before their use"
    message = "Usage of undefined variable '${0}'{1}"


class InvalidDefaultArgInFrom(PlanRule):
    """Without build arguments FROM should still name an image, or nobody can build the file without reading it.

    Bad:

        ARG TAG
        FROM debian:${TAG}

    Good:

        ARG TAG=bookworm
        FROM debian:${TAG}
    """

    description = "Default value for global ARG results in an empty or invalid base image name"
    message = "Default value for ARG {0} results in empty or invalid base image name"

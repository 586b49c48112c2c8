"""Rules about FROM --platform and the platforms of base images."""

from __future__ import annotations

from grammar.ast import From
from grammar.diagnostics import Span
from grammar.lint.fix import Edit, Fix, Text
from grammar.lint.rule import PlanRule
from grammar.text import BLANKS


class InvalidBaseImagePlatform(PlanRule):
    """A base image for another platform than the stage's was found: its programs will hardly run.

    Bad:

        FROM --platform=linux/s390x app-for-amd64-only

    Good:

        FROM --platform=linux/amd64 app-for-amd64-only
    """

    description = "Base image platform does not match expected target platform"
    message = 'Base image {0} was pulled with platform "{1}", expected "{2}" for current build'


class RedundantTargetPlatform(PlanRule):
    """FROM takes the target platform unless told otherwise.

    Bad:

        FROM --platform=$TARGETPLATFORM debian

    Good:

        FROM debian
    """

    description = "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior"
    message = "Setting platform to predefined {0} in FROM is redundant as this is the default behavior"

    def without(self, from_: From, text: Text) -> Fix | None:
        """Return the fix that takes the flag away."""
        (flag,) = (flag for flag in from_.flags if flag.name == "platform")
        if text.at(Span(flag.span.end, from_.image.span.start)).strip(BLANKS):
            return None  # a continuation, maybe with comments
        return Fix(title="Remove the flag", edits=(Edit(Span(flag.span.start, from_.image.span.start), ""),))


class FromPlatformFlagConstDisallowed(PlanRule):
    """A constant platform keeps the image from being built for any other.

    A stage whose name tells its system or architecture is meant to be for that one, and nothing is said.

    Bad:

        FROM --platform=linux/amd64 debian

    Good:

        FROM --platform=$BUILDPLATFORM debian AS compile
        FROM --platform=linux/amd64 debian AS tools_amd64
    """

    description = "FROM --platform flag should not use a constant value"
    message = 'FROM --platform flag should not use constant value "{0}"'

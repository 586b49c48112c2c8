"""Rules about the names of stages."""

from __future__ import annotations

import re
from collections.abc import Iterator

from grammar.ast import Cmd, Entrypoint, Expose, From, Healthcheck
from grammar.diagnostics import Span
from grammar.lint.fix import Edit, Fix, Text, rewrite
from grammar.lint.planned import PlannedFile
from grammar.lint.rule import PYBUILD, FileRule, Finding, GraphRule, found, keyword
from grammar.resolve import Dockerfile, Stage
from grammar.text import BLANKS, nearest, quote

RESERVED = ("context", "scratch")


class StageNameCasing(FileRule):
    """Names of stages are the same in any case, so lower case is what everybody expects them in.

    Bad:

        FROM debian AS Builder

    Good:

        FROM debian AS builder
    """

    description = "Stage names should be lowercase"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every FROM whose name has capitals."""
        text = Text(dockerfile.ast.source)
        for stage in dockerfile.stages:
            name = stage.from_.name
            if name is not None and name.text != name.text.lower():
                fix = rewrite(text, name, name.text.lower())
                yield found(stage.from_, f"Stage name '{name.text}' should be lowercase", fix)


class FromAsCasing(FileRule):
    """FROM and its AS are one instruction and read best in one case.

    Bad:

        FROM debian as builder

    Good:

        FROM debian AS builder
    """

    description = "The 'as' keyword should match the case of the 'from' keyword"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every FROM in one case with an AS in another; a FROM in mixed case is another rule's business."""
        text = Text(dockerfile.ast.source)
        for stage in dockerfile.stages:
            if stage.from_.name is None:
                continue
            word = keyword(stage.from_)
            written = stage.from_.original.split()[-2]
            expected = {word.lower(): written.lower(), word.upper(): written.upper()}.get(word, written)
            if written != expected:
                message = f"'{written}' and '{word}' keywords' casing do not match"
                yield found(stage.from_, message, _respelled(stage.from_, text, expected))


def _respelled(from_: From, text: Text, wanted: str) -> Fix | None:
    """Write AS as it is wanted, where nothing but blanks stands around it."""
    assert from_.name is not None
    between = text.at(Span(from_.image.span.end, from_.name.span.start))
    if between.strip(BLANKS).lower() != wanted.lower():
        return None  # a continuation, maybe with comments
    start = text.offset(from_.image.span.end) + len(between) - len(between.lstrip(BLANKS))
    span = Span(text.position(start), text.position(start + len(wanted)))
    return Fix(title=f"Write {wanted}", edits=(Edit(span, wanted),))


class ReservedStageName(FileRule):
    """`scratch` is the empty image and `context` the build context: a stage of that name cannot be told from them.

    Bad:

        FROM debian AS scratch

    Good:

        FROM debian AS builder
    """

    description = "Reserved words should not be used as stage names"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every FROM with such a name."""
        for stage in dockerfile.stages:
            if stage.name in RESERVED:
                message = f"Stage name should not use the same name as reserved stage {quote(stage.name)}"
                yield found(stage.from_, message)


class DuplicateStageName(FileRule):
    """Of two stages with one name only the last can be referred to, and a reader cannot tell which is meant.

    Bad:

        FROM debian AS builder
        FROM golang AS builder

    Good:

        FROM debian AS packages
        FROM golang AS builder
    """

    description = "Stage names should be unique"

    def check(self, dockerfile: Dockerfile) -> Iterator[Finding]:
        """Yield every FROM whose name another one above it has."""
        seen: set[str] = set()
        for stage in dockerfile.stages:
            if stage.name is None:
                continue
            if stage.name in seen:
                yield found(stage.from_, f"Duplicate stage name {quote(stage.name)}, stage names should be unique")
            seen.add(stage.name)


_TARGETS = frozenset(
    [
        "app", "artifact", "artifacts", "bench", "bin", "binaries", "binary", "check", "ci", "cli", "coverage", "debug",
        "default", "deploy", "dev", "devel", "development", "dist", "docs", "e2e", "export", "final", "fmt", "format",
        "generate", "image", "integration", "lint", "local", "main", "prod", "production", "release", "run", "runner",
        "runtime", "server", "shell", "slim", "staging", "test", "tests", "unit", "update", "validate", "vendor",
        "verify", "vet", "worker",
    ]
)  # fmt: skip


class UnusedStage(GraphRule):
    """No other stage refers to this one, and nothing says that it is meant to be built by itself.

    What it does: it looks at stages that no FROM, COPY --from or mount names, other than the last one. One without a
    name can never be built. One with a name can, with --target, and nothing is said where it seems to be meant so: its
    name has a part such as test, lint, dev, debug, prod, docs or export, it has a CMD, ENTRYPOINT, HEALTHCHECK or
    EXPOSE, the comment above it describes it (`# name …`), or it starts from scratch to hold what others made. Nothing
    is said with --target either, since then only what that needs is looked at.

    Why is this bad: what is not built is not tried, and most often a name was misspelt or work was forgotten.

    Bad:

        FROM golang AS compiler
        RUN go build -o /app
        FROM debian
        COPY app /usr/bin/app

    Good:

        FROM golang AS compiler
        RUN go build -o /app
        FROM debian
        COPY --from=compiler /app /usr/bin/app
    """

    description = "Stages should be used by another stage or be meant as targets"
    group = PYBUILD

    def check(self, file: PlannedFile) -> Iterator[Finding]:
        """Yield the FROM of each stage that nothing needs."""
        if file.target is not None:
            return
        images = {stage.image for stage in file.stages.values() if stage.image}
        images |= {step.image for stage in file.stages.values() for step in stage.steps if step.image}
        for index in file.ends[:-1]:
            stage = file.stages[index].stage
            if stage.name is None:
                yield found(stage.from_, "No stage uses this one, and without a name it is no target either")
                continue
            near = next((image for image in sorted(images) if nearest(image.lower(), [stage.name])), "")
            if near:
                yield found(stage.from_, f"No stage uses {quote(stage.name)}: is it meant by {quote(near)}?")
            elif not _is_target(stage):
                yield found(stage.from_, f"No stage uses {quote(stage.name)}: a build of the last one leaves it out")


def _is_target(stage: Stage) -> bool:
    assert stage.name is not None
    if stage.description or set(re.split(r"[._-]", stage.name)) & _TARGETS or stage.from_.image.text == "scratch":
        return True
    return any(isinstance(one, Cmd | Entrypoint | Healthcheck | Expose) for one in stage.instructions)

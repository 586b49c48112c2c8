"""SOURCE_DATE_EPOCH: the one time that an image gets, as a number or as the source whose time it is.

Sources are `context`, a named context, and a stage that is nothing but one remote ADD: the time of a commit, a file's
Last-Modified, or that of an archive's newest member. What is on this machine has no time. BuildKit's dockerfile2llb
says so (epoch.go).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import grammar
from builder.errors import BuildError
from builder.ops import CopyOp, GitOp
from builder.plan import FetchedContext, FileContext, GitContext, Planner

if TYPE_CHECKING:
    from builder.build import BuildOptions
    from builder.execute import Remotes
    from builder.plan import Base
    from builder.remote import Download
    from layerstore.platforms import Platform
    from layerstore.reference import Reference

NAME = "SOURCE_DATE_EPOCH"
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")
_HINT = "give seconds since 1970, context, a named context, or a stage that is one ADD of a URL on scratch"


def with_epoch(dockerfile: grammar.Dockerfile, options: BuildOptions, remotes: Remotes) -> BuildOptions:
    """Return `options` with the time that the build argument says, or else the ARG before the first FROM.

    Where it is a source, the number takes its place for ARG as well. BuildError for what is neither, and for sources
    that cannot be had.
    """
    given = options.plan.build_args
    default = Planner(dockerfile, options.plan, _NoBases()).globals.get(NAME, "") if NAME not in given else ""
    text = given.get(NAME, default)
    if not text:
        return options
    if _NUMBER.fullmatch(text):
        numbered: BuildOptions = options.replace(epoch=int(text) * 1_000_000_000)
        return numbered
    moment = _Sources(dockerfile, options, remotes).time_of(text)
    seconds = "" if moment is None else str(moment // 1_000_000_000)
    if NAME in given:
        plan = options.plan.replace(build_args={**given, NAME: seconds})
    else:
        plan = options.plan.replace(global_args={NAME: seconds})
    dated: BuildOptions = options.replace(epoch=moment, plan=plan)
    return dated


def time_of_file(download: Download) -> int | None:
    """Return when a file was last changed, in nanoseconds: as its server says, else as an archive's newest member.

    None for a file of which neither says so.
    """
    if download.mtime_ns:
        return download.mtime_ns
    from builder.unpack import Archive, ArchiveError, is_archive  # noqa: PLC0415 - few servers give no date
    from layerstore.entry import Kind  # noqa: PLC0415

    host = os.fsencode(download.file)
    if not is_archive(host):
        return None
    archive = Archive(host)
    try:
        times = [member.mtime_ns for member in archive.members() if member.kind is Kind.FILE]
    except ArchiveError:
        return None
    finally:
        archive.close()
    return max(times, default=None)


class _Sources:
    """Finds the time of what SOURCE_DATE_EPOCH names."""

    def __init__(self, dockerfile: grammar.Dockerfile, options: BuildOptions, remotes: Remotes) -> None:
        self._dockerfile = dockerfile
        self._options = options
        self._remotes = remotes

    def time_of(self, text: str) -> int | None:
        """Return the time in nanoseconds, None if the source has none."""
        context = self._options.plan.context
        if text == "context":
            return context.time_ns if isinstance(context, FetchedContext) else None
        named = self._options.plan.contexts.get(text)
        match named:
            case None:
                return self._of_stage(text)
            case GitContext(op=op):
                return self._remotes.repositories().fetch(op).committed_ns
            case FileContext(file=file):
                return self._remotes.downloads().fetch(file, lambda _current, _total: None).mtime_ns or None
            case _:
                return None

    def _of_stage(self, text: str) -> int | None:
        for index, stage in enumerate(self._dockerfile.stages):
            if stage.name == text.lower():
                return self._of_add(index, stage)
        raise BuildError(f"invalid {NAME}: {text}", hint=_HINT)

    def _of_add(self, index: int, stage: grammar.Stage) -> int | None:
        """The time of the one remote ADD that the stage is."""
        planner = Planner(self._dockerfile, self._options.plan, _NoBases())
        fault = _fault(planner, stage)
        if fault is not None:
            raise planner.error("epoch", f"{NAME} stage {fault[0]}", fault[1].span, hint=_HINT)
        vertex = planner.plan_stage(index).tip
        assert isinstance(vertex.op, CopyOp), "BUG: an ADD that copies nothing"
        if vertex.op.remotes:
            return time_of_file(self._remotes.downloads().fetch(vertex.op.remotes[0], lambda _current, _total: None))
        op = vertex.inputs[-1].op
        if isinstance(op, GitOp):
            return self._remotes.repositories().fetch(op).committed_ns
        message = f"{NAME} stage source must be a single HTTP(S) or Git ADD"
        raise planner.error("epoch", message, stage.from_.span, hint=_HINT)


def _fault(planner: Planner, stage: grammar.Stage) -> tuple[str, grammar.Instruction] | None:
    """Return why a stage is no source, and the instruction at fault."""
    name = planner.expand(stage.from_.image, planner.globals)
    if name != "scratch" or planner.named_context("scratch") is not None:
        return "must use FROM scratch", stage.from_
    adds = []
    for one in stage.instructions:
        if isinstance(one, grammar.Add):
            adds.append(one)
        elif not isinstance(one, grammar.Arg):
            return f"does not meet source-only requirements: unsupported {one.keyword.upper()} instruction", one
    if len(adds) != 1:
        return "must contain exactly one remote ADD", stage.from_
    if len(adds[0].sources) != 1 or adds[0].heredocs:
        return "must contain exactly one remote ADD source", adds[0]
    return None


class _NoBases:
    """The resolver of a plan that needs no base images."""

    def image(self, reference: Reference, platform: Platform) -> Base:
        """Never called: a stage that is a source starts from scratch."""
        raise AssertionError(f"BUG: {reference} ({platform}) is asked for")

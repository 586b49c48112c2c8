"""From a syntax tree to what it means: stages with their names, and references between them that hold.

Checks what needs neither values of variables nor base images.
"""

from __future__ import annotations

from collections.abc import Iterator

from grammar.ast import Arg, Ast, Copy, From, Instruction, Onbuild, Run, Word
from grammar.diagnostics import Diagnostic, Severity, Span
from grammar.errors import MountError, ResolveError
from grammar.mount import parse_mount
from grammar.record import Record

# So many circles are told; a file with more is not read to the end.
_ENOUGH = 50


class Stage(Record):
    """One FROM and the instructions below it; `name` is in lower case, `description` from the comment `# name …`."""

    index: int
    name: str | None
    from_: From
    instructions: tuple[Instruction, ...]
    span: Span
    description: str


class Dockerfile(Record):
    """A whole file: its stages in order, and the ARGs above the first of them."""

    stages: tuple[Stage, ...]
    global_args: tuple[Arg, ...]
    ast: Ast

    def stage(self, reference: str) -> Stage | None:
        """Return the stage that `COPY --from=` or `--target` means by a name; of equal names the last one counts."""
        name = reference.lower()
        return next((stage for stage in reversed(self.stages) if stage.name == name), None)


def resolve(ast: Ast) -> Dockerfile:
    """Return the stages of a file; ResolveError tells everything that does not fit together."""
    faults: list[Diagnostic] = []
    global_args, stages = _stages(ast, faults)
    if not stages and not faults:
        faults.append(
            Diagnostic(
                code="no-stages",
                message="dockerfile contains no stages to build",
                span=None,
                hint="add FROM image below the ARGs",
            )
        )
    dockerfile = Dockerfile(stages=tuple(stages), global_args=tuple(global_args), ast=ast)
    whole = not faults
    _check_references(dockerfile, faults)
    if faults:
        faults.sort(key=lambda fault: fault.span.start if fault.span else (0, 0))
        error = ResolveError(tuple(faults), source=ast.source, name=ast.name)
        error.dockerfile = dockerfile if whole else None
        raise error
    return dockerfile


def _stages(ast: Ast, faults: list[Diagnostic]) -> tuple[list[Arg], list[Stage]]:
    global_args: list[Arg] = []
    groups: list[tuple[From, list[Instruction]]] = []
    for instruction in ast.instructions:
        if isinstance(instruction, From):
            groups.append((instruction, []))
        elif groups:
            groups[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            _fault(
                faults,
                "before-from",
                "no build stage in current context",
                instruction.span,
                f"move {instruction.keyword.upper()} below a FROM; only ARG may stand above it",
            )
    return global_args, [_stage(index, *group) for index, group in enumerate(groups)]


def _stage(index: int, from_: From, instructions: list[Instruction]) -> Stage:
    name = from_.name.text.lower() if from_.name else None
    return Stage(
        index=index,
        name=name,
        from_=from_,
        instructions=tuple(instructions),
        span=Span(from_.span.start, (instructions[-1] if instructions else from_).span.end),
        description=describe(from_.comments, name) if name else "",
    )


def describe(comments: tuple[str, ...], name: str) -> str:
    """Return what the comments above an instruction say about a name: the line that starts with it."""
    return next((text[len(name) + 1 :] for text in comments if text.startswith(f"{name} ")), "")


def _fault(faults: list[Diagnostic], code: str, message: str, span: Span, hint: str) -> None:
    faults.append(Diagnostic(severity=Severity.ERROR, code=code, message=message, span=span, hint=hint))


class _Reference(Record):
    """A place in a stage that names another, in COPY --from or in a mount; `to` is None where it means an image."""

    word: Word
    to: Stage | None


def _check_references(dockerfile: Dockerfile, faults: list[Diagnostic]) -> None:
    stages = dockerfile.stages
    names = {stage.name: stage for stage in stages if stage.name}
    needs = {stage.index: list(_references(dockerfile, stage, names, faults)) for stage in stages}
    edges = _edges(dockerfile, needs)
    told = 0
    for stage in stages:
        for reference in needs[stage.index]:
            if reference.to is not None and reference.to.index >= stage.index and told < _ENOUGH:
                told += _circular(dockerfile, stage, reference, edges, faults)


def _edges(dockerfile: Dockerfile, needs: dict[int, list[_Reference]]) -> list[list[int]]:
    """The indexes of the stages that each stage needs: those it refers to, and the one it is based on."""
    edges = []
    above: dict[str, int] = {}
    for stage in dockerfile.stages:
        found = [reference.to.index for reference in needs[stage.index] if reference.to is not None]
        base = above.get(stage.from_.image.text)
        edges.append(found if base is None else [*found, base])
        if stage.name:
            above[stage.name] = stage.index
    return edges


def _references(
    dockerfile: Dockerfile, stage: Stage, names: dict[str, Stage], faults: list[Diagnostic]
) -> Iterator[_Reference]:
    for instruction in stage.instructions:
        # The references of a trigger are resolved where it runs.
        if isinstance(instruction, Onbuild):
            continue
        if isinstance(instruction, Copy):
            if instruction.from_ is not None:
                yield from _copy_reference(dockerfile, instruction.from_, names, faults)
        elif isinstance(instruction, Run):
            for word in instruction.mounts:
                yield from _mount_reference(names, word)


def _copy_reference(
    dockerfile: Dockerfile, word: Word, names: dict[str, Stage], faults: list[Diagnostic]
) -> Iterator[_Reference]:
    name = word.text
    if "$" in name[:-1]:
        _fault(
            faults,
            "copy-from-variable",
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope "
            "as a workaround",
            word.span,
            f"add a stage `FROM {name} AS alias` and write --from=alias",
        )
        return
    digits = name[1:] if name[:1] in ("+", "-") else name
    if not (digits.isascii() and digits.isdecimal()):
        yield _Reference(word=word, to=names.get(name.lower()))
        return
    index = int(name) if len(name) < 10 else -1
    if not 0 <= index < len(dockerfile.stages):
        count = len(dockerfile.stages)
        hint = f"the stages are 0 to {count - 1}" if count > 1 else "the only stage is 0"
        _fault(faults, "stage-index", f"invalid stage index {name}", word.span, hint)
        return
    yield _Reference(word=word, to=dockerfile.stages[index])


def _mount_reference(names: dict[str, Stage], word: Word) -> Iterator[_Reference]:
    try:
        mount = parse_mount(word.text)
    except MountError:
        return  # told where the step is planned
    if mount.from_ and mount.type != "tmpfs":
        yield _Reference(word=word, to=names.get(mount.from_.lower()))


def _circular(
    dockerfile: Dockerfile,
    stage: Stage,
    reference: _Reference,
    edges: list[list[int]],
    faults: list[Diagnostic],
) -> bool:
    """Tell of a reference that leads back to its own stage; say whether this one does.

    A reference to a later stage alone is no fault here: it is one where the stage it is in is built.
    """
    assert reference.to is not None
    here = stage.name or f"stage-{stage.index}"
    chain = [dockerfile.stages[index] for index in _path(reference.to.index, stage.index, edges)]
    if not chain:
        return False
    steps = " -> ".join([here, *(s.name or f"stage-{s.index}" for s in chain)])
    hint = f"{steps}: a stage copies from stages above it only"
    _fault(faults, "circular-dependency", f"circular dependency detected on stage: {here}", reference.word.span, hint)
    return True


def _path(start: int, goal: int, edges: list[list[int]]) -> list[int]:
    """The shortest way from `start` to `goal` along what each stage needs, both included; empty where there is none."""
    came_from = {start: -1}
    queue = [start]
    for index in queue:
        if index == goal:
            way = []
            while index >= 0:
                way.append(index)
                index = came_from[index]  # noqa: PLW2901 - the search ends here
            return way[::-1]
        for other in edges[index]:
            if other not in came_from:
                came_from[other] = index
                queue.append(other)
    return []

"""RUN --mount while planning: from the written options to the mounts of an operation and the vertices they read."""

from __future__ import annotations

import posixpath
from typing import TYPE_CHECKING

import grammar
from builder.ops import BindMount, CacheMount, OpMount, SecretMount, SshMount, TmpfsMount
from grammar import Word

if TYPE_CHECKING:
    from builder.graph import Vertex
    from builder.stage import Planning, StageState

SECRETS = "/run/secrets/"
AGENTS = "/run/buildkit/ssh_agent."


class MountPlanner:
    """Plans the mounts of RUN instructions for a plan."""

    def __init__(self, planner: Planning) -> None:
        self._planner = planner

    def plan(self, stage: StageState, instruction: grammar.Run) -> tuple[tuple[OpMount, ...], tuple[Vertex, ...]]:
        """Return the mounts of a RUN, and the vertices they read: input 1 and on of the operation."""
        sources: list[Vertex] = []
        mounts: list[OpMount] = []
        agents = 0
        for word in instruction.mounts:
            mount = self._parse(stage, word)
            planned = self._mount(stage, word, mount, sources, agents)
            agents += isinstance(planned, SshMount)
            mounts.append(planned)
        return tuple(mounts), tuple(sources)

    def _parse(self, stage: StageState, word: Word) -> grammar.Mount:
        def expand(text: str) -> str:
            return self._planner.expand(Word(text=text, span=word.span), stage.env)

        try:
            return grammar.parse_mount(word.text, expand=expand)
        except grammar.MountError as error:
            raise self._planner.error("mount", error.message, word.span, hint=error.hint) from error

    def _mount(
        self, stage: StageState, word: Word, mount: grammar.Mount, sources: list[Vertex], agents: int
    ) -> OpMount:
        match mount.type:
            case "bind":
                target = self._target(stage, word, mount.target)
                source = mount.source or "/"
                return BindMount(
                    target=target,
                    source=source,
                    input=self._input(stage, word, mount, sources),
                    read_only=mount.readonly,
                )
            case "cache":
                return self._cache(stage, word, mount, sources)
            case "tmpfs":
                if posixpath.normpath(f"/{mount.source or ''}").strip("/"):
                    message = f"open {mount.source}: no such file or directory"
                    hint = "a tmpfs starts empty: remove source="
                    raise self._planner.error("mount", message, word.span, hint=hint)
                return TmpfsMount(target=self._target(stage, word, mount.target), size=mount.size or 0)
            case "secret":
                return self._secret(stage, word, mount)
            case "ssh":
                return SshMount(
                    id=mount.id or mount.source or "default",
                    target=self._target(stage, word, mount.target or f"{AGENTS}{agents}"),
                    required=mount.required,
                    mode=0o600 if mount.mode is None else mount.mode,
                    uid=mount.uid or 0,
                    gid=mount.gid or 0,
                )
        raise AssertionError(f"BUG: a mount of type {mount.type}")

    def _input(self, stage: StageState, word: Word, mount: grammar.Mount, sources: list[Vertex]) -> int:
        """Return the number of the input that `mount` reads, added to `sources` if it is new."""
        vertex = self._planner.source_vertex(stage, mount.from_, word.span, mount=mount.target or "")
        if vertex not in sources:
            sources.append(vertex)
        return 1 + sources.index(vertex)

    def _target(self, stage: StageState, word: Word, target: str | None) -> str:
        """Return the mount point as an absolute path: relative ones, and a missing one, start at WORKDIR."""
        path = posixpath.normpath(posixpath.join("/", stage.workdir, target or ""))
        path = "/" + path.lstrip("/")
        if path == "/":
            message = 'invalid mount target "/"'
            raise self._planner.error("mount", message, word.span, hint="mount on a directory below /")
        return path

    def _cache(self, stage: StageState, word: Word, mount: grammar.Mount, sources: list[Vertex]) -> CacheMount:
        target = self._target(stage, word, mount.target)
        # Where a cache starts as a copy of something, its directory keeps that thing's owner and mode.
        own = not mount.from_
        return CacheMount(
            target=target,
            id=mount.id or target,
            sharing=mount.sharing or "shared",
            mode=mount.mode & 0o777 if own and mount.mode is not None else 0o755,
            uid=mount.uid or 0 if own else 0,
            gid=mount.gid or 0 if own else 0,
            read_only=mount.readonly,
            input=self._input(stage, word, mount, sources) if mount.from_ else None,
            source=mount.source or "/",
        )

    def _secret(self, stage: StageState, word: Word, mount: grammar.Mount) -> SecretMount:
        identity = mount.id or mount.source or posixpath.basename(mount.target or "")
        target = mount.target
        if target is None and mount.env is None:
            target = SECRETS + identity
        return SecretMount(
            id=identity,
            target=None if target is None else self._target(stage, word, target),
            env=mount.env,
            required=mount.required,
            mode=0o400 if mount.mode is None else mount.mode,
            uid=mount.uid or 0,
            gid=mount.gid or 0,
        )

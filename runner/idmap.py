"""Id maps of user namespaces, as values (user_namespaces(7)); it knows nothing of who may write them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from runner.errors import SpecError


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """`size` ids from `container_id` on inside are those from `host_id` on outside (OCI uidMappings, gidMappings)."""

    container_id: int
    host_id: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMap:
    """One whole map; ids that no mapping covers do not exist inside."""

    mappings: tuple[IdMapping, ...]

    def __post_init__(self) -> None:
        for one in self.mappings:
            if one.size < 1 or one.container_id < 0 or one.host_id < 0:
                raise SpecError(f"not a range of ids: {one.container_id} {one.host_id} {one.size}")
        for kind in ("container_id", "host_id"):
            ranges = sorted((getattr(one, kind), one.size) for one in self.mappings)
            for (start, size), (following, _) in pairwise(ranges):
                if start + size > following:
                    raise SpecError(f"id {following} is mapped twice", hint="ranges of an id map must not overlap")

    @classmethod
    def parse(cls, text: str) -> IdMap:
        """Read the form of /proc/PID/uid_map: three numbers a line; SpecError for anything else."""
        mappings = []
        for line in text.splitlines():
            words = line.split()
            if len(words) != 3 or not all(word.isdecimal() for word in words):
                raise SpecError(f"not a line of an id map: {line!r}")
            container_id, host_id, size = map(int, words)
            mappings.append(IdMapping(container_id=container_id, host_id=host_id, size=size))
        return cls(mappings=tuple(mappings))

    def text(self) -> str:
        """Return the map as /proc/PID/uid_map takes it."""
        return "".join(f"{one.container_id} {one.host_id} {one.size}\n" for one in self.mappings)

    def to_host(self, container_id: int) -> int | None:
        """Return the id outside, None if there is none."""
        for one in self.mappings:
            if one.container_id <= container_id < one.container_id + one.size:
                return one.host_id + container_id - one.container_id
        return None

    def to_container(self, host_id: int) -> int | None:
        """Return the id inside, None if there is none."""
        for one in self.mappings:
            if one.host_id <= host_id < one.host_id + one.size:
                return one.container_id + host_id - one.host_id
        return None

"""Control groups: a container's limits, its processes as one, and what they used; versions 1, 2 and hybrid hosts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Limits:
    """What a container may use; None or an empty string leaves it alone. Sizes in bytes, -1 for unlimited swap or pids."""

    memory: int | None = None
    memory_swap: int | None = None  # memory and swap together, as in docker
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None  # 2..262144, 1024 is the default
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    devices: bool = False  # allow only docker's default devices


@dataclass(frozen=True)
class Stats:
    """What a group has used: bytes, nanoseconds, and whether the kernel killed a member for lack of memory."""

    memory: int | None
    memory_peak: int | None
    cpu: int | None
    pids: int | None
    oom_killed: bool


class Cgroup:
    """One container's groups: a single directory in version 2, one for every controller in version 1."""

    join_paths: tuple[Path, ...]
    """The cgroup.procs files into which a member's pid has to be written."""

    @classmethod
    def create(cls, id: str, limits: Limits, *, parent: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> Cgroup:
        """Make the groups below `parent` (default: `pybuild` below the caller's own group) and set the limits.

        RunnerError names controller, file and next action where a limit cannot be applied; nothing is left then.
        """
        raise NotImplementedError

    @classmethod
    def open(cls, id: str, *, parent: str | None = None, root: Path = Path("/sys/fs/cgroup")) -> Cgroup:
        """The groups that another process created with the same id and parent."""
        raise NotImplementedError

    def join(self, pid: int) -> None:
        """Move a process in."""
        raise NotImplementedError

    def update(self, limits: Limits) -> None:
        """Set limits on a living group."""
        raise NotImplementedError

    def pids(self) -> tuple[int, ...]:
        """The members, as the caller's pid namespace numbers them."""
        raise NotImplementedError

    def kill(self) -> None:
        """SIGKILL every member, also those that fork meanwhile."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Stop every member until `thaw`; returns when they have stopped."""
        raise NotImplementedError

    def thaw(self) -> None:
        """Let them run again."""
        raise NotImplementedError

    def stats(self) -> Stats:
        """What was used until now."""
        raise NotImplementedError

    def remove(self) -> None:
        """Take the groups away, retrying while they are busy with processes that are dying; safe to repeat."""
        raise NotImplementedError

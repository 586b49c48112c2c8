"""The group of processes that may make any device node and open only some: docker's default ones for a build's steps.

A container of `pybuild run` has groups of its own (`runner/cgroups.py`). Steps share one, which their launcher joins
once; what is born there belongs to it without having joined.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from runner.cgroups import DEFAULT_ROOT, Cgroup
from runner.errors import RunnerError
from runner.launcher import GROUP_PREFIX
from runner.limits import Limits

if TYPE_CHECKING:
    from runner.launch import Launcher

_ATTEMPTS = 5


class DeviceGroup:
    """One build's group. Whoever makes one takes away what killed builds have left."""

    def __init__(self, group: Cgroup) -> None:
        self._group = group

    @classmethod
    def confine(cls, launcher: Launcher, *, rules: tuple[str, ...] = (), root: Path = DEFAULT_ROOT) -> DeviceGroup:
        """Make a group and put `launcher` into it, with all that it forks from now on.

        `rules` (in the words of devices.allow) say what its members may open besides docker's default devices.
        RunnerError where the host has neither the version 1 controller nor version 2 groups that can be written.
        """
        name = f"{GROUP_PREFIX}{launcher.pid}-{os.urandom(4).hex()}"
        for left in range(_ATTEMPTS, 0, -1):
            try:
                group = Cgroup.create(name, Limits(devices=True, device_rules=rules), root=root, counted=False)
            except RunnerError:
                # A build in another PID namespace may take this one for a dead one's before anybody is in it.
                if left > 1:
                    continue
                raise
            try:
                launcher.join(group.directories)
            except RunnerError:
                gone = not all(path.is_dir() for path in group.directories)
                with suppress(RunnerError):
                    group.remove()
                if gone and left > 1:
                    continue
                raise
            cls._sweep(group)
            return cls(group)
        raise AssertionError("BUG: the loop ends by itself")

    def remove(self) -> None:
        """Take the group away once the process has ended; RunnerError if members stay. Safe to repeat."""
        self._group.remove()

    @staticmethod
    def _sweep(own: Cgroup) -> None:
        """Remove the groups beside `own` whose launcher has ended; one with members refuses.

        An empty one may be another build's that has just made it.
        """
        for directory in own.directories:
            for other in directory.parent.glob(GROUP_PREFIX + "*"):
                pid = other.name.removeprefix(GROUP_PREFIX).partition("-")[0]
                if other != directory and not os.path.exists(f"/proc/{pid}"):
                    with suppress(OSError):
                        other.rmdir()

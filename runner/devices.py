"""The group of processes that may make any device node and open only docker's default ones: a build's steps.

A container of `pybuild run` has groups of its own (`runner/cgroups.py`). Steps share one, which their launcher joins
once: joining waits for every CPU (some 10 ms), being born into a group costs nothing.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from runner.cgroups import DEFAULT_ROOT, Cgroup
from runner.errors import RunnerError
from runner.limits import Limits

PREFIX = "steps-"
_ATTEMPTS = 5


class DeviceGroup:
    """One build's group. Whoever makes one takes away what killed builds have left."""

    def __init__(self, group: Cgroup) -> None:
        self._group = group

    @classmethod
    def confine(cls, pid: int, *, root: Path = DEFAULT_ROOT) -> DeviceGroup:
        """Make a group and put the process `pid` into it, with all that it forks from now on.

        RunnerError where the host has neither the version 1 controller nor version 2 groups that can be written.
        """
        name = f"{PREFIX}{pid}-{os.urandom(4).hex()}"
        for left in range(_ATTEMPTS, 0, -1):
            group = Cgroup.create(name, Limits(devices=True), root=root, counted=False)
            try:
                group.join(pid)
            except RunnerError:
                gone = not all(path.is_dir() for path in group.directories)
                with suppress(RunnerError):
                    group.remove()
                if gone and left > 1:  # another build took it for a dead one's before anybody was in it
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
        """Remove the empty groups beside `own`: a group with members refuses."""
        for directory in own.directories:
            for other in directory.parent.glob(PREFIX + "*"):
                if other != directory:
                    with suppress(OSError):
                        other.rmdir()

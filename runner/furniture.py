"""What is the same in most containers, made before there is a root filesystem to put it into: /proc, /dev, /sys.

Made at a place of its own in the container's mount namespace and moved from there with all that is mounted in it.
`runner/plan.py` says what belongs to it. Loaded by the launcher, hence plain classes.
"""

from __future__ import annotations

import os

from runner import mounts, rootfs
from runner.filesystem import new_filesystem

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Any directory of the host that nothing is needed from until it is out of sight.
_BENCH = b"/proc/sys"


class Furniture:
    """The mounts of a container's own /proc, /dev and /sys."""

    def __init__(self) -> None:
        self._bench: rootfs.Root | None = None
        self._tops: list[bytes] = []

    def make(self, plan: dict[str, Any], cgroup_paths: dict[bytes, bytes]) -> None:
        """Make what the plan says, in the namespaces this process is in; OSError."""
        if not plan["mounts"]:
            return
        mounted = new_filesystem(b"tmpfs", b"tmpfs", (b"mode=700",), 0)
        bench = self._bench = rootfs.Root(mounted, _BENCH, b"", cgroup_paths)
        for values in plan["mounts"]:
            mounts.from_wire(values).execute(bench)
        self._tops = sorted(os.listdir(_BENCH))
        rootfs.make_read_only(bench, plan["readonly_paths"])
        rootfs.mask(bench, plan["masked_paths"])

    def move_to(self, root: rootfs.Root) -> None:
        """Put it into the container's root."""
        if self._bench is None:
            return
        for name in self._tops:
            tree = self._bench.open(name)
            try:
                root.attach(tree, name, directory=True)
            finally:
                os.close(tree)
        os.close(self._bench.fd)

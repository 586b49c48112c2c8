"""The caller's side of running containers: starts the launcher, hands it plans, tells what became of the processes.

Containers are born in the launcher (`runner/child.py`), a process with one thread. Methods may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from runner.spec import Spec


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a process ended: `code` if it exited, `signal` if one killed it; the other is None."""

    code: int | None
    signal: int | None

    @property
    def shell_status(self) -> int:
        """The number a shell shows: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class Process:
    """A container's first process."""

    pid: int
    terminal: int | None

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Return how it ended, once it has and all of the container is gone; TimeoutError after `timeout` seconds."""
        raise NotImplementedError

    def signal(self, signum: int) -> None:
        """Send a signal to the container's first process; does nothing once it has ended."""
        raise NotImplementedError

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal its size."""
        raise NotImplementedError


class Launcher:
    """The process containers are born in."""

    @classmethod
    def start(cls, *, in_process: bool = False) -> Self:
        """Start a launcher; `in_process` forks it from this interpreter, which must have one thread only."""
        raise NotImplementedError

    def spawn(
        self,
        spec: Spec,
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        on_namespaces: Callable[[int], None] | None = None,
    ) -> Process:
        """Start a container and return once its process has been executed.

        `stdin`, `stdout` and `stderr` are descriptors of the caller; with `spec.process.terminal` they are not used and
        `Process.terminal` is the master side of the container's terminal. `on_namespaces` is called in the calling
        thread with the pid of the container's first process, when its namespaces exist and before anything is mounted:
        the moment to set up its network. Raises SpecError, SetupError(stage, errno, path), LauncherError.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Kill every container that still runs, end the launcher and wait until both are done."""
        raise NotImplementedError

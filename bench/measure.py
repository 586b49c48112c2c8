"""What a command costs: wall clock, processor time and memory, of itself and of the daemons that work for it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

_TICKS = os.sysconf("SC_CLK_TCK")
_INTERVAL = 0.02
"""Seconds between two looks at the processes of a run whose memory is watched."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program with its arguments, its whole environment and its working directory."""

    argv: Sequence[str]
    environ: Mapping[str, str]
    cwd: Path


class Usage(NamedTuple):
    """What a run cost: seconds of wall clock, seconds of user and system time, bytes of memory at the peak."""

    wall: float
    cpu: float
    peak: int


class Run(NamedTuple):
    """A measured run and everything it printed."""

    usage: Usage
    output: str


class CommandFailed(Exception):
    """A command ended with a status other than 0."""

    def __init__(self, command: Command, status: int, output: str) -> None:
        super().__init__(f"{' '.join(command.argv)} ended with {status}: {output[-2000:].strip()}")


class _Watch:
    """Looks at the memory of a run's processes, again and again, and remembers the most."""

    def __init__(self, daemons: Sequence[int]) -> None:
        self._others = {pid for pid in _pids() if pid not in daemons}
        self._before = sum(map(_proportional, daemons))
        self._stop = threading.Event()
        self.peak = 0

    def _look(self) -> None:
        while not self._stop.wait(_INTERVAL):
            memory = sum(_proportional(pid) for pid in _pids() if pid not in self._others)
            self.peak = max(self.peak, memory - self._before)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Look from here to there."""
        thread = threading.Thread(target=self._look, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def measure(commands: Sequence[Command], *, daemons: Sequence[int] = (), watch: bool = False) -> Run:
    """Run commands one after the other and return what they cost together, and what they printed.

    Memory is the largest process of the commands and what the `daemons` (process ids) took in addition; with `watch`
    it is the most that all processes had at one time, sampled, which costs some time itself. CommandFailed.
    """
    _reap()
    rest = [_Daemon(pid) for pid in daemons]
    watching = _Watch(daemons) if watch else None
    cpu, peak, outputs = 0.0, 0, []
    with watching.running() if watching is not None else contextlib.nullcontext():
        start = time.perf_counter()
        for command in commands:
            used, memory, output = _run(command)
            cpu, peak = cpu + used, max(peak, memory)
            outputs.append(output)
        wall = time.perf_counter() - start
    cpu += _reap() + sum(daemon.cpu() for daemon in rest)
    peak = watching.peak if watching is not None else peak + sum(daemon.growth() for daemon in rest)
    return Run(Usage(wall, cpu, peak), "".join(outputs))


def run(commands: Sequence[Command]) -> str:
    """Run commands that are not measured and return what they printed. CommandFailed."""
    return "".join(_run(command)[2] for command in commands)


def own_peak() -> int:
    """Bytes of memory that this process had at its peak: the least that can be seen of a process started by it."""
    return _status(os.getpid(), "VmHWM")


def _run(command: Command) -> tuple[float, int, str]:
    """Run one command; its processor time, the memory of its largest process, and its output."""
    log = os.memfd_create("output")
    try:
        process = subprocess.Popen(
            command.argv,
            env=dict(command.environ),
            cwd=command.cwd,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)  # it was waited for here: Popen need not
        output = os.pread(log, os.fstat(log).st_size, 0).decode(errors="replace")
    finally:
        os.close(log)
    if process.returncode:
        raise CommandFailed(command, process.returncode, output)
    return used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, output


def _reap() -> float:
    """Wait for orphans that ended, where this process is their reaper; their processor time."""
    cpu = 0.0
    while os.getpid() == 1:
        with contextlib.suppress(ChildProcessError):
            pid, _, used = os.wait4(-1, os.WNOHANG)
            if pid:
                cpu += used.ru_utime + used.ru_stime
                continue
        break
    return cpu


class _Daemon:
    """A daemon as it was before a run."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        with contextlib.suppress(OSError):  # without it the peak is that of its whole life
            Path(f"/proc/{pid}/clear_refs").write_text("5")
        self._size = _status(pid, "VmRSS")
        self._cpu = self._times()

    def _times(self) -> float:
        """Seconds that it and its children that ended have used: user, system, and the children's of both."""
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS

    def cpu(self) -> float:
        """Seconds of processor time since then."""
        return self._times() - self._cpu

    def growth(self) -> int:
        """Bytes of memory at the peak since then, beyond what it had."""
        return max(0, _status(self._pid, "VmHWM") - self._size)


def _status(pid: int, name: str) -> int:
    """A field of /proc/PID/status that is a size, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    return 0


def _pids() -> list[int]:
    """All processes, in the pid namespace of this one."""
    return [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]


def _proportional(pid: int) -> int:
    """Bytes of memory of a process, its part of what it shares with others; 0 if it is gone."""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as table:
        return next((int(line.split()[1]) for line in table if line.startswith("Pss:")), 0) * 1024
    return 0

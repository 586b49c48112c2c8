"""What a container may use, and the control group files that say so: pure, knows no file system.

Follows the kernel's cgroup-v1 and cgroup-v2 documents; defaults are docker's.
"""

from __future__ import annotations

from typing import NamedTuple

from runner.errors import RunnerError

CPU_PERIOD = 100_000
"""Microseconds in which a group may run for `cpus` times as long."""

DEFAULT_DEVICES = (
    "c *:* m",
    "b *:* m",
    "c 1:3 rwm",  # null
    "c 1:5 rwm",  # zero
    "c 1:7 rwm",  # full
    "c 1:8 rwm",  # random
    "c 1:9 rwm",  # urandom
    "c 5:0 rwm",  # tty
    "c 5:1 rwm",  # console
    "c 5:2 rwm",  # ptmx
    "c 136:* rwm",  # pts
)
"""What docker allows every container: any node may be made, few may be opened."""


class Limits(NamedTuple):
    """What a container may use; None or an empty string leaves it alone. Sizes are bytes, -1 is unlimited.

    `memory_swap` is memory and swap together, as in docker, and twice the memory by default. `cpu_shares` goes from 2
    to 262144, 1024 being what others have. `devices` allows `DEFAULT_DEVICES` and `device_rules` (in the words of
    devices.allow: `c 10:229 rwm`) and nothing else.
    """

    memory: int | None = None
    memory_swap: int | None = None
    memory_reservation: int | None = None
    cpus: float | None = None
    cpu_shares: int | None = None
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int | None = None
    devices: bool = False
    device_rules: tuple[str, ...] = ()

    def check(self, online: int) -> None:
        """RunnerError for values that no kernel takes; `online` is the number of CPUs."""
        if self.memory is not None and self.memory < 6 << 20:
            raise RunnerError(f"memory limit {self.memory} is too small", hint="use at least 6m")
        if self.memory_swap is not None:
            if self.memory is None:
                raise RunnerError("a limit of memory and swap needs a limit of memory", hint="give --memory too")
            if self.memory_swap not in {-1, 0} and self.memory_swap < self.memory:
                raise RunnerError(
                    "memory and swap together are less than memory", hint="--memory-swap is the sum of both"
                )
        if self.cpus is not None and not 0.01 <= self.cpus <= online:
            raise RunnerError(f"{self.cpus} CPUs cannot be had", hint=f"use a number from 0.01 to {online}")
        if self.cpu_shares is not None and not 2 <= self.cpu_shares <= 262_144:
            raise RunnerError(f"CPU shares {self.cpu_shares} are out of range", hint="use a number from 2 to 262144")
        for rule in self.device_rules:
            parse_device_rule(rule)

    @property
    def swap_total(self) -> int | None:
        """Memory and swap together: what was asked for, or docker's twice the memory; 0 means that too."""
        if self.memory is None:
            return None
        return self.memory_swap or 2 * self.memory

    @property
    def allowed_devices(self) -> tuple[str, ...]:
        """The rules of devices.allow."""
        return (*DEFAULT_DEVICES, *self.device_rules)


class Setting(NamedTuple):
    """One write: `text` into `file` of a group of `controller`; `optional` if the user did not ask for it himself."""

    controller: str
    file: str
    text: str
    optional: bool = False


def settings_v1(limits: Limits) -> list[Setting]:
    """The writes for version 1, in the order the kernel accepts them for a new group."""
    found = []
    if limits.memory is not None:
        found.append(Setting("memory", "memory.limit_in_bytes", str(limits.memory)))
        asked = bool(limits.memory_swap)
        found.append(Setting("memory", "memory.memsw.limit_in_bytes", str(limits.swap_total), optional=not asked))
    if limits.memory_reservation is not None:
        found.append(Setting("memory", "memory.soft_limit_in_bytes", str(limits.memory_reservation)))
    if limits.cpus is not None:
        found.append(Setting("cpu", "cpu.cfs_period_us", str(CPU_PERIOD)))
        found.append(Setting("cpu", "cpu.cfs_quota_us", str(round(limits.cpus * CPU_PERIOD))))
    if limits.cpu_shares is not None:
        found.append(Setting("cpu", "cpu.shares", str(limits.cpu_shares)))
    if limits.devices:
        found.append(Setting("devices", "devices.deny", "a"))
        found += [Setting("devices", "devices.allow", rule) for rule in limits.allowed_devices]
    return found + _common(limits)


def settings_v2(limits: Limits) -> list[Setting]:
    """The writes for version 2; devices are not among them, since there a program decides."""
    found = []
    if limits.memory is not None and limits.swap_total is not None:
        found.append(Setting("memory", "memory.max", str(limits.memory)))
        swap = "max" if limits.swap_total == -1 else str(limits.swap_total - limits.memory)
        found.append(Setting("memory", "memory.swap.max", swap, optional=not limits.memory_swap))
    if limits.memory_reservation is not None:
        found.append(Setting("memory", "memory.low", str(limits.memory_reservation)))
    if limits.cpus is not None:
        found.append(Setting("cpu", "cpu.max", f"{round(limits.cpus * CPU_PERIOD)} {CPU_PERIOD}"))
    if limits.cpu_shares is not None:
        found.append(Setting("cpu", "cpu.weight", str(1 + (limits.cpu_shares - 2) * 9999 // 262_142)))
    return found + _common(limits)


def parse_device_rule(rule: str) -> tuple[str, int | None, int | None, str]:
    """(type a|b|c, major, minor, access) of a rule of devices.allow; None is any number. RunnerError if malformed."""
    try:
        kind, numbers, access = rule.split()
        major, minor = numbers.split(":")
        parsed = [None if number == "*" else int(number) for number in (major, minor)]
    except ValueError:
        kind, access, parsed = "", "", [None, None]
    if kind not in {"a", "b", "c"} or not access or set(access) - set("rwm"):
        raise RunnerError(f"invalid device rule {rule!r}", hint="write TYPE MAJOR:MINOR ACCESS, as in 'c 10:229 rwm'")
    return kind, parsed[0], parsed[1], access


def _common(limits: Limits) -> list[Setting]:
    found = []
    if limits.cpuset_cpus:
        found.append(Setting("cpuset", "cpuset.cpus", limits.cpuset_cpus))
    if limits.cpuset_mems:
        found.append(Setting("cpuset", "cpuset.mems", limits.cpuset_mems))
    if limits.pids is not None:
        found.append(Setting("pids", "pids.max", "max" if limits.pids <= 0 else str(limits.pids)))
    return found

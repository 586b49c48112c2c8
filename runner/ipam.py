"""Which address of a bridge belongs to whom: one JSON file per bridge and network namespace, changed under its lock.

A member is alive as long as its owner is: a process, told apart from later ones of the same pid by its start time.
Knows neither links nor rules.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from runner.errors import RunnerError
from runner.ports import Port

_FORMAT = 1


class Owner(NamedTuple):
    """A process; `started` is its start time in clock ticks since boot (proc_pid_stat(5), field 22)."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Owner:
        """The process that has this pid now; RunnerError if there is none."""
        started = _start_time(pid)
        if started is None:
            raise RunnerError(f"process {pid} has ended", hint="its network cannot be set up any more")
        return cls(pid, started)

    def alive(self) -> bool:
        """Whether this process, and not a later one of the same pid, runs."""
        return _start_time(self.pid) == self.started


class Member(NamedTuple):
    """One endpoint of a bridge; `link` is the host's side of its veth pair."""

    address: str
    mac: str
    link: str
    owner: Owner
    ports: tuple[Port, ...] = ()


class Ledger:
    """The members of one bridge by their id; `network` is its range in CIDR form, empty while there is no bridge."""

    def __init__(self, path: Path, network: str = "", last: str = "", members: dict[str, Member] | None = None) -> None:
        """`path` is its file, `last` the address given out last."""
        self.network = network
        self.last = last
        self.members = members or {}
        self._path = path

    def save(self) -> None:
        """Write the file now; a reader sees the old one or the new one."""
        document = {
            "version": _FORMAT,
            "boot": _boot_id(),
            "network": self.network,
            "last": self.last,
            "members": {name: _as_json(member) for name, member in self.members.items()},
        }
        temporary = self._path.with_suffix(".new")
        temporary.write_text(json.dumps(document))
        temporary.replace(self._path)

    def forget(self) -> None:
        """Take the file away: the bridge is gone. The lock file stays, since others may wait for it."""
        self.network, self.last = "", ""
        self.members.clear()
        self._path.unlink(missing_ok=True)

    def allocate(self) -> str:
        """A free address: the one after the last given out, so that a freed one rests; RunnerError if all are taken."""
        network = ipaddress.IPv4Network(self.network)
        taken = {int(ipaddress.IPv4Address(member.address)) for member in self.members.values()}
        first, count = int(network.network_address) + 2, network.num_addresses - 3  # network, gateway, broadcast
        start = int(ipaddress.IPv4Address(self.last)) + 1 - first if self.last else 0
        for step in range(count):
            candidate = first + (start + step) % count
            if candidate not in taken:
                self.last = str(ipaddress.IPv4Address(candidate))
                return self.last
        raise RunnerError(
            f"all {count} addresses of {self.network} are taken", hint="stop a container, or use a larger subnet"
        )

    def dead(self) -> list[str]:
        """The ids whose owner has ended."""
        return [name for name, member in self.members.items() if not member.owner.alive()]


@contextmanager
def locked(directory: Path, bridge: str) -> Iterator[Ledger]:
    """The ledger of a bridge of the calling thread's network namespace, for one user at a time; nothing saves itself.

    RunnerError if `directory` cannot be used.
    """
    # Addresses are a matter of one network namespace: the same directory seen from another one tells of other bridges.
    namespace = os.stat("/proc/thread-self/ns/net").st_ino
    name = f"{bridge}-{namespace}"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(directory / f"{name}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RunnerError(
            f"network state cannot be kept in {directory}: {error.strerror}",
            hint="bridge networks need root and this directory",
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield _load(directory / f"{name}.json")
    finally:
        os.close(lock)


def _load(path: Path) -> Ledger:
    try:
        document = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return Ledger(path)
    if document.get("version") != _FORMAT or document.get("boot") != _boot_id():
        return Ledger(path)  # what was recorded before a reboot is gone
    members = {name: _member(entry) for name, entry in document["members"].items()}
    return Ledger(path, document["network"], document["last"], members)


def _member(entry: dict[str, Any]) -> Member:
    ports = tuple(Port(**port) for port in entry.pop("ports"))
    return Member(**{**entry, "owner": Owner(**entry["owner"]), "ports": ports})


def _as_json(member: Member) -> dict[str, Any]:
    ports = [port._asdict() for port in member.ports]
    return {**member._asdict(), "owner": member.owner._asdict(), "ports": ports}


def _boot_id() -> str:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def _start_time(pid: int) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in {b"Z", b"X"} else int(fields[19])

"""Networks of containers: none, host, bridge; addresses, NAT and published ports of the bridge.

The links are made through pyroute2 (imported when a bridge is first touched), the packet filter by `runner.nft`. Knows nothing of
containers but the network namespace they live in and a process whose end means that the namespace is done with.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class Mode(enum.Enum):
    """What a container sees of the network."""

    NONE = "none"
    HOST = "host"
    BRIDGE = "bridge"


@dataclass(frozen=True)
class Port:
    """One published port: `host_address:host_port` → `container_port`; host port 0 lets the kernel choose."""

    container_port: int
    host_port: int = 0
    host_address: str = "0.0.0.0"
    protocol: Literal["tcp", "udp"] = "tcp"


def parse_ports(text: str) -> tuple[Port, ...]:
    """The ports of one `-p` value: `[[ADDRESS:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|/udp]`; RunnerError if malformed."""
    raise NotImplementedError


class NetworkNamespace:
    """A network namespace of its own that lives as long as this object holds `fd` (or somebody lives inside); lo is up."""

    fd: int

    @classmethod
    def create(cls) -> NetworkNamespace:
        """A new namespace; the calling thread stays where it is. RunnerError if the kernel refuses."""
        raise NotImplementedError

    def close(self) -> None:
        """Let go of it; the kernel takes it away with its interfaces when nobody else is inside."""
        raise NotImplementedError


@dataclass(frozen=True)
class Endpoint:
    """One namespace's place on a bridge."""

    id: str
    address: str
    prefix: int
    gateway: str
    mac: str
    interface: str
    bridge: Bridge

    def publish(self, ports: Iterable[Port]) -> tuple[Port, ...]:
        """Make the host's ports lead here; returns them with the host ports filled in. RunnerError if one is taken."""
        raise NotImplementedError

    def release(self) -> None:
        """Take the endpoint away, with the bridge if it was the last; safe to repeat."""
        raise NotImplementedError


class Bridge:
    """A bridge of the host with its address range; shared by every process that is told the same `state` directory."""

    def __init__(self, state: Path, *, name: str = "pybuild0", subnet: str | None = None) -> None:
        """`state`: where addresses are recorded (/run/pybuild for root); `subnet`: CIDR, None chooses one free of collisions."""
        raise NotImplementedError

    def ensure(self) -> None:
        """Make the bridge if it is not there and clean what crashed users left. RunnerError says what the host lacks."""
        raise NotImplementedError

    def attach(self, target: int | NetworkNamespace, *, id: str, owner: int | None = None, interface: str = "eth0") -> Endpoint:
        """Give a namespace (a pid inside it, or the namespace) an address on the bridge and a default route.

        `owner` is the pid whose end makes the endpoint litter: the target pid by default, the caller for a namespace.
        """
        raise NotImplementedError

    def release(self, id: str) -> None:
        """What `Endpoint.release` does, for a process that only knows the id."""
        raise NotImplementedError

"""Networks of containers: namespaces, and bridges with addresses, NAT and published ports.

Knows nothing of containers but the network namespace they live in and a process whose end means that the namespace is
done with. The pieces: `runner.links` (interfaces), `runner.firewall` (rules), `runner.ipam` (who has
which address), `runner.ports` (what `-p` means). Networks none and host need none of them: see `runner.spec.NoNetwork`
and `HostNetwork`.

What is there while a bridge is used: the bridge, one veth port per endpoint, the nf_tables table of its name. The last
endpoint takes them away. What a killed user left behind is taken away by the next one, or by `Bridge.sweep`. The
host's ip_forward is switched on and stays on, as with docker and podman: others may rely on it by then.
"""

# ruff: noqa: A002 - what names a container is its id
from __future__ import annotations

import enum
import fcntl
import hashlib
import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

from runner import firewall, links
from runner.background import start
from runner.errors import RunnerError, UnsupportedError
from runner.ipam import Ledger, Member, Owner, locked
from runner.ports import ANY_ADDRESS, Port, parse_ports
from runner.syscalls import setns, unshare

__all__ = ["Bridge", "Endpoint", "Mode", "NetworkNamespace", "Port", "parse_ports"]

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1
_NAME_MAX = 15  # IFNAMSIZ without its end

# Ranges that seldom are in use: neither docker's (172.17-31, 192.168) nor podman's (10.88, 10.89) defaults come first.
_CANDIDATES = (
    *(f"10.{second}.{third}.0/20" for second in (214, 215) for third in range(0, 256, 16)),
    *(f"172.31.{third}.0/20" for third in range(0, 256, 16)),
    *(f"192.168.{third}.0/24" for third in range(200, 255)),
)


class Mode(enum.Enum):
    """What a container sees of the network."""

    NONE = "none"
    HOST = "host"
    BRIDGE = "bridge"


class NetworkNamespace:
    """A network namespace of its own that lives as long as this object holds `fd` (or somebody lives inside); lo is up.

    A build makes one, attaches it to a bridge once and lets every RUN step join it by `path`.
    """

    def __init__(self, fd: int) -> None:
        """`fd` is a descriptor of a network namespace and belongs to this object from now on."""
        self.fd = fd

    @classmethod
    def create(cls) -> NetworkNamespace:
        """A new namespace; the calling thread stays where it is. UnsupportedError if the kernel refuses."""

        def enter() -> int:
            unshare(_CLONE_NEWNET)
            _switch_on(b"lo")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        try:
            return cls(_in_thread(enter))
        except OSError as error:
            raise UnsupportedError(
                f"a network namespace cannot be made: {error.strerror}",
                hint="it needs CAP_SYS_ADMIN and CONFIG_NET_NS; or use --network host",
            ) from error

    @property
    def path(self) -> str:
        """Where the creating process finds the namespace as a file, for `JoinNetwork`."""
        return f"/proc/self/fd/{self.fd}"

    def run(self, action: Callable[[], T]) -> T:
        """What `action` returns (or raises) when it is called inside, in a thread of its own."""

        def enter() -> T:
            setns(self.fd, _CLONE_NEWNET)
            return action()

        return _in_thread(enter)

    def close(self) -> None:
        """Let go of it; the kernel takes it away with its interfaces when nobody else is inside. Safe to repeat."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> NetworkNamespace:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Endpoint(NamedTuple):
    """One namespace's place on a bridge: its IPv4 address and prefix length, the gateway, the interface inside."""

    id: str
    address: str
    prefix: int
    gateway: str
    mac: str
    interface: str
    bridge: Bridge

    def publish(self, ports: Iterable[Port]) -> tuple[Port, ...]:
        """Make ports of the host lead here; returns all that do, host ports filled in. RunnerError if one is taken.

        A published port is not held by a socket: a program of the host that binds it later gets no connections.
        """
        return self.bridge.publish(self.id, ports)

    def release(self) -> None:
        """Take the endpoint away, with the bridge if it was the last; safe to repeat."""
        self.bridge.release(self.id)


class Bridge:
    """A bridge of the host and its address range, shared by all processes that are told the same `state` directory.

    Methods may be called from any thread and process; they act in the network namespace of the calling thread.
    """

    def __init__(
        self, state: Path, *, name: str = "pybuild0", subnet: str | None = None, avoid: Sequence[str] = ()
    ) -> None:
        """`state`: where addresses are recorded (/run/pybuild/network for root). `subnet`: CIDR; None chooses one.

        The chosen one collides neither with the host's routes and addresses nor with the addresses in `avoid` (name
        servers that are reached through the default route). RunnerError for a name or subnet that cannot be.
        """
        if not 0 < len(name.encode()) <= _NAME_MAX or "/" in name or name.split() != [name] or name in {".", ".."}:
            raise RunnerError(f"invalid bridge name {name!r}", hint=f"use at most {_NAME_MAX} letters, digits, - and _")
        self.state = state
        self.name = name
        self._wanted = None if subnet is None else _parse_subnet(subnet)
        self._avoid = tuple(ipaddress.ip_address(address) for address in avoid)

    def ensure(self) -> None:
        """Make the bridge if it is not there; clean what crashed users left. RunnerError says what the host lacks."""
        with locked(self.state, self.name) as ledger:
            self._ensure(ledger)

    def attach(
        self, target: int | NetworkNamespace, *, id: str, owner: int | None = None, interface: str = "eth0"
    ) -> Endpoint:
        """Give a namespace (a pid inside it, or the namespace) an address on the bridge and a default route.

        `id` names the endpoint among all of the bridge. `owner` is the pid whose end makes it litter: by default
        the target pid, or the calling process for a namespace. RunnerError if anything fails; nothing is left then.
        """
        process = Owner.of(owner if owner is not None else target if isinstance(target, int) else os.getpid())
        if isinstance(target, NetworkNamespace):
            return self._attach(target, id, process, interface)
        with _namespace_of(target) as namespace:
            return self._attach(namespace, id, process, interface)

    def publish(self, id: str, ports: Iterable[Port]) -> tuple[Port, ...]:
        """What `Endpoint.publish` does, for a process that only knows the id."""
        with locked(self.state, self.name) as ledger:
            member = ledger.members.get(id)
            if member is None:
                raise RunnerError(f"{id} is not attached to {self.name}", hint="its process has ended")
            taken = {other: m.ports for other, m in ledger.members.items() if m.owner.alive()}
            for port in ports:
                chosen = _claim(port, taken)
                taken[id] = (*taken.get(id, ()), chosen)
            ledger.members[id] = member._replace(ports=taken.get(id, ()))
            self._apply(ledger)
            ledger.save()
            return ledger.members[id].ports

    def release(self, id: str) -> None:
        """What `Endpoint.release` does, for a process that only knows the id."""
        with locked(self.state, self.name) as ledger:
            self._prune(ledger, also=id)

    def sweep(self) -> None:
        """Clean what crashed users left, and the bridge if nobody uses it any more."""
        with locked(self.state, self.name) as ledger:
            self._prune(ledger)

    def _attach(self, namespace: NetworkNamespace, id: str, owner: Owner, interface: str) -> Endpoint:
        with locked(self.state, self.name) as ledger:
            self._ensure(ledger)
            if id in ledger.members:
                raise RunnerError(f"{id} is attached to {self.name} already", hint="release it first")
            address = ledger.allocate()
            link = "pb" + hashlib.sha256(f"{self.name}\0{id}".encode()).hexdigest()[: _NAME_MAX - 2]
            network = ipaddress.IPv4Network(ledger.network)
            endpoint = Endpoint(id, address, network.prefixlen, str(network[1]), _mac(address), interface, self)
            # Recorded first: should this process be killed meanwhile, the next one finds the link by its record.
            ledger.members[id] = Member(address, endpoint.mac, link, owner)
            ledger.save()
            try:
                links.create_veth(link, self.name, namespace=namespace.fd, peer=interface, mac=endpoint.mac)
                namespace.run(lambda: _configure(endpoint))
            except BaseException:
                self._prune(ledger, also=id)
                raise
            return endpoint

    def _ensure(self, ledger: Ledger) -> None:
        self._drop_dead(ledger)
        if ledger.network and links.index(self.name) is not None:
            self._check_subnet(ledger)
        else:
            self._create(ledger)
        self._apply(ledger)  # also where the bridge was there: somebody may have flushed the rules
        firewall.open_foreign(self.name)
        ledger.save()

    def _create(self, ledger: Ledger) -> None:
        if links.index(self.name) is not None:
            if not links.is_idle_bridge(self.name):
                raise RunnerError(
                    f"interface {self.name} exists and is not ours to use: {self.state} does not know it",
                    hint=f"`ip link delete {self.name}` if nothing needs it, or choose another bridge name",
                )
            links.delete(self.name)
        network = self._choose_network()
        ledger.network = str(network)
        ledger.save()
        try:
            links.create_bridge(self.name, str(network[1]), network.prefixlen, _mac(str(network[1])))
            _sysctl(f"net/ipv4/conf/{self.name}/route_localnet", "1")
            _sysctl("net/ipv4/ip_forward", "1")
            with suppress(RunnerError):  # no IPv6 in the kernel
                _sysctl(f"net/ipv6/conf/{self.name}/disable_ipv6", "1")
            self._apply(ledger)
        except BaseException:
            self._remove(ledger)
            raise

    def _check_subnet(self, ledger: Ledger) -> None:
        if self._wanted is not None and str(self._wanted) != ledger.network:
            raise RunnerError(
                f"{self.name} is in use with subnet {ledger.network}, not {self._wanted}",
                hint="wait until its users have ended, or choose another bridge name",
            )

    def _choose_network(self) -> ipaddress.IPv4Network:
        used = links.networks_in_use()
        if self._wanted is not None:
            for network in used:
                if network.overlaps(self._wanted):
                    raise RunnerError(
                        f"subnet {self._wanted} of {self.name} collides with the host's route to {network}",
                        hint="choose another subnet",
                    )
            return self._wanted
        for candidate in map(ipaddress.IPv4Network, _CANDIDATES):
            collides = any(network.overlaps(candidate) for network in used)
            if not collides and not any(address in candidate for address in self._avoid):
                return candidate
        raise RunnerError(f"no address range for {self.name} is free of collisions", hint="choose a subnet")

    def _apply(self, ledger: Ledger) -> None:
        network = ipaddress.IPv4Network(ledger.network)
        redirects = [firewall.Redirect(port, m.address) for m in ledger.members.values() for port in m.ports]
        firewall.apply(self.name, str(network.network_address), network.prefixlen, redirects)

    def _drop_dead(self, ledger: Ledger) -> None:
        for name in ledger.dead():
            links.delete(ledger.members.pop(name).link)

    def _prune(self, ledger: Ledger, *, also: str | None = None) -> None:
        """Take away `also` and every dead member, and everything if none is left."""
        going = {name for name in (*ledger.dead(), also) if name in ledger.members}
        if going == set(ledger.members):
            self._remove(ledger)
            return
        gone = [ledger.members.pop(name) for name in going if name is not None]
        for member in gone:
            links.delete(member.link)
        if any(member.ports for member in gone):
            self._apply(ledger)
        ledger.save()

    def _remove(self, ledger: Ledger) -> None:
        if ledger.network:
            # Both wait for the kernel, under locks of their own.
            rules = start(lambda: firewall.remove(self.name))
            try:
                links.delete_group(self.name)
            finally:
                rules()
        ledger.forget()


def _namespace_of(pid: int) -> NetworkNamespace:
    try:
        return NetworkNamespace(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        raise RunnerError(
            f"the network namespace of process {pid}: {error.strerror}", hint="the process has ended"
        ) from error


def _in_thread(action: Callable[[], T]) -> T:
    """Run elsewhere: whatever namespace `action` enters, no other thread is moved, signals or not."""
    return start(action)()


def _configure(endpoint: Endpoint) -> None:
    """Set up the inside of an endpoint; runs there."""
    _switch_on(b"lo")
    with suppress(RunnerError):  # no IPv6 in the kernel; else there would be a link-local address that leads nowhere
        _sysctl(f"net/ipv6/conf/{endpoint.interface}/disable_ipv6", "1")
    links.configure(endpoint.interface, endpoint.address, endpoint.prefix, endpoint.gateway)


def _switch_on(interface: bytes) -> None:
    """Set an interface up (netdevice(7)), without any library."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        answer = fcntl.ioctl(channel, _SIOCGIFFLAGS, struct.pack("16sH14x", interface, 0))
        flags = struct.unpack("16sH14x", answer)[1]
        fcntl.ioctl(channel, _SIOCSIFFLAGS, struct.pack("16sH14x", interface, flags | _IFF_UP))


def _sysctl(name: str, value: str) -> None:
    path = f"/proc/sys/{name}"
    try:
        with open(path, "r+") as file:
            if file.read().strip() != value:
                file.seek(0)
                file.write(value)
    except OSError as error:
        raise RunnerError(
            f"{path} cannot be set to {value}: {error.strerror}", hint="bridge networks need a writable /proc/sys/net"
        ) from error


def _mac(address: str) -> str:
    """A locally administered address that follows from the IPv4 address, so that caches of neighbours stay right."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in socket.inet_aton(address))


def _parse_subnet(text: str) -> ipaddress.IPv4Network:
    try:
        network = ipaddress.IPv4Network(text)
    except ValueError as error:
        raise RunnerError(
            f"invalid subnet {text!r}: {error}", hint="write NETWORK/PREFIX, as in 10.10.0.0/24"
        ) from None
    if network.prefixlen > 29:
        raise RunnerError(f"subnet {text} is too small", hint="use a prefix of 29 or less")
    return network


def _claim(port: Port, taken: dict[str, tuple[Port, ...]]) -> Port:
    """`port` with a host port that nobody has; RunnerError if the one asked for is taken."""
    for _ in range(100):
        number = _bindable(port)
        chosen = port._replace(host_port=number)
        holder = next((name for name, ports in taken.items() for other in ports if _overlap(chosen, other)), None)
        if holder is None:
            return chosen
        if port.host_port:
            raise RunnerError(
                f"host port {_named(chosen)} is published by {holder}", hint="stop it, or publish another port"
            )
    raise RunnerError(f"no host port is free for {port.container_port}/{port.protocol}", hint="name a host port")


def _bindable(port: Port) -> int:
    """The host port, found free (or chosen, for 0) by binding it for a moment."""
    kind = socket.SOCK_STREAM if port.protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, kind | socket.SOCK_CLOEXEC) as probe:
        if port.protocol == "tcp":
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that linger are no obstacle
        try:
            probe.bind((port.host_address, port.host_port))
        except OSError as error:
            raise RunnerError(
                f"host port {_named(port)} cannot be published: {error.strerror}",
                hint="stop the program that listens there, or publish another port",
            ) from error
        number: int = probe.getsockname()[1]
        return number


def _overlap(one: Port, other: Port) -> bool:
    same = (one.host_port, one.protocol) == (other.host_port, other.protocol)
    return same and (one.host_address == other.host_address or ANY_ADDRESS in {one.host_address, other.host_address})


def _named(port: Port) -> str:
    return f"{port.host_address}:{port.host_port}/{port.protocol}"

"""Bridges, veth pairs, addresses and routes. Everything happens in the network namespace of the calling thread."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import zlib
from errno import EAFNOSUPPORT, EBUSY, EEXIST, ENODEV, EOPNOTSUPP, EPERM
from typing import Any

from runner import rtnetlink
from runner.errors import RunnerError, UnsupportedError
from runner.rtnetlink import request

_SIOCGIFMTU = 0x8921


def index(name: str) -> int | None:
    """The number of the interface `name`; None if there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def mtu(name: str) -> int:
    """The largest packet that an interface takes, in bytes."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        answer = fcntl.ioctl(channel, _SIOCGIFMTU, struct.pack("16si20x", name.encode(), 0))
    value: int = struct.unpack("16si20x", answer)[1]
    return value


def create_bridge(name: str, address: str, prefix: int, mac: str) -> None:
    """A bridge that is up and has this address; RunnerError where the kernel refuses, and nothing is left then."""
    what = f"bridge {name}"
    _ask(what, request("bridge", name=name, mac=_mac(mac), mtu=_default_mtu(), group=group(name)))
    try:
        _ask(what, request("address", index=_index(name), address=socket.inet_aton(address), prefix=prefix))
    except BaseException:
        delete(name)
        raise


def create_veth(name: str, bridge: str, *, namespace: int, peer: str, mac: str) -> None:
    """A veth pair: `name` is a port of `bridge` and up, `peer` is inside the network namespace of the descriptor."""
    pair = request(
        "veth",
        name=name,
        master=_index(bridge),
        mtu=mtu(bridge),
        group=group(bridge),
        peer=peer,
        namespace=namespace,
        mac=_mac(mac),
    )
    _ask(f"veth pair {name}", pair)
    # Lets a container reach its own published port: with br_netfilter that packet goes back to where it came from.
    _ask(f"veth pair {name}", request("hairpin", name=name))


def configure(name: str, address: str, prefix: int, gateway: str) -> None:
    """Give an interface its address, switch it on and send everything else to the gateway."""
    number = _index(name)
    _ask(
        f"interface {name}",
        request("address", index=number, address=socket.inet_aton(address), prefix=prefix),
        request("up", index=number),
        request("default_route", index=number, address=socket.inet_aton(gateway)),
    )


def delete(name: str) -> None:
    """Take an interface away; its peer goes with it. Gone already is no error."""
    _ask(f"interface {name}", request("delete", name=name), ignore=ENODEV)


def group(bridge: str) -> int:
    """The number of the interface group (ip-link(8)) that a bridge and its ports are in."""
    return zlib.crc32(b"pybuild " + bridge.encode()) | 1


def delete_group(bridge: str) -> None:
    """Take a bridge and all its ports away at once: the kernel waits 20 ms for each call, not for each interface."""
    _ask(f"bridge {bridge}", request("delete_group", group=group(bridge)), ignore=ENODEV)


def is_idle_bridge(name: str) -> bool:
    """Whether `name` is a bridge without ports. Rare, and the one question whose answer takes pyroute2 to read."""
    try:
        from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - 0.1 s, for hosts with a bridge of our name only
    except ImportError as error:
        raise UnsupportedError(f"bridge networks need pyroute2: {error}", hint="pip install pyroute2") from error
    number = _index(name)
    try:
        with IPRoute() as kernel:
            links = list(kernel.get_links())
    except NetlinkError as error:
        raise _refused(f"bridge {name}", OSError(error.code, str(error))) from error
    itself = [link for link in links if link["index"] == number]
    is_bridge = any(_kind(link) == "bridge" for link in itself)
    return is_bridge and not any(link.get("master") == number for link in links)


def networks_in_use() -> tuple[ipaddress.IPv4Network, ...]:
    """The IPv4 networks that the host has addresses in or routes to, without the default route."""
    try:
        found = [(destination, prefix) for destination, prefix, _ in rtnetlink.routes() if prefix]
        found += rtnetlink.addresses()
    except OSError as error:
        raise _refused("routes", error) from error
    return tuple(ipaddress.IPv4Network(network, strict=False) for network in found)


def _default_mtu() -> int:
    """That of the interface towards the default gateway, so that no packet is too large on the way out; else 1500."""
    for _, prefix, interface in rtnetlink.routes():
        if not prefix and interface is not None:
            return mtu(socket.if_indextoname(interface))
    return 1500


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def _kind(link: Any) -> str | None:
    info = link.get("linkinfo")
    return info.get("kind") if info else None


def _index(name: str) -> int:
    number = index(name)
    if number is None:
        raise RunnerError(f"interface {name} has disappeared", hint="somebody else takes interfaces away; try again")
    return number


def _ask(what: str, *requests: bytes, ignore: int = 0) -> None:
    """Have requests about `what` carried out; a refusal becomes ours, unless it is `ignore`."""
    try:
        rtnetlink.ask(*requests)
    except OSError as error:
        if error.errno != ignore:
            raise _refused(what, error) from error


def _refused(what: str, error: OSError) -> RunnerError:
    match error.errno:
        case number if number == EPERM:
            hint = "bridge networks need CAP_NET_ADMIN; or use --network host or none"
        case number if number in {EOPNOTSUPP, EAFNOSUPPORT}:
            hint = "the kernel needs CONFIG_BRIDGE and CONFIG_VETH; or use --network host"
        case number if number in {EEXIST, EBUSY}:
            hint = "an interface or address of that name is there already"
        case _:
            hint = "`pybuild doctor` shows what this host allows"
    return RunnerError(f"{what}: {error.strerror}", hint=hint)

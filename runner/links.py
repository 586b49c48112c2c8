"""Bridges, veth pairs, addresses and routes, made through pyroute2.

pyroute2 takes 0.1 s to import, more than everything done with it here together, so it is imported by the first call
that talks to the kernel. Everything happens in the network namespace of the calling thread.
"""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EAFNOSUPPORT, EBUSY, EEXIST, ENODEV, EOPNOTSUPP, EPERM
from typing import Any

from runner.errors import RunnerError, UnsupportedError

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
    with _routes(f"bridge {name}") as kernel:
        kernel.link("add", ifname=name, kind="bridge", address=mac, mtu=_mtu(kernel), group=group(name))
        try:
            number = _index(name)
            kernel.addr("add", index=number, address=address, prefixlen=prefix)
            kernel.link("set", index=number, state="up")
        except BaseException:
            delete(name)
            raise


def create_veth(name: str, bridge: str, *, namespace: int, peer: str, mac: str) -> None:
    """A veth pair: `name` is a port of `bridge` and up, `peer` is inside the network namespace of the descriptor."""
    with _routes(f"veth pair {name}") as kernel:
        kernel.link(
            "add",
            ifname=name,
            kind="veth",
            master=_index(bridge),
            state="up",
            mtu=mtu(bridge),
            group=group(bridge),
            peer={"ifname": peer, "net_ns_fd": namespace, "address": mac, "mtu": mtu(bridge)},
        )
        # Lets a container reach its own published port: with br_netfilter that packet goes back to where it came from.
        kernel.brport("set", index=_index(name), mode=1)


def configure(name: str, address: str, prefix: int, gateway: str) -> None:
    """Give an interface its address, switch it on and send everything else to the gateway."""
    with _routes(f"interface {name}") as kernel:
        number = _index(name)
        kernel.addr("add", index=number, address=address, prefixlen=prefix)
        kernel.link("set", index=number, state="up")
        kernel.route("add", dst="0.0.0.0/0", gateway=gateway, oif=number)


def delete(name: str) -> None:
    """Take an interface away; its peer goes with it. Gone already is no error."""
    number = index(name)
    if number is None:
        return
    with _routes(f"interface {name}", ignore=ENODEV) as kernel:
        kernel.link("del", index=number)


def group(bridge: str) -> int:
    """The number of the interface group (ip-link(8)) that a bridge and its ports are in."""
    return zlib.crc32(b"pybuild " + bridge.encode()) | 1


def delete_group(bridge: str) -> None:
    """Take a bridge and all its ports away at once: the kernel waits 20 ms for each call, not for each interface."""
    with _routes(f"bridge {bridge}", ignore=ENODEV) as kernel:
        kernel.link("del", group=group(bridge))


def is_idle_bridge(name: str) -> bool:
    """Whether `name` is a bridge without ports."""
    with _routes(f"bridge {name}") as kernel:
        number = _index(name)
        links = list(kernel.get_links())
    itself = [link for link in links if link["index"] == number]
    is_bridge = any(_kind(link) == "bridge" for link in itself)
    return is_bridge and not any(link.get("master") == number for link in links)


def networks_in_use() -> tuple[ipaddress.IPv4Network, ...]:
    """The IPv4 networks that the host has addresses in or routes to, without the default route."""
    with _routes("routes") as kernel:
        routes = kernel.get_routes(family=socket.AF_INET)
        found = [(route.get("dst"), route["dst_len"]) for route in routes if route["dst_len"]]
        found += [(a.get("address"), a["prefixlen"]) for a in kernel.get_addr(family=socket.AF_INET)]
    return tuple(ipaddress.IPv4Network(network, strict=False) for network in found)


def _mtu(kernel: Any) -> int:
    """That of the interface towards the default gateway, so that no packet is too large on the way out; else 1500."""
    for route in kernel.get_routes(family=socket.AF_INET):
        if not route["dst_len"] and route.get("oif"):
            return mtu(socket.if_indextoname(route.get("oif")))
    return 1500


def _kind(link: Any) -> str | None:
    info = link.get("linkinfo")
    return info.get("kind") if info else None


def _index(name: str) -> int:
    number = index(name)
    if number is None:
        raise RunnerError(f"interface {name} has disappeared", hint="somebody else takes interfaces away; try again")
    return number


@contextmanager
def _routes(what: str, *, ignore: int = 0) -> Iterator[Any]:
    """A pyroute2 socket of this thread's namespace; its errors, and a missing library, become ours."""
    try:
        from pyroute2 import IPRoute, NetlinkError  # noqa: PLC0415 - 0.1 s that only bridges pay for
    except ImportError as error:
        raise UnsupportedError(f"bridge networks need pyroute2: {error}", hint="pip install pyroute2") from error
    try:
        with IPRoute() as kernel:
            yield kernel
    except NetlinkError as error:
        if error.code != ignore:
            raise _refused(what, error.code, str(error)) from error


def _refused(what: str, number: int, text: str) -> RunnerError:
    match number:
        case _ if number == EPERM:
            hint = "bridge networks need CAP_NET_ADMIN; or use --network host or none"
        case _ if number in {EOPNOTSUPP, EAFNOSUPPORT}:
            hint = "the kernel needs CONFIG_BRIDGE and CONFIG_VETH; or use --network host"
        case _ if number in {EEXIST, EBUSY}:
            hint = "an interface or address of that name is there already"
        case _:
            hint = "`pybuild doctor` shows what this host allows"
    return RunnerError(f"{what}: {text}", hint=hint)

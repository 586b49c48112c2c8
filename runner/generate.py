"""Makes `requests.py`, the requests of `rtnetlink.py`, and `defaultfilters.py`: `python -m runner.generate`.

pyroute2 knows how rtnetlink(7) messages are laid out; each is packed once, with marks where values go. The filters are
docker's default profile, compiled for each machine.
"""

from __future__ import annotations

import sys
from pathlib import Path
from socket import AF_INET
from typing import Any

from pyroute2.netlink.rtnl import RTM_DELLINK, RTM_GETADDR, RTM_GETROUTE, RTM_NEWADDR, RTM_NEWLINK, RTM_NEWROUTE
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from runner.caps import DEFAULT_CAPABILITIES
from runner.seccomp import compile_filter, load

_REQUEST_ACK, _NEW, _DUMP = 0x5, 0x605, 0x301  # NLM_F_REQUEST with ACK; with CREATE and EXCL; with DUMP
_UP = {"flags": 1, "change": 1}  # IFF_UP

# What stands where a value goes: nothing else in a message looks like it.
NAME, PEER = "NameNameName_no", "PeerPeerPeer_no"
MAC, ADDRESS = "e1:e2:e3:e4:e5:e6", "241.242.243.244"
INDEX, MASTER, MTU, GROUP, NAMESPACE = 0x7A7B7C01, 0x7A7B7C02, 0x7A7B7C03, 0x7A7B7C04, 0x7A7B7C05
PREFIX = 0xEE
MARKS: dict[str, bytes] = {
    "name": NAME.encode(),
    "peer": PEER.encode(),
    "mac": bytes.fromhex(MAC.replace(":", "")),
    "address": bytes(map(int, ADDRESS.split("."))),
    "prefix": bytes([PREFIX]),
    "index": INDEX.to_bytes(4, sys.byteorder),
    "master": MASTER.to_bytes(4, sys.byteorder),
    "mtu": MTU.to_bytes(4, sys.byteorder),
    "group": GROUP.to_bytes(4, sys.byteorder),
    "namespace": NAMESPACE.to_bytes(4, sys.byteorder),
}


def messages() -> dict[str, tuple[Any, int, int, dict[str, int], list[list[Any]]]]:
    """Return every request: the class of the message, its type and flags, its fields and its attributes."""
    slave = _nested(["IFLA_INFO_SLAVE_KIND", "bridge"], ["IFLA_INFO_SLAVE_DATA", _nested(["IFLA_BRPORT_MODE", 1])])
    peer = _nested(["IFLA_IFNAME", PEER], ["IFLA_NET_NS_FD", NAMESPACE], ["IFLA_ADDRESS", MAC], ["IFLA_MTU", MTU])
    veth = _nested(["IFLA_INFO_KIND", "veth"], ["IFLA_INFO_DATA", _nested(["VETH_INFO_PEER", peer])])
    name, mtu, group = ["IFLA_IFNAME", NAME], ["IFLA_MTU", MTU], ["IFLA_GROUP", GROUP]
    bridge = ["IFLA_LINKINFO", _nested(["IFLA_INFO_KIND", "bridge"])]
    inet = {"family": int(AF_INET)}
    default = {**inet, "table": 254, "proto": 4, "scope": 0, "type": 1}  # RT_TABLE_MAIN, RTPROT_STATIC, RTN_UNICAST
    return {
        "bridge": (ifinfmsg, RTM_NEWLINK, _NEW, _UP, [name, mtu, group, ["IFLA_ADDRESS", MAC], bridge]),
        "veth": (
            ifinfmsg,
            RTM_NEWLINK,
            _NEW,
            _UP,
            [name, mtu, group, ["IFLA_MASTER", MASTER], ["IFLA_LINKINFO", veth]],
        ),
        "hairpin": (ifinfmsg, RTM_NEWLINK, _REQUEST_ACK, {}, [name, ["IFLA_LINKINFO", slave]]),
        "up": (ifinfmsg, RTM_NEWLINK, _REQUEST_ACK, {"index": INDEX, **_UP}, []),
        "delete": (ifinfmsg, RTM_DELLINK, _REQUEST_ACK, {}, [name]),
        "delete_group": (ifinfmsg, RTM_DELLINK, _REQUEST_ACK, {}, [group]),
        "address": (
            ifaddrmsg,
            RTM_NEWADDR,
            _NEW,
            {**inet, "index": INDEX, "prefixlen": PREFIX},
            [["IFA_LOCAL", ADDRESS], ["IFA_ADDRESS", ADDRESS]],
        ),
        "default_route": (rtmsg, RTM_NEWROUTE, _NEW, default, [["RTA_GATEWAY", ADDRESS], ["RTA_OIF", INDEX]]),
        "addresses": (ifaddrmsg, RTM_GETADDR, _DUMP, inet, []),
        "routes": (rtmsg, RTM_GETROUTE, _DUMP, inet, []),
    }


def pack(kind: Any, number: int, flags: int, fields: dict[str, int], attributes: list[list[Any]]) -> bytes:
    """Return the bytes of one message as pyroute2 packs it."""
    message = kind()
    message["header"].update({"type": number, "flags": flags, "sequence_number": 1, "pid": 0})
    for name, value in fields.items():
        message[name] = value
    message["attrs"] = attributes
    message.encode()
    return bytes(message.data)


def holes(data: bytes) -> tuple[tuple[str, int, int], ...]:
    """Return (value, offset, size) for every place of a value in a message."""
    found = []
    for name, mark in MARKS.items():
        at = data.find(mark)
        while at >= 0:
            found.append((name, at, len(mark)))
            at = data.find(mark, at + len(mark))
    return tuple(sorted(found, key=lambda hole: hole[1]))


def generate() -> str:
    """Return the source of `requests.py`."""
    lines = [
        '"""Requests of rtnetlink(7) with places for values; made by `python -m runner.generate`."""',
        "",
        "# fmt: off",
        "# ruff: noqa: E501",
        "",
        "# name -> the message, and (value, offset, size) of the places in it",
        "REQUESTS: dict[str, tuple[bytes, tuple[tuple[str, int, int], ...]]] = {",
    ]
    for name, message in messages().items():
        data = pack(*message)
        lines += [f"    {name!r}: (", "        bytes.fromhex("]
        lines += [f"            {data[at : at + 40].hex()!r}" for at in range(0, len(data), 40)]
        lines += ["        ),", f"        {holes(data)!r},", "    ),"]
    return "\n".join([*lines, "}", ""])


def generate_filters() -> str:
    """Return the source of `defaultfilters.py`."""
    lines = [
        '"""Docker\'s default system call filter for each machine; made by `python -m runner.generate`."""',
        "",
        "# fmt: off",
        "",
        "FILTERS: dict[str, bytes] = {",
    ]
    for machine in ("x86_64", "aarch64"):
        data = compile_filter(load(None, DEFAULT_CAPABILITIES, machine=machine, release="5.6"))
        lines += [f"    {machine!r}: bytes.fromhex("]
        lines += [f"        {data[at : at + 48].hex()!r}" for at in range(0, len(data), 48)]
        lines += ["    ),"]
    return "\n".join([*lines, "}", ""])


def _nested(*attributes: list[Any]) -> dict[str, list[list[Any]]]:
    return {"attrs": list(attributes)}


if __name__ == "__main__":
    here = Path(__file__).parent
    (here / "requests.py").write_text(generate(), encoding="ascii")
    (here / "defaultfilters.py").write_text(generate_filters(), encoding="ascii")

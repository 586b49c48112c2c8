"""The packed requests to the kernel: pyroute2 is the oracle of their bytes, a namespace of their effect."""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from runner import generate, requests, rtnetlink
from runner.network import NetworkNamespace


def test_requests_are_what_pyroute2_packs() -> None:
    """`requests.py` is what `python -m runner.generate` writes."""
    assert generate.generate() == Path(requests.__file__).read_text()


@pytest.mark.parametrize("kind", requests.REQUESTS)
def test_filled_requests_equal_pyroute2s(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request filled with values is byte for byte the message that pyroute2 makes of the same values."""
    values: dict[str, Any] = {
        "name": "pbt0", "peer": "eth0", "mac": bytes.fromhex("0242c0a80001"), "address": bytes([10, 214, 0, 1]),
        "prefix": 20, "index": 12, "master": 7, "mtu": 1400, "group": 0x80000001, "namespace": 9,
    }  # fmt: skip
    filled = rtnetlink.request(kind, **{name: values[name] for name, _, _ in requests.REQUESTS[kind][1]})

    for name in ("index", "master", "mtu", "group", "namespace", "prefix"):
        monkeypatch.setattr(generate, name.upper(), values[name])
    monkeypatch.setattr(generate, "MAC", "02:42:c0:a8:00:01")
    monkeypatch.setattr(generate, "ADDRESS", "10.214.0.1")
    # The kernel ends a name at its first zero byte; pyroute2 packs no more than that one.
    monkeypatch.setattr(generate, "NAME", "pbt0".ljust(15, "\0"))
    monkeypatch.setattr(generate, "PEER", "eth0".ljust(15, "\0"))

    assert generate.pack(*generate.messages()[kind]) == filled


def test_a_value_that_does_not_fit_is_a_bug() -> None:
    """A name longer than an interface's can be never reaches the kernel cut off."""
    with pytest.raises(AssertionError, match="too long"):
        rtnetlink.request("delete", name="sixteen-letters!")


@pytest.mark.root
def test_the_first_refusal_is_told_and_the_rest_done() -> None:
    """Of a batch the first error is raised, and the requests after it are carried out."""
    delete = rtnetlink.request("delete", name="pbt-missing")
    bridge = rtnetlink.request("bridge", name="pbt0", mac=bytes.fromhex("0242c0a80001"), mtu=1400, group=7)

    def act() -> tuple[int | None, list[str]]:
        with pytest.raises(OSError, match="No such device") as refused:
            rtnetlink.ask(delete, bridge, bridge)
        return refused.value.errno, sorted(name for _, name in socket.if_nameindex())

    with NetworkNamespace.create() as namespace:
        assert (errno.ENODEV, ["lo", "pbt0"]) == namespace.run(act)


@pytest.mark.root
def test_routes_and_addresses_are_those_pyroute2_reads() -> None:
    """Routes of all tables and the addresses of all interfaces, as pyroute2 lists them."""
    from pyroute2 import IPRoute

    def act() -> tuple[list[Any], list[Any], list[Any], list[Any]]:
        with IPRoute() as kernel:
            number = socket.if_nametoindex("lo")
            kernel.addr("add", index=number, address="192.0.2.1", prefixlen=24)
            kernel.route("add", dst="198.51.100.0/24", oif=number)
            kernel.route("add", dst="203.0.113.0/24", oif=number, table=1000)
            kernel.route("add", dst="0.0.0.0/0", gateway="192.0.2.9", oif=number)
            routes = [
                (r.get("dst") or "0.0.0.0", r["dst_len"], r.get("oif"))
                for r in kernel.get_routes(family=socket.AF_INET)
            ]
            addresses = [(a.get("address"), a["prefixlen"]) for a in kernel.get_addr(family=socket.AF_INET)]
        ours = [(str(IPv4Address(where)), prefix, oif) for where, prefix, oif in rtnetlink.routes()]
        return routes, ours, addresses, [(str(IPv4Address(a)), prefix) for a, prefix in rtnetlink.addresses()]

    with NetworkNamespace.create() as namespace:
        routes, ours, addresses, our_addresses = namespace.run(act)

    assert (sorted(routes), sorted(addresses)) == (sorted(ours), sorted(our_addresses))
    assert ("203.0.113.0", 24, 1) in ours
    assert ("0.0.0.0", 0, 1) in ours


@pytest.mark.root
def test_the_runner_talks_to_the_kernel_without_pyroute2() -> None:
    """Nothing of a bridge's life imports pyroute2, which takes 0.1 s."""
    import subprocess

    code = (
        "import os, sys, tempfile, pathlib\nfrom runner.network import Bridge, NetworkNamespace\n"
        "def act():\n"
        "    with tempfile.TemporaryDirectory() as state, NetworkNamespace.create() as inside:\n"
        "        Bridge(pathlib.Path(state), name='pbt0').attach(inside, id='x').release()\n"
        "with NetworkNamespace.create() as host:\n    host.run(act)\n"
        "print('pyroute2' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "False\n" == done.stdout

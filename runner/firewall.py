"""The packet filter rules of one bridge: NAT for what leaves, published ports for what comes in, isolation of the rest.

Everything lives in one IPv4 table named like the bridge, which is a function of (bridge, subnet, ports) and replaced
whole. The exception: a forward chain of somebody else whose policy is drop (docker's and ufw's way) would still drop
our packets, since every chain of a hook has to accept; there two accepting rules are put at the head, marked with a
comment, and taken away at the end.

Ports are published by rewriting destinations, not by a proxy process: nothing has to live as long as the port, and
containers see who really connects. For 127.0.0.1 this needs route_localnet on the bridge (`runner.network` sets it),
which would let containers reach the host's loopback services; the `guard` chain forbids that.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from runner import nft
from runner.errors import RunnerError
from runner.ports import Port

_COMMENT = "pybuild: "


class Redirect(NamedTuple):
    """A published port and the container address that it leads to."""

    port: Port
    address: str


def chains(bridge: str, network: str, prefix: int, redirects: Sequence[Redirect]) -> tuple[nft.Chain, ...]:
    """The chains of a bridge's table; a pure function."""
    inside = nft.source(network, prefix)
    accept, drop = nft.verdict(nft.ACCEPT), nft.verdict(nft.DROP)
    guard = [nft.iifname(bridge) + nft.destination("127.0.0.0", 8) + drop]
    forward = [
        nft.oifname(bridge) + nft.established() + accept,
        nft.oifname(bridge) + nft.redirected() + accept,
        nft.oifname(bridge) + nft.iifname(bridge) + accept,
        nft.oifname(bridge) + drop,  # a container's ports are reached by publishing them, not by routing to it
    ]
    leaving = [
        inside + nft.oifname(bridge, equal=False) + nft.masquerade(),
        nft.source("127.0.0.0", 8) + nft.oifname(bridge) + nft.masquerade(),
        # A container that calls a published port of its own bridge: the answer has to come back through the host.
        inside + nft.oifname(bridge) + nft.redirected() + nft.masquerade(),
    ]
    outgoing = tuple(nft.Rule(_redirect(r)) for r in redirects)
    # What is published on a loopback address must not be reachable for neighbours who send to it: their packets would
    # be rewritten before the kernel can find them martian.
    incoming = tuple(nft.Rule(_redirect(r)) for r in redirects if not r.port.host_address.startswith("127."))
    return (
        nft.Chain("guard", "filter", nft.PREROUTING, -300, _rules(guard)),
        nft.Chain("forward", "filter", nft.FORWARD, 0, _rules(forward)),
        nft.Chain("prerouting", "nat", nft.PREROUTING, -100, incoming),
        nft.Chain("output", "nat", nft.OUTPUT, -100, outgoing),
        nft.Chain("postrouting", "nat", nft.POSTROUTING, 100, _rules(leaving)),
    )


def apply(bridge: str, network: str, prefix: int, redirects: Sequence[Redirect]) -> None:
    """Make the kernel's table of this bridge say what `chains` says, in one transaction; RunnerError if it refuses."""
    wanted = chains(bridge, network, prefix, redirects)
    batch = nft.Batch()
    if (nft.IPV4, bridge) in nft.tables():
        # Only ports ever change: base chains that stay are not hooked in and out, which the kernel takes 10 ms for.
        for chain in wanted:
            if chain.kind == "nat" and chain.hook != nft.POSTROUTING:
                batch.replace_rules(bridge, chain.name, chain.rules)
    else:
        batch.replace_table(bridge, wanted)
    try:
        batch.commit()
    except OSError as error:
        raise RunnerError(
            f"the packet filter rules of {bridge} are refused: {error.strerror}",
            hint="it needs CAP_NET_ADMIN and CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_CT, CONFIG_NFT_FIB_IPV4; "
            "or use --network host",
        ) from error


def open_foreign(bridge: str) -> None:
    """Let the bridge's packets through forward chains of others that drop by default; done once per chain."""
    chains_of_others = [chain for chain in nft.chains() if _drops_forwarded(chain) and chain.table != bridge]
    if not chains_of_others:
        return
    comment = _COMMENT + bridge
    done = {(rule.family, rule.table, rule.chain) for rule in nft.rules() if rule.comment == comment}
    accept = nft.counter() + nft.verdict(nft.ACCEPT)
    for chain in chains_of_others:
        if (chain.family, chain.table, chain.name) in done:
            continue
        batch = nft.Batch()
        batch.insert(chain, nft.Rule(nft.iifname(bridge) + accept, comment))
        batch.insert(chain, nft.Rule(nft.oifname(bridge) + accept, comment))
        try:
            batch.commit()
        except OSError as error:
            raise RunnerError(
                f"{chain.table} {chain.name} drops what {bridge} forwards and takes no rule: {error.strerror}",
                hint=f"let that firewall accept forwarding from and to {bridge}, or use --network host",
            ) from error


def remove(bridge: str) -> None:
    """Take the bridge's table and its rules in chains of others away; what is gone already is no error."""
    comment = _COMMENT + bridge
    for rule in nft.rules():
        if rule.comment == comment:
            batch = nft.Batch()
            batch.delete(rule)
            with contextlib.suppress(FileNotFoundError):  # its owner has flushed the chain meanwhile
                batch.commit()
    batch = nft.Batch()
    batch.delete_table(bridge)
    batch.commit()


def _rules(expressions: Iterable[bytes]) -> tuple[nft.Rule, ...]:
    return tuple(nft.Rule(expression) for expression in expressions)


def _redirect(target: Redirect) -> bytes:
    port = target.port
    where = nft.to_this_host() if port.host_address == "0.0.0.0" else nft.destination(port.host_address, 32)
    match = where + nft.protocol(port.protocol) + nft.destination_port(port.host_port)
    return match + nft.redirect(target.address, port.container_port)


def _drops_forwarded(chain: nft.ForeignChain) -> bool:
    return chain.family in {nft.INET, nft.IPV4} and chain.hook == nft.FORWARD and chain.policy == nft.DROP

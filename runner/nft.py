"""Speaks nf_tables over netlink: expressions, rules and chains as bytes, batches that apply whole or not at all, dumps.

Follows linux/netfilter/nf_tables.h and nfnetlink.h (kernel 4.18 and later). Needs neither nft nor iptables on the
host, nor any library: a batch costs less than a millisecond. Knows no policy; `runner.firewall` does.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import NamedTuple

from runner import netlink
from runner.errors import RunnerError, UnsupportedError
from runner.netlink import attribute, attributes, nested

INET, IPV4 = 1, 2  # NFPROTO_*
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)  # NF_INET_*
DROP, ACCEPT = 0, 1  # NF_*

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_TABLE, _GET_TABLE, _DEL_TABLE, _NEW_CHAIN, _GET_CHAIN = 0, 1, 2, 3, 4
_NEW_RULE, _GET_RULE, _DEL_RULE = 6, 7, 8
_CREATE, _APPEND = 0x400, 0x800  # NLM_F_*
_U32 = struct.Struct(">I")


class Rule(NamedTuple):
    """One rule to be made: `expressions` in order, and a comment by which its maker knows it again."""

    expressions: bytes
    comment: str = ""


class Chain(NamedTuple):
    """One base chain to be made in a table; `kind` is filter or nat."""

    name: str
    kind: str
    hook: int
    priority: int
    rules: tuple[Rule, ...]


class ForeignChain(NamedTuple):
    """A chain that exists; `hook` is None for one that only others jump to, `policy` is DROP, ACCEPT or None."""

    family: int
    table: str
    name: str
    hook: int | None
    policy: int | None


class ForeignRule(NamedTuple):
    """A rule that exists."""

    family: int
    table: str
    chain: str
    handle: int
    comment: str


# Expressions, each one element of a rule.


def iifname(name: str) -> bytes:
    """The packet came in through this interface."""
    return _meta(6) + _compare(_name(name))


def oifname(name: str, *, equal: bool = True) -> bytes:
    """The packet leaves (or, not equal, does not leave) through this interface."""
    return _meta(7) + _compare(_name(name), equal=equal)


def protocol(name: str) -> bytes:
    """The transport protocol is tcp or udp."""
    return _meta(16) + _compare(bytes([socket.IPPROTO_TCP if name == "tcp" else socket.IPPROTO_UDP]))


def source(network: str, prefix: int, *, equal: bool = True) -> bytes:
    """The packet's source is inside (or outside) this IPv4 network."""
    return _address(12, network, prefix, equal=equal)


def destination(network: str, prefix: int, *, equal: bool = True) -> bytes:
    """The packet's destination is inside (or outside) this IPv4 network."""
    return _address(16, network, prefix, equal=equal)


def destination_port(port: int) -> bytes:
    """The packet goes to this TCP or UDP port; comes after `protocol`."""
    return _payload(2, 2, 2) + _compare(port.to_bytes(2, "big"))


def to_this_host() -> bytes:
    """The destination is an address of this host (fib daddr type local)."""
    data = attribute(1, _U32.pack(1)) + attribute(2, _U32.pack(3)) + attribute(3, _U32.pack(2))
    return _expression("fib", data) + _compare(struct.pack("=I", 2))


def established() -> bytes:
    """The packet belongs or is related to a connection that was let through."""
    return _connection(0, 2 | 4)


def redirected() -> bytes:
    """The packet's connection had its destination rewritten."""
    return _connection(2, 1 << 5)


def counter() -> bytes:
    """Count what comes here."""
    zero = bytes(8)
    return _expression("counter", attribute(1, zero) + attribute(2, zero))


def verdict(code: int) -> bytes:
    """End the chain with DROP or ACCEPT."""
    data = nested(2, nested(2, attribute(1, _U32.pack(code))))
    return _expression("immediate", attribute(1, _U32.pack(0)) + data)


def redirect(address: str, port: int) -> bytes:
    """Rewrite the destination (dnat) to this IPv4 address and port."""
    data = _load(1, socket.inet_aton(address)) + _load(2, port.to_bytes(2, "big"))
    nat = ((1, 1), (2, IPV4), (3, 1), (5, 2))  # type dnat, family, registers of address and port
    return data + _expression("nat", b"".join(attribute(kind, _U32.pack(value)) for kind, value in nat))


def masquerade() -> bytes:
    """Rewrite the source to the address of the interface the packet leaves by."""
    return _expression("masq", b"")


class Batch:
    """Changes that the kernel applies together or not at all."""

    def __init__(self) -> None:
        self._messages: list[tuple[int, int, int, bytes]] = []

    def replace_table(self, name: str, chains: Sequence[Chain]) -> None:
        """The IPv4 table `name` holds exactly these chains afterwards, whatever it held before."""
        self.delete_table(name)
        table = attribute(1, _string(name))
        self._add(_NEW_TABLE, _CREATE, IPV4, table)
        for chain in chains:
            hook = nested(4, attribute(1, _U32.pack(chain.hook)) + attribute(2, struct.pack(">i", chain.priority)))
            head = table + attribute(3, _string(chain.name)) + hook
            self._add(_NEW_CHAIN, _CREATE, IPV4, head + attribute(7, _string(chain.kind)))
            for rule in chain.rules:
                self._rule(IPV4, name, chain.name, rule, flags=_CREATE | _APPEND)

    def replace_rules(self, table: str, chain: str, rules: Sequence[Rule]) -> None:
        """A chain of the IPv4 table holds exactly these rules afterwards."""
        self._add(_DEL_RULE, 0, IPV4, attribute(1, _string(table)) + attribute(2, _string(chain)))
        for rule in rules:
            self._rule(IPV4, table, chain, rule, flags=_CREATE | _APPEND)

    def delete_table(self, name: str) -> None:
        """Take the IPv4 table `name` away if it is there."""
        table = attribute(1, _string(name))
        self._add(_NEW_TABLE, _CREATE, IPV4, table)  # so that deleting it cannot fail
        self._add(_DEL_TABLE, 0, IPV4, table)

    def insert(self, chain: ForeignChain, rule: Rule) -> None:
        """Put a rule at the head of a chain that exists."""
        self._rule(chain.family, chain.table, chain.name, rule, flags=_CREATE)

    def delete(self, rule: ForeignRule) -> None:
        """Take one rule away."""
        data = attribute(1, _string(rule.table)) + attribute(2, _string(rule.chain))
        self._add(_DEL_RULE, 0, rule.family, data + attribute(3, struct.pack(">Q", rule.handle)))

    def commit(self) -> None:
        """Apply; OSError with the kernel's answer if it refuses, UnsupportedError without nf_tables."""
        if not self._messages:
            return
        begin = _message(_BATCH_BEGIN, netlink.REQUEST, 0, b"", resource=10)
        last = len(self._messages) - 1
        body = [
            _message(
                _SUBSYSTEM | kind,
                netlink.REQUEST | flags | (netlink.ACK if n == last else 0),
                family,
                data,
                sequence=n + 1,
            )
            for n, (kind, flags, family, data) in enumerate(self._messages)
        ]
        end = _message(_BATCH_END, netlink.REQUEST, 0, b"", sequence=last + 2, resource=10)
        with _connect() as channel:
            _send(channel, begin + b"".join(body) + end)
            _expect_ack(channel)

    def _rule(self, family: int, table: str, chain: str, rule: Rule, *, flags: int) -> None:
        data = attribute(1, _string(table)) + attribute(2, _string(chain)) + nested(4, rule.expressions)
        if rule.comment:
            data += attribute(7, _comment(rule.comment))
        self._add(_NEW_RULE, flags, family, data)

    def _add(self, kind: int, flags: int, family: int, data: bytes) -> None:
        self._messages.append((kind, flags, family, data))


def tables() -> list[tuple[int, str]]:
    """(family, name) of every table; UnsupportedError without nf_tables."""
    return [(family, _text(given[1])) for family, given in _dump(_GET_TABLE)]


def chains() -> list[ForeignChain]:
    """Every chain of every table."""
    found = []
    for family, given in _dump(_GET_CHAIN):
        hook = dict(attributes(given[4])).get(1) if 4 in given else None
        policy = given.get(5)
        found.append(
            ForeignChain(
                family=family,
                table=_text(given[1]),
                name=_text(given[3]),
                hook=_U32.unpack(hook)[0] if hook else None,
                policy=_U32.unpack(policy)[0] if policy else None,
            )
        )
    return found


def rules() -> list[ForeignRule]:
    """Every rule of every table, with the comments that nft(8) shows."""
    return [
        ForeignRule(
            family=family,
            table=_text(given[1]),
            chain=_text(given[2]),
            handle=struct.unpack(">Q", given[3])[0],
            comment=_comment_of(given.get(7, b"")),
        )
        for family, given in _dump(_GET_RULE)
    ]


# The encoding: netlink attributes, of which expressions are lists.


def _string(text: str) -> bytes:
    return text.encode() + b"\0"


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode("utf-8", "replace")


def _expression(name: str, data: bytes) -> bytes:
    return nested(1, attribute(1, _string(name)) + nested(2, data))


def _meta(key: int) -> bytes:
    return _expression("meta", attribute(1, _U32.pack(1)) + attribute(2, _U32.pack(key)))


def _name(name: str) -> bytes:
    return name.encode().ljust(16, b"\0")


def _compare(value: bytes, *, equal: bool = True) -> bytes:
    data = attribute(1, _U32.pack(1)) + attribute(2, _U32.pack(0 if equal else 1))
    return _expression("cmp", data + nested(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int) -> bytes:
    fields = enumerate((1, base, offset, length), start=1)
    return _expression("payload", b"".join(attribute(kind, _U32.pack(value)) for kind, value in fields))


def _mask(mask: bytes) -> bytes:
    head = attribute(1, _U32.pack(1)) + attribute(2, _U32.pack(1)) + attribute(3, _U32.pack(len(mask)))
    return _expression("bitwise", head + nested(4, attribute(1, mask)) + nested(5, attribute(1, bytes(len(mask)))))


def _address(offset: int, network: str, prefix: int, *, equal: bool) -> bytes:
    mask = _U32.pack(0xFFFFFFFF << (32 - prefix) & 0xFFFFFFFF)
    return _payload(1, offset, 4) + _mask(mask) + _compare(socket.inet_aton(network), equal=equal)


def _connection(key: int, bits: int) -> bytes:
    load = _expression("ct", attribute(1, _U32.pack(1)) + attribute(2, _U32.pack(key)))
    return load + _mask(struct.pack("=I", bits)) + _compare(bytes(4), equal=False)


def _load(register: int, value: bytes) -> bytes:
    return _expression("immediate", attribute(1, _U32.pack(register)) + nested(2, attribute(1, value)))


def _comment(text: str) -> bytes:
    """User data as libnftnl lays it out: type 0, length, text with its end."""
    data = _string(text)
    return bytes([0, len(data)]) + data


def _comment_of(data: bytes) -> str:
    while len(data) >= 2:
        kind, length = data[0], data[1]
        if kind == 0:
            return _text(data[2 : 2 + length])
        data = data[2 + length :]
    return ""


# The exchange with the kernel.


def _message(kind: int, flags: int, family: int, data: bytes, *, sequence: int = 0, resource: int = 0) -> bytes:
    return netlink.message(kind, flags, struct.pack(">BBH", family, 0, resource) + data, sequence=sequence)


def _connect() -> socket.socket:
    try:
        return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    except OSError as error:
        raise UnsupportedError(
            f"the packet filter cannot be reached: {error.strerror}",
            hint="the kernel needs CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ; or use --network host",
        ) from error


def _send(channel: socket.socket, data: bytes) -> None:
    if len(data) > 100_000:  # the default send buffer holds 200 kB, of which the kernel counts its own overhead
        channel.setsockopt(socket.SOL_SOCKET, 32, 2 * len(data))  # SO_SNDBUFFORCE
    channel.sendto(data, (0, 0))


def _expect_ack(channel: socket.socket) -> None:
    """The kernel has worked through a batch when send returns; its answers wait in the socket."""
    acknowledged = False
    while True:
        try:
            data = channel.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            break
        for kind, body in netlink.messages(data):
            if kind == netlink.ERROR:
                number = netlink.refusal(body)
                if number:
                    raise OSError(number, os.strerror(number), "nf_tables")
                acknowledged = True
    if not acknowledged:
        raise RunnerError("the packet filter did not confirm a change", hint="see the kernel's log")


def _dump(kind: int) -> list[tuple[int, dict[int, bytes]]]:
    """(family, attributes) of every object; retried when somebody else changed the tables while they were listed."""
    for _ in range(10):
        try:
            return _dump_once(kind)
        except InterruptedError:
            continue
    raise RunnerError("the packet filter's tables change faster than they can be listed", hint="try again")


def _dump_once(kind: int) -> list[tuple[int, dict[int, bytes]]]:
    with _connect() as channel:
        request = _message(_SUBSYSTEM | kind, netlink.REQUEST | netlink.DUMP, 0, b"", sequence=1)
        return [(body[0], dict(attributes(body[4:]))) for body in netlink.dump(channel, request, "nf_tables")]

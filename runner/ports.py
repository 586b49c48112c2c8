"""Published ports: what `-p` values mean. Pure; knows no network."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal, NamedTuple

from runner.errors import RunnerError

ANY_ADDRESS = "0.0.0.0"
_FORM = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^:\[\]]*):)?(?:(?P<host>\d*|\d+-\d+):)?(?P<container>\d+(?:-\d+)?)(?:/(?P<protocol>\w+))?"
)


class Port(NamedTuple):
    """One published port: `host_address:host_port` → `container_port`; host port 0 lets the kernel choose."""

    container_port: int
    host_port: int = 0
    host_address: str = ANY_ADDRESS
    protocol: Literal["tcp", "udp"] = "tcp"

    def __str__(self) -> str:
        return f"{self.host_address}:{self.host_port}->{self.container_port}/{self.protocol}"


def parse_ports(text: str) -> tuple[Port, ...]:
    """The ports of one `-p` value: `[[ADDRESS:][HOST[-HOST]]:]CONTAINER[-CONTAINER][/tcp|/udp]`.

    Ranges have to be of one length; a missing host port is 0. IPv4 only. RunnerError for everything else.
    """
    address, host, container, protocol = _split(text)
    inside = _range(container, text)
    outside = _range(host, text) if host else None
    if outside is not None and len(outside) != len(inside):
        raise _invalid(text, "the ranges of host and container ports differ in length")
    hosts = [0] * len(inside) if outside is None else list(outside)
    return tuple(Port(c, h, address, protocol) for c, h in zip(inside, hosts, strict=True))


def _split(text: str) -> tuple[str, str, str, Literal["tcp", "udp"]]:
    match = _FORM.fullmatch(text)
    if match is None:
        raise _invalid(text, "it is malformed")
    address: str | None = match["address"]
    host: str = match["host"] or ""
    if match["host"] is None and address is not None:  # "8080:80": the only word before a colon is the host port
        host, address = address, None
        if not re.fullmatch(r"\d*|\d+-\d+", host):
            raise _invalid(text, f"{host!r} is not a port")
    protocol = (match["protocol"] or "tcp").lower()
    if protocol not in {"tcp", "udp"}:
        raise _invalid(text, f"the protocol {protocol!r} is neither tcp nor udp")
    return _address(address, text), host, match["container"], "udp" if protocol == "udp" else "tcp"


def _address(word: str | None, text: str) -> str:
    if not word:
        return ANY_ADDRESS
    try:
        address = ipaddress.ip_address(word.strip("[]"))
    except ValueError:
        raise _invalid(text, f"{word!r} is not an IP address") from None
    if address.version != 4:
        raise _invalid(text, "ports are published on IPv4 addresses only")
    return str(address)


def _range(word: str, text: str) -> range:
    first, _, last = word.partition("-")
    ports = range(int(first), int(last or first) + 1)
    if not ports or ports[0] < 1 or ports[-1] > 65535:
        raise _invalid(text, f"{word} is not between 1 and 65535, or runs backwards")
    return ports


def _invalid(text: str, reason: str) -> RunnerError:
    return RunnerError(
        f"invalid published port {text!r}: {reason}", hint="write [ADDRESS:][HOST:]CONTAINER[/udp], as in 8080:80"
    )

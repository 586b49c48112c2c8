"""Ports as EXPOSE writes them.

`80`, `80/udp`, `8000-8010/tcp`, `[ip:][host:]container` (docker's nat.ParsePortSpec).
"""

from __future__ import annotations

PROTOCOLS = ("tcp", "udp", "sctp")
_LIMIT = 65535


class InvalidPort(ValueError):
    """Text that is no port; the message is the reference's."""


def expand_ports(text: str) -> list[str]:
    """Return every `port/protocol` that `text` stands for; addresses and host ports before it are left out."""
    spec, slash, protocol = text.rpartition("/") if "/" in text else (text, "", "tcp")
    protocol = protocol.lower()
    if slash and protocol not in PROTOCOLS:
        raise InvalidPort(f"invalid proto: {protocol}" if protocol else f"invalid containerPort: {text}")
    container = spec.rpartition(":")[2]
    if not container:
        raise InvalidPort(f"no port specified: {spec}<empty>")
    first, dash, last = container.partition("-")
    low = _number(first, container)
    high = _number(last, container) if dash else low
    if high < low:
        raise InvalidPort(f"invalid containerPort: {container}")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def _number(text: str, container: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) > _LIMIT:
        raise InvalidPort(f"invalid containerPort: {container}")
    return int(text)

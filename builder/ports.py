"""Ports as EXPOSE writes them.

`80`, `80/udp`, `8000-8010/tcp`, `[ip:][host:]container` (docker's nat.ParsePortSpec).
"""

from __future__ import annotations

PROTOCOLS = ("tcp", "udp", "sctp")
_LIMIT = 65535


class InvalidPort(ValueError):
    """Text that is no port; the message is the reference's."""


def expand_ports(text: str) -> list[str]:
    """Return every `port/protocol` that `text` stands for; addresses and host ports are checked and left out."""
    ahead, _, spec = text.rpartition(":")
    container, _, protocol = spec.partition("/")
    protocol = protocol.lower() or "tcp"
    if not container:
        raise InvalidPort(f'invalid port: "{text}": no port specified')
    if protocol not in PROTOCOLS:
        raise InvalidPort(f'invalid port: "{text}": invalid proto: {protocol}')
    address, _, host = ahead.rpartition(":")
    _check_address(address)
    low, high = _range(container, "containerPort")
    if host:
        first, last = _range(host, "hostPort")
        if high != low and high - low != last - first:
            raise InvalidPort(f"invalid ranges specified for container and host Ports: {container} and {host}")
    return [f"{port}/{protocol}" for port in range(low, high + 1)]


def _check_address(text: str) -> None:
    if not text:
        return
    from ipaddress import ip_address  # noqa: PLC0415 - few ports are written with an address

    try:
        ip_address(text[1:-1] if text[0] == "[" and text[-1] == "]" else text)
    except ValueError:
        raise InvalidPort(f"invalid IP address: {text}") from None


def _range(text: str, what: str) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    low = _number(first)
    high = _number(last) if dash else low
    if low is None or high is None or high < low:
        raise InvalidPort(f"invalid {what}: {text}")
    return low, high


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _LIMIT else None

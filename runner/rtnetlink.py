"""Asks the kernel for interfaces, addresses and routes: requests packed beforehand, several with one system call.

The requests are in `requests.py`, made of pyroute2's messages by `runner.generate`: to import pyroute2 itself takes
0.1 s, more than all that is asked for here together. Everything happens in the calling thread's network namespace.
"""

from __future__ import annotations

import os
import socket
import sys

from runner import netlink
from runner.requests import REQUESTS

_RTA_DST, _RTA_OIF, _IFA_ADDRESS = 1, 4, 1
_ATTEMPTS = 10


def request(kind: str, /, **values: str | int | bytes) -> bytes:
    """Return a request with its values: names as text, numbers as int, addresses as their bytes."""
    template, holes = REQUESTS[kind]
    data = bytearray(template)
    for name, offset, size in holes:
        match values[name]:
            case str(text):
                value = text.encode()
            case int(number):
                value = number.to_bytes(size, sys.byteorder)
            case bytes(value):
                pass
        assert len(value) <= size, f"BUG: {name} of {kind} is too long: {value!r}"
        data[offset : offset + size] = value.ljust(size, b"\0")
    return bytes(data)


def ask(*requests: bytes) -> None:
    """Have requests carried out one after the other; OSError of the first refusal, but all of them are tried."""
    first = 0
    with _connect() as channel:
        channel.sendto(b"".join(requests), (0, 0))
        answers = 0
        while answers < len(requests):  # all of them are there: the kernel has done everything when sendto returns
            for kind, body in netlink.messages(channel.recv(1 << 16)):
                if kind == netlink.ERROR:
                    answers += 1
                    first = first or netlink.refusal(body)
    if first:
        raise OSError(first, os.strerror(first))


def addresses() -> list[tuple[bytes, int]]:
    """Return the IPv4 addresses of all interfaces, each with the length of its prefix."""
    return [(dict(netlink.attributes(body[8:]))[_IFA_ADDRESS], body[1]) for body in _dump("addresses")]


def routes() -> list[tuple[bytes, int, int | None]]:
    """Return the IPv4 routes of all tables: destination, length of its prefix (0: default), number of the interface."""
    found = []
    for body in _dump("routes"):
        attributes = dict(netlink.attributes(body[12:]))
        interface = attributes.get(_RTA_OIF)
        number = None if interface is None else int.from_bytes(interface, sys.byteorder)
        found.append((attributes.get(_RTA_DST, bytes(4)), body[1], number))
    return found


def _dump(kind: str) -> list[bytes]:
    for left in range(_ATTEMPTS, 0, -1):
        try:
            with _connect() as channel:
                return netlink.dump(channel, request(kind), kind)
        except InterruptedError:  # somebody changed what is listed meanwhile
            if left == 1:
                raise
    raise AssertionError("BUG: the loop ends by itself")


def _connect() -> socket.socket:
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)

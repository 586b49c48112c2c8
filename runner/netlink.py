"""Netlink as bytes: messages and attributes packed and taken apart, as netlink(7) lays them out.

Knows none of the families that speak it: those are `runner.nft` and `runner.rtnetlink`.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

REQUEST, ACK, DUMP = 0x1, 0x4, 0x300  # NLM_F_*
ERROR, DONE = 2, 3  # NLMSG_*
_DUMP_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_NESTED = 0x8000
_HEADER = struct.Struct("=IHHII")


def message(kind: int, flags: int, body: bytes, *, sequence: int = 0) -> bytes:
    """Return one message."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and body of every message; InterruptedError if what is listed changed meanwhile."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _, _ = _HEADER.unpack_from(data)
        if flags & _DUMP_INTERRUPTED and kind != ERROR:
            raise InterruptedError
        yield kind, data[_HEADER.size : length]
        data = data[length + -length % 4 :]


def attribute(kind: int, data: bytes) -> bytes:
    """Return one attribute, padded."""
    return struct.pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def nested(kind: int, data: bytes) -> bytes:
    """Return an attribute that holds attributes."""
    return attribute(kind | _NESTED, data)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield kind and content of every attribute."""
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[length + -length % 4 :]


def refusal(body: bytes) -> int:
    """Return the errno of an ERROR message's body; 0 is an acknowledgement."""
    number: int = struct.unpack_from("=i", body)[0]
    return -number


def dump(channel: socket.socket, request: bytes, what: str) -> list[bytes]:
    """Send a request to list objects and return the bodies of the answers.

    OSError, about `what`, if the kernel refuses; InterruptedError if the objects changed meanwhile.
    """
    channel.sendto(request, (0, 0))
    found: list[bytes] = []
    while True:
        for kind, body in messages(channel.recv(1 << 18)):
            if kind == DONE:
                return found
            if kind == ERROR:
                number = refusal(body)
                raise OSError(number, os.strerror(number), what)
            found.append(body)

"""Descriptors that travel over Unix sockets (unix(7), SCM_RIGHTS), for both sides of the launcher's sockets.

With the sockets of the interpreter itself: `socket` takes 4 ms to load, most of it for enums.
"""

from __future__ import annotations

import array

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from collections.abc import Sequence
else:
    import _socket as sockets

_SIZE = array.array("i").itemsize


def send(sock: sockets.socket, data: bytes, fds: Sequence[int]) -> None:
    """Send a message with descriptors beside it; OSError."""
    sock.sendmsg([data], [(sockets.SOL_SOCKET, sockets.SCM_RIGHTS, array.array("i", fds))] if fds else [])


def receive(sock: sockets.socket, size: int, most: int) -> tuple[bytes, list[int]]:
    """Return a message of at most `size` bytes and its descriptors, `most` of them, not inheritable; OSError."""
    data, ancillary, _, _ = sock.recvmsg(size, sockets.CMSG_SPACE(_SIZE * most), sockets.MSG_CMSG_CLOEXEC)
    fds = array.array("i")
    for _, _, rights in ancillary:
        fds.frombytes(rights[: len(rights) - len(rights) % _SIZE])
    return data, fds.tolist()

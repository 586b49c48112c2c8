"""Locks between processes: flock(2) on files of the store; knows names, not what they protect."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator

from layerstore.errors import unusable

_PLAIN = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_LONGEST = 200


def lock_file(directory: bytes, name: str) -> bytes:
    """Return the path of the lock called `name`: as it is where a file can be called that, else its digest."""
    raw = os.fsencode(name)
    if raw and len(raw) <= _LONGEST and _PLAIN.issuperset(raw) and not raw.startswith(b"."):
        return directory + b"/" + raw
    import hashlib  # noqa: PLC0415 - most names are plain

    return directory + b"/sha256-" + hashlib.sha256(raw).hexdigest().encode()


@contextlib.contextmanager
def hold(path: bytes, *, shared: bool = False) -> Iterator[None]:
    """Wait for the lock file `path`, made if missing, and hold it: alone, or together with others who share it.

    Whoever held it alone takes the file away with it, so that keys leave nothing behind: who waited for that file finds
    that it no longer has the name, and starts over.
    """
    fd = take(path, shared=shared)
    try:
        yield
    finally:
        if shared:
            os.close(fd)
        else:
            release(path, fd)


def take(path: bytes, *, shared: bool = False) -> int:
    """Wait for the lock file `path` and hold it; return the descriptor that does, which `release` lets go of."""
    fd = _acquire(path, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    assert fd is not None, "BUG: waiting ended without a lock"
    return fd


def release(path: bytes, fd: int) -> None:
    """Let go of the lock file `path`, held alone by `fd`, and take it away."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(fd)


def try_hold(path: bytes, *, shared: bool = False) -> int | None:
    """Take the lock file `path` if that needs no waiting; return the descriptor that holds it, or None."""
    return _acquire(path, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)


def _acquire(path: bytes, how: int) -> int | None:
    while True:
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise unusable(error, f"lock {os.fsdecode(path)}") from error
        try:
            fcntl.flock(fd, how)
            mine = os.fstat(fd)
            there = os.stat(path)
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            os.close(fd)
            continue
        except BaseException:
            os.close(fd)
            raise
        if (mine.st_dev, mine.st_ino) == (there.st_dev, there.st_ino):
            return fd
        os.close(fd)


def clear(directory: bytes, prefix: bytes) -> list[bytes]:
    """Remove the lock files called `prefix`… that nobody holds, left by dead processes; return the names of the others.

    A file whose lock was shared stays behind as well, until this is called.
    """
    held = []
    for name in os.listdir(directory):
        if not name.startswith(prefix):
            continue
        path = directory + b"/" + name
        fd = try_hold(path)
        if fd is None:
            held.append(name)
            continue
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
        os.close(fd)
    return held

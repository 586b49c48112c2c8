"""Starts the process that containers are born in (`runner/launcher.py`); loads next to nothing, to begin early."""

from __future__ import annotations

import os
import sys

from runner.errors import LauncherError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket as sockets
    from collections.abc import Sequence
    from typing import Self
else:
    import _socket as sockets  # see `runner/rights.py`

_PROGRAM = os.path.join(os.path.dirname(os.path.abspath(__file__)), "launcher.py")


class Started:
    """A launcher that has been started: its pid, and the socket it takes requests from."""

    def __init__(self, control: sockets.socket, pid: int) -> None:
        self.control = control
        self.pid = pid

    @classmethod
    def start(cls, *, in_process: bool = False, last_will: Sequence[str] = ()) -> Self:
        """Start a launcher: a fresh interpreter, or with `in_process` a fork of this one while it has a single thread.

        `last_will` is a command that the launcher becomes once it has ended its containers, should the caller have been
        killed: what only the caller could take away, it takes away instead.

        A fresh interpreter takes some 15 ms more, of which the caller waits for none unless it spawns at once. It is
        the stricter one, see `_read_only_interpreter`.
        """
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
        try:
            alone = in_process and len(os.listdir("/proc/self/task")) == 1  # threads that Python does not know count
            pid = _fork(theirs, last_will) if alone else _execute(theirs, last_will)
        finally:
            theirs.close()
        return cls(ours, pid)

    def close(self) -> None:
        """End the launcher with all its containers and wait until it is gone. Safe to repeat."""
        if self.control.fileno() < 0:
            return
        self.control.close()
        try:
            os.waitpid(self.pid, 0)
        except ChildProcessError:
            return  # a caller that ignores SIGCHLD has nothing to reap


def _execute(control: sockets.socket, last_will: Sequence[str]) -> int:
    if not sys.executable:
        raise LauncherError("the path of the Python interpreter is unknown", hint="set sys.executable")
    actions = [(os.POSIX_SPAWN_DUP2, control.fileno(), 0)]
    argv = [sys.executable, "-I", "-S", _PROGRAM, *last_will]
    program, mounted = _read_only_interpreter()
    try:
        return os.posix_spawn(program, argv, {}, file_actions=actions, setsid=True)
    except OSError as error:
        raise LauncherError(f"cannot start {sys.executable}: {error.strerror}") from error
    finally:
        if mounted >= 0:
            os.close(mounted)


def _read_only_interpreter() -> tuple[str, int]:
    """Return a path of the interpreter on a read-only mount that nobody else sees, and its descriptor.

    /proc/PID/exe of the launcher and its forks then leads to a file that cannot be written, whatever a container comes
    by (CVE-2019-5736). Where such a mount is not to be had, `runner/child.py` still refuses to execute such links.
    """
    from runner import syscalls  # noqa: PLC0415  (a fork does without)

    try:
        mounted = syscalls.open_tree(syscalls.AT_FDCWD, os.fsencode(os.path.realpath(sys.executable)), recursive=False)
    except OSError:
        return sys.executable, -1
    try:
        syscalls.mount_setattr(mounted, recursive=False, set_=syscalls.MOUNT_ATTR_RDONLY)
    except OSError:
        os.close(mounted)
        return sys.executable, -1
    return f"/proc/self/fd/{mounted}", mounted


def _fork(control: sockets.socket, last_will: Sequence[str]) -> int:
    """Fork this interpreter, which has one thread, into a launcher.

    Safe because no other thread can hold a lock at this moment. What the fork shares of the caller's open files it
    drops at once, so that the end of the caller is seen and nothing of it is kept open. Its interpreter is not on a
    read-only mount: that no container executes /proc/self/exe rests on `runner/child.py` refusing to.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        from runner import launcher, syscalls  # noqa: PLC0415  (the caller's side never needs it)

        os.setsid()
        own = os.dup2(control.fileno(), 3, inheritable=False)
        syscalls.close_range(4, 0xFFFFFFFF, 0)
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        os.dup2(null, 0)
        os.dup2(null, 1)
        launcher.main(own, tuple(last_will))
    finally:
        os._exit(125)

"""The process containers are born in: one thread, a Unix socket to the caller, a fork for every request.

Executed as a program (`python -I -S launcher.py`, socket on descriptor 0) or run in a fork of the caller. It knows
nothing of what the containers are; when the caller is gone it kills them all and ends.
"""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    # -I leaves the script's directory out; what is appended cannot stand in for the standard library.
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import gc
import marshal
import select

from runner import child, rights, syscalls

_MOST_BYTES = 1 << 16
GROUP_PREFIX = "steps-"
"""How the groups that launchers are put into are called (`runner/devices.py`)."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as signals
    import socket as sockets
    from collections.abc import Callable
    from typing import NoReturn

    Kind = tuple[str, bytes, tuple[int, int] | None]
else:
    import _signal as signals
    import _socket as sockets


class Expected:
    """A child that has its namespaces and /proc, /dev and /sys, and waits for the container that it will become.

    `kind` is what it was made for: the network, the furniture and the network namespace.
    """

    def __init__(self, pid: int, pidfd: int, hatch: sockets.socket, kind: Kind) -> None:
        self.kind = kind
        self._pid = pid
        self._pidfd = pidfd
        self._hatch = hatch

    def has_ended(self) -> bool:
        """Say whether somebody killed it meanwhile."""
        poll = select.poll()
        poll.register(self._pidfd, select.POLLIN)
        return bool(poll.poll(0))

    def hand_over(self, channel: int, stdio: list[int]) -> tuple[int, int]:
        """Give it the descriptors of a container; return its pid and pidfd."""
        try:
            rights.send(self._hatch, b"\1", [channel, *stdio])
        except OSError:
            return self._pid, self._pidfd  # without them it ends, which the caller sees by the channel
        finally:
            self._hatch.close()
        return self._pid, self._pidfd

    def give_up(self) -> None:
        """Let it end."""
        self._hatch.close()
        signals.pidfd_send_signal(self._pidfd, signals.SIGKILL)
        os.waitpid(self._pid, 0)
        os.close(self._pidfd)


def _identity(netns: int | None) -> tuple[int, int] | None:
    if netns is None:
        return None
    status = os.fstat(netns)
    return status.st_dev, status.st_ino


class Launcher:
    """Its children by their pidfds, which poll as readable when they have ended."""

    def __init__(self, control: sockets.socket) -> None:
        self._control = control
        self._poll = select.poll()
        self._poll.register(control.fileno(), select.POLLIN)
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._self = os.pidfd_open(os.getpid())
        self._children: dict[int, tuple[int, sockets.socket]] = {}
        self._expected: Expected | None = None

    def serve(self) -> None:
        """Serve until the caller closes its end; then nothing is left."""
        while True:
            for fd, _ in self._poll.poll():
                if fd != self._control.fileno():
                    self._reap(fd)
                elif not self._request():
                    self._kill_all()
                    return

    def _request(self) -> bool:
        """Take one request and its descriptors; False if the caller is gone."""
        data, fds = rights.receive(self._control, _MOST_BYTES, child.MOST_FDS)
        if not data:
            return False
        name, *values = marshal.loads(data)
        if name == "join":
            self._join(fds[0], *values)
        else:
            self._spawn(fds, *values)
        return True

    def _join(self, answer: int, groups: tuple[bytes, ...], unified: bytes) -> None:
        """Move this process into groups; answer with an errno and a path, 0 and nothing if that went well."""
        result = 0, b""
        try:
            child.join(groups, unified)
        except OSError as error:
            result = error.errno or 0, error.filename
        os.write(answer, marshal.dumps(result))
        os.close(answer)

    def _spawn(self, fds: list[int], streams: int, places: tuple[bool, bool], kind: tuple[str, bytes, bool]) -> None:
        """Give birth to a container; `places` says whether there are descriptors of a network namespace and a group."""
        network, furniture, more = kind
        channel, status_fd, *others = fds
        status = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET, 0, status_fd)
        stdio, joined = others[:streams], others[streams:]
        netns = joined[0] if places[0] else None
        group = joined[-1] if places[1] else None
        try:
            expected = self._take_expected(network, furniture, netns)
            if expected is None:
                pid = self._fork(
                    lambda grouped: child.become(channel, stdio, netns, self._self, grouped=grouped), group=group
                )
                pidfd = os.pidfd_open(pid)
            else:
                pid, pidfd = expected.hand_over(channel, stdio)
            self._adopt(pid, pidfd, status)
        except OSError as error:
            status.send(b"%d" % (error.errno or 0))
            status.close()
        finally:
            for fd in (channel, *stdio):
                os.close(fd)
        try:
            # After the descriptors are closed here: the fork would hold the streams open.
            if more:
                self._expect(network, furniture, netns)
        finally:
            for fd in joined:
                os.close(fd)

    def _fork(self, become: Callable[..., NoReturn], *, group: int | None = None) -> int:
        """Fork into a pid namespace of its own; `become` is told whether it was `grouped`: born in that group, too."""
        if group is not None:
            try:
                pid = syscalls.clone_into(group, syscalls.CLONE_NEWPID)
            except OSError:  # before Linux 5.7, or where a filter forbids it: it will join by itself
                pass
            else:
                return _run(pid, lambda: become(grouped=True))
        # Only the next child is born into a new pid namespace; this process and its later children stay where they are.
        syscalls.unshare(syscalls.CLONE_NEWPID)
        try:
            return _run(os.fork(), lambda: become(grouped=False))
        finally:
            syscalls.setns(self._own_pids, syscalls.CLONE_NEWPID)

    def _adopt(self, pid: int, pidfd: int, status: sockets.socket) -> None:
        self._children[pidfd] = (pid, status)
        self._poll.register(pidfd, select.POLLIN)
        try:
            rights.send(status, b"%d" % pid, [pidfd])
        except BrokenPipeError:
            signals.pidfd_send_signal(pidfd, signals.SIGKILL)

    def _expect(self, network: str, furniture: bytes, netns: int | None) -> None:
        """Give birth to a container that is still to be asked for; where that cannot be, it is born when it is."""
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)

        def become(*, grouped: bool) -> NoReturn:  # noqa: ARG001 - the groups are the launcher's
            ours.close()
            child.become_later(theirs, network, furniture, netns, self._self)

        try:
            pid = self._fork(become)
            self._expected = Expected(pid, os.pidfd_open(pid), ours, (network, furniture, _identity(netns)))
        except OSError:
            ours.close()
        finally:
            theirs.close()

    def _take_expected(self, network: str, furniture: bytes, netns: int | None) -> Expected | None:
        """Return the child that waits for a container like this; one that waits for another kind is given up."""
        expected, self._expected = self._expected, None
        if expected is not None and (expected.kind != (network, furniture, _identity(netns)) or expected.has_ended()):
            expected.give_up()
            return None
        return expected

    def _reap(self, pidfd: int) -> None:
        pid, status = self._children.pop(pidfd)
        _, code = os.waitpid(pid, 0)
        self._poll.unregister(pidfd)
        os.close(pidfd)
        try:
            status.send(b"%d" % code)
        except BrokenPipeError:
            return  # the caller no longer asks
        finally:
            status.close()

    def _kill_all(self) -> None:
        if self._expected is not None:
            self._expected.give_up()
        for pidfd in self._children:
            signals.pidfd_send_signal(pidfd, signals.SIGKILL)
        while self._children:
            self._reap(next(iter(self._children)))


def _run(pid: int, become: Callable[[], NoReturn]) -> int:
    """Return the child's pid; in the child, become what it is to be."""
    if pid == 0:
        try:
            become()
        finally:
            os._exit(125)  # whatever happens: this process must not go on as a second launcher
    return pid


def _default_signals() -> None:
    """Undo, for all containers, what the interpreter or whoever started the caller set: exec keeps what is ignored."""
    for number in range(1, signals.NSIG):
        if signals.getsignal(number) not in {signals.SIG_DFL, None}:
            signals.signal(number, signals.SIG_DFL)
    signals.signal(signals.SIGPIPE, signals.SIG_IGN)


def main(control_fd: int, last_will: tuple[str, ...]) -> NoReturn:
    """Serve the caller at the other end of `control_fd` and exit, or become `last_will` if the caller was killed."""
    syscalls.set_process_name(b"pybuild:launch")
    _default_signals()
    gc.disable()  # nothing cyclic is made here, and a collection in a fork would copy every page it marks
    control = sockets.socket(sockets.AF_UNIX, sockets.SOCK_SEQPACKET, 0, control_fd)
    caller = os.getppid()
    Launcher(control).serve()
    if os.getppid() != caller:
        _remove_groups()
        if last_will:
            os.dup2(0, 2)  # nobody reads what it might say
            os.execve(last_will[0], last_will, {})
    os._exit(0)


def _remove_groups() -> None:
    """Take away the groups this process was put into alone, since the caller that made them was killed.

    cgroups(7): a group can go once no process is in it, so this process moves to the top of the hierarchy first.
    """
    with open("/proc/self/cgroup", "rb") as file:
        groups = [line.rstrip(b"\n").split(b":", 2)[1:] for line in file]
    for controllers, path in groups:
        if not path.rpartition(b"/")[2].startswith(GROUP_PREFIX.encode()):
            continue
        for top in _hierarchies(controllers):
            try:
                with open(top + b"/cgroup.procs", "wb", buffering=0) as procs:
                    procs.write(b"0")
                os.rmdir(top + path)
            except OSError:
                continue  # the next build takes it away


def _hierarchies(controllers: bytes) -> list[bytes]:
    """Return where the hierarchy of `controllers` (none: version 2) is mounted as a whole."""
    found = []
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, rest = line.partition(b" - ")
            _, _, _, root, mount_point, *_ = fields.split(b" ")
            kind, _, options = rest.rstrip(b"\n").split(b" ")[:3]
            wanted = kind == b"cgroup" and controllers in options.split(b",") if controllers else kind == b"cgroup2"
            if wanted and root == b"/":
                found.append(mount_point)
    return found


if __name__ == "__main__":
    own = os.dup(0)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(null, 1)
    os.close(null)
    main(own, tuple(sys.argv[1:]))

"""The caller's side of running containers: starts the launcher, hands it plans, tells what became of the processes.

Containers are born in the launcher (`runner/launcher.py`), a process with one thread. Methods may be called from any
thread: every container has sockets of its own, only the request for one is made under a lock.
"""

from __future__ import annotations

import marshal
import os
import select
import signal
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from runner import rights
from runner import rootfs as rootfs_
from runner.caps import DEFAULT_CAPABILITIES
from runner.errors import LauncherError, SetupError
from runner.filters import ready_filter
from runner.plan import compile_plan, groups_by_version
from runner.spec import JoinNetwork, Overlay, Rootfs, Spec
from runner.started import Started

if TYPE_CHECKING:
    import socket as sockets
    from pathlib import Path
else:
    import _socket as sockets  # see `runner/rights.py`

_MOST_BYTES = 1 << 16


class ExitStatus(NamedTuple):
    """How a process ended: `code` if it exited, `signal` if one killed it; the other is None."""

    code: int | None
    signal: int | None

    @classmethod
    def of(cls, status: int) -> Self:
        """Take apart a status of waitpid(2)."""
        code = os.waitstatus_to_exitcode(status)
        return cls(code, None) if code >= 0 else cls(None, -code)

    @property
    def shell_status(self) -> int:
        """The number a shell shows: the code, or 128 + the signal."""
        return self.code if self.code is not None else 128 + (self.signal or 0)


class Process:
    """A container's first process.

    `pid` is its id in the caller's pid namespace, `terminal` the master side of its terminal, which the caller closes,
    or None.
    """

    def __init__(self, *, pid: int, pidfd: int, status: sockets.socket, rootfs: Rootfs) -> None:
        self.pid = pid
        self.terminal: int | None = None
        self._pidfd = pidfd
        self._status = status
        self._rootfs = rootfs
        self._stubs: list[rootfs_.Stub] = []
        self._lock = threading.Lock()
        self._ended: ExitStatus | None = None
        self._lost: LauncherError | None = None

    def fileno(self) -> int:
        """Return a pidfd: it polls as readable once the process has ended; valid until `wait` has returned."""
        return self._pidfd

    def wait(self, timeout: float | None = None) -> ExitStatus:
        """Return how it ended, once it has and all of the container is gone; TimeoutError after `timeout` seconds."""
        if self._ended is None and timeout is not None and not _readable(self._status.fileno(), timeout):
            raise TimeoutError(f"the container still runs after {timeout} s")
        with self._lock:
            if self._lost is not None:
                raise self._lost
            if self._ended is None:
                self._ended = self._end()
                self._clean()
            return self._ended

    def signal(self, signum: int) -> None:
        """Send a signal to the container's first process; does nothing once it has ended."""
        if self._pidfd < 0:
            return
        try:
            signal.pidfd_send_signal(self._pidfd, signum)
        except ProcessLookupError:
            return

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal its size; it sends SIGWINCH to what runs there."""
        if self.terminal is not None:
            import termios  # noqa: PLC0415  (only terminals need it)

            termios.tcsetwinsize(self.terminal, (rows, columns))

    def _end(self) -> ExitStatus:
        try:
            data = self._status.recv(32)
        except OSError:
            data = b""
        if not data:
            self.signal(signal.SIGKILL)
        self._status.close()
        os.close(self._pidfd)
        self._pidfd = -1
        if not data:
            self._lost = LauncherError("the launcher ended and its containers with it", hint="run the command again")
            raise self._lost
        return ExitStatus.of(int(data))

    def _clean(self) -> None:
        if self._stubs:
            top = self._rootfs.upper if isinstance(self._rootfs, Overlay) else self._rootfs.path
            rootfs_.remove_stubs(os.fsencode(top), self._stubs)


class Launcher:
    """The process containers are born in; a context manager that closes it."""

    def __init__(self, started: Started) -> None:
        """Take the process that `Started.start` has started."""
        self.pid = started.pid
        self._started = started
        self._control = started.control
        self._lock = threading.Lock()
        self._programs: dict[object, bytes] = {}

    @classmethod
    def start(cls, *, in_process: bool = False, last_will: Sequence[str] = ()) -> Self:
        """Start a launcher, see `Started.start`."""
        return cls(Started.start(in_process=in_process, last_will=last_will))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def spawn(
        self,
        spec: Spec,
        *,
        stdin: int,
        stdout: int,
        stderr: int,
        on_namespaces: Callable[[int], None] | None = None,
        more: bool = False,
    ) -> Process:
        """Start a container and return once its process has been executed.

        `stdin`, `stdout` and `stderr` are descriptors of the caller; with `spec.process.terminal` they are not used and
        `Process.terminal` is the master side of the container's terminal. `on_namespaces` is called in the calling
        thread with the pid of the container's first process, when its namespaces exist and before anything is mounted:
        the moment to set up its network. With `more` another container with the same network and the same /proc, /dev
        and /sys is expected: much of it is then made while this one runs. Raises SpecError,
        SetupError(stage, errno, path), LauncherError.
        """
        compiled = compile_plan(spec, self._program(spec), hook=on_namespaces is not None)
        plan = marshal.dumps(compiled)
        # What is expected is born into the groups of the launcher.
        kind = compiled["network"], marshal.dumps(compiled["furniture"]), more and not spec.cgroups
        group = os.fsdecode(compiled["cgroups"][1])
        channel, theirs = sockets.socketpair()
        with closing(channel):
            with closing(theirs):
                process = self._request(spec, theirs, (stdin, stdout, stderr), kind, group)
            try:
                with suppress(BrokenPipeError, ConnectionResetError):  # it is gone already: what follows says so
                    channel.sendall(len(plan).to_bytes(4, "little") + plan)
                self._follow(channel, process, on_namespaces)
            except BaseException:
                process.signal(signal.SIGKILL)
                process.wait()
                if process.terminal is not None:
                    os.close(process.terminal)
                raise
        return process

    def join(self, directories: Iterable[Path]) -> None:
        """Put the launcher, and with it all it gives birth to from now on, into control groups; SetupError."""
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
        with closing(ours):
            with closing(theirs):
                self._send(("join", *groups_by_version(directories)), [theirs.fileno()])
            answer = ours.recv(_MOST_BYTES)
        if not answer:
            raise _ended()
        number, path = marshal.loads(answer)
        if number:
            raise SetupError("cgroup", number, os.fsdecode(path))

    def close(self) -> None:
        """Kill every container that still runs, end the launcher and wait until both are done."""
        with self._lock:
            self._started.close()

    def _program(self, spec: Spec) -> bytes:
        """Return the compiled filter, made once per profile and set of capabilities."""
        if spec.seccomp is None:
            return b""
        key = spec.seccomp.profile, spec.process.capabilities
        if key == (None, DEFAULT_CAPABILITIES) and (ready := ready_filter()) is not None:
            return ready
        if key not in self._programs:
            from runner import seccomp  # noqa: PLC0415  (loaded while the fresh launcher loads its own modules)

            self._programs[key] = seccomp.compile_filter(seccomp.load(*key))
        return self._programs[key]

    def _request(
        self,
        spec: Spec,
        channel: sockets.socket,
        stdio: tuple[int, int, int],
        kind: tuple[str, bytes, bool],
        group: str,
    ) -> Process:
        streams = () if spec.process.terminal else stdio
        netns = spec.network.path if isinstance(spec.network, JoinNetwork) else ""
        ours, theirs = sockets.socketpair(sockets.AF_UNIX, sockets.SOCK_SEQPACKET)
        opened: list[int] = []
        try:
            with closing(theirs):
                for path, stage in ((netns, "namespaces"), (group, "cgroup")):
                    if path:
                        opened.append(_open(path, stage))
                request = "spawn", len(streams), (bool(netns), bool(group)), kind
                self._send(request, [channel.fileno(), theirs.fileno(), *streams, *opened])
            try:
                data, fds = rights.receive(ours, 32, 1)
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                raise _ended()
            if not fds:
                raise SetupError("namespaces", int(data), "")
        except BaseException:
            ours.close()
            raise
        finally:
            for fd in opened:
                os.close(fd)
        return Process(pid=int(data), pidfd=fds[0], status=ours, rootfs=spec.rootfs)

    def _send(self, request: tuple[object, ...], fds: Sequence[int]) -> None:
        try:
            with self._lock:
                rights.send(self._control, marshal.dumps(request), fds)  # type: ignore[arg-type]  # plain values only
        except OSError as error:
            raise LauncherError(f"the launcher does not answer: {error.strerror}") from error

    def _follow(self, channel: sockets.socket, process: Process, hook: Callable[[int], None] | None) -> None:
        """Read what the container's setup reports until its exec closes the channel."""
        ready = False
        while message := _receive(channel, process):
            match message:
                case ("namespaces",):
                    assert hook is not None
                    hook(process.pid)
                    with suppress(BrokenPipeError, ConnectionResetError):
                        channel.sendall(b"\1")
                case ("terminal",):
                    pass
                case ("ready", stubs):
                    process._stubs = list(stubs)  # noqa: SLF001  (one noun in two classes)
                    ready = True
                case ("error", str(stage), int(errno), str(path), str(text), stubs):
                    process._stubs = list(stubs)  # noqa: SLF001
                    raise SetupError(stage, errno, path, text)
                case _:
                    raise LauncherError(f"BUG: unknown report {message!r}")
        if not ready:
            raise LauncherError("the container was killed while it was set up", hint="look for the OOM killer in dmesg")


def _open(path: str, stage: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise SetupError(stage, error.errno or 0, path) from None


def _ended() -> LauncherError:
    return LauncherError("the launcher ended unexpectedly", hint="its message is on standard error")


def _receive(channel: sockets.socket, process: Process) -> tuple[Any, ...]:
    """Return one report, () at the end; a descriptor beside it is the terminal's."""
    try:
        head, fds = rights.receive(channel, 4, 1)
        if fds:
            process.terminal = fds[0]
        size = int.from_bytes(head, "little")
        data = channel.recv(size, sockets.MSG_WAITALL) if size else b""
    except ConnectionResetError:
        return ()
    if not data or len(data) < size:
        return ()
    message: tuple[Any, ...] = marshal.loads(data)
    return message


def _readable(fd: int, timeout: float) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(timeout * 1000))

"""The supervisor of one container: gives it what it needs, keeps its log, waits, records how it ended and cleans up.

In the foreground it runs inside `pybuild run`; for a detached container it is a process of its own, a fresh `python
-I -S` that was handed the bundle. It dies with its container and the container with it; what a killed supervisor leaves
is recovered by the next command that looks (`Containers.recover`).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn, assert_never

from runner.cgroups import Cgroup, Limits
from runner.container import Container, Containers
from runner.errors import RunnerError, SetupError
from runner.log import LogWriter
from runner.spec import HostNetwork, JoinNetwork, NoNetwork, Spec
from runner.streams import Pump, drain, run_pumps

if TYPE_CHECKING:
    from runner.launch import Process
    from runner.network import Endpoint, NetworkNamespace
    from runner.ports import Port
    from runner.started import Started

HOSTS, RESOLV_CONF, HOSTNAME = "hosts", "resolv.conf", "hostname"
"""The files of a container's directory that are mounted over those in /etc."""


class BridgeNetwork(NamedTuple):
    """A place on a bridge: `state` is where its addresses are recorded, `ports` lead to the container."""

    state: Path
    ports: tuple[Port, ...] = ()


Network = NoNetwork | HostNetwork | BridgeNetwork


class Bundle(NamedTuple):
    """Everything a supervisor needs to start a container.

    `spec` leaves the network and the control groups to the supervisor; its mounts take /etc/hosts, /etc/resolv.conf and
    /etc/hostname from the container's directory, where they are written before it starts. `limits` None makes no
    control group. `ports` are published on the bridge. `extra_hosts` are `--add-host` values, `nameservers` `--dns`
    ones.
    """

    spec: Spec
    network: Network
    limits: Limits | None = None
    extra_hosts: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()


class Supervisor:
    """One container's supervisor; `container` is locked by this process and was not started yet.

    `stdin`, `stdout` and `stderr` are where its input comes from and its output goes to, None for nowhere: its stdin
    is then /dev/null, or with `keep_stdin` open without ever having anything to read. `started` is its launcher, which
    it closes, if there is one already. `problems` tells afterwards what went wrong without ending it; `ending` is true
    from when nothing is left but to clean up, which should not be interrupted.
    """

    def __init__(
        self,
        containers: Containers,
        container: Container,
        bundle: Bundle,
        *,
        stdin: int | None = None,
        stdout: int | None = None,
        stderr: int | None = None,
        keep_stdin: bool = False,
        started: Started | None = None,
    ) -> None:
        self.problems: list[str] = []
        self.oom_killed = False
        self.ending = False
        self._containers = containers
        self._container = container
        self._bundle = bundle
        self._stdin, self._stdout, self._stderr = stdin, stdout, stderr
        self._keep_stdin = keep_stdin
        self._started = started
        self._process: Process | None = None
        self._code: int | None = None
        self._pumps: list[Pump] = []
        self._inputs: list[Pump] = []

    def run(self, *, ready: Callable[[], None] | None = None) -> int:
        """Start the container, call `ready`, stay until it has ended, and return its exit code (128 + n for signal n).

        Whatever happens, the container has ended and nothing of it is left when this returns or raises, but its
        directory with its log and its state, unless it is to be removed. Raises RunnerError if it could not be started.
        """
        container = self._container
        try:
            with contextlib.ExitStack() as stack:
                try:
                    process, address, ports = self._start(stack)
                    container.started(process.pid, address=address, ports=ports)
                    if ready is not None:
                        ready()
                    code = self._attend(process)
                finally:
                    self.ending = True
            container.exited(code, oom_killed=self.oom_killed, error="; ".join(self.problems))
        except RunnerError as error:
            self._record_failure(error.exit_status if isinstance(error, SetupError) else error.exit_code, error.message)
            raise
        except BaseException:
            # Told to end meanwhile, or something unforeseen: in any case it does not run any more.
            self._record_failure(128 + signal.SIGKILL, "interrupted")
            raise
        finally:
            if container.config.auto_remove:
                self._containers.remove(container)
                self._containers.remove_volumes(container.config)
            container.release()
        return code

    def _record_failure(self, status: int, message: str) -> None:
        if self._process is None:
            self._container.failed(status, message)
        else:
            code = status if self._code is None else self._code
            self._container.exited(code, oom_killed=self.oom_killed, error=message)

    @property
    def running(self) -> bool:
        """Whether signals reach a process."""
        return self._process is not None and self._code is None

    def signal(self, signum: int) -> None:
        """Send a signal to the container's first process; safe in a signal handler; nothing if it does not run."""
        if self._process is not None:
            self._process.signal(signum)

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container's terminal its size; nothing if it has none."""
        if self._process is not None and self._process.terminal is not None:
            self._process.resize(rows, columns)

    def _start(self, stack: contextlib.ExitStack) -> tuple[Process, str, tuple[str, ...]]:
        from runner.lastwill import last_will  # noqa: PLC0415
        from runner.launch import Launcher  # noqa: PLC0415 - the builder has its own way to get one
        from runner.started import Started  # noqa: PLC0415

        bundle, container = self._bundle, self._container
        # First of all, unless it was started before: a fork of this process while that has one thread.
        launcher = Launcher(
            self._started or Started.start(in_process=True, last_will=last_will(containers=self._containers.root))
        )
        stack.callback(launcher.close)
        spec = bundle.spec
        if bundle.limits is not None:
            group = Cgroup.create(container.id, bundle.limits)
            stack.callback(self._remove_group, group)
            spec = spec._replace(cgroups=group.directories)
        endpoint: Endpoint | None = None
        ports: tuple[Port, ...] = ()
        match bundle.network:
            case NoNetwork() | HostNetwork():
                spec = spec._replace(network=bundle.network)
            case BridgeNetwork():
                endpoint, namespace = self._attach(stack, bundle.network)
                ports = endpoint.publish(bundle.network.ports) if bundle.network.ports else ()
                spec = spec._replace(network=JoinNetwork(namespace.path))
            case _:
                assert_never(bundle.network)
        self._write_files(endpoint)
        log = None
        if container.config.keeps_log:
            log = LogWriter(container.log, clock=container.clock)
            stack.callback(self._close_log, log)
        stack.callback(self._close_streams)
        inner = self._open_streams(stack, log, terminal=spec.process.terminal, owner=spec.process.user.uid)
        try:
            process = launcher.spawn(spec, stdin=inner[0], stdout=inner[1], stderr=inner[2])
        finally:
            for fd in inner:
                os.close(fd)
        self._process = process
        stack.callback(self._end_process)
        if process.terminal is not None:
            stack.callback(os.close, process.terminal)
            self._attach_terminal(process.terminal, log)
        return process, endpoint.address if endpoint else "", tuple(map(str, ports))

    def _attach(self, stack: contextlib.ExitStack, network: BridgeNetwork) -> tuple[Endpoint, NetworkNamespace]:
        from runner.network import Bridge, NetworkNamespace  # noqa: PLC0415 - for the bridge only

        namespace = stack.enter_context(NetworkNamespace.create())
        bridge = Bridge(network.state, avoid=self._bundle.nameservers)
        endpoint = bridge.attach(namespace, id=self._container.id)
        stack.callback(endpoint.release)
        return endpoint, namespace

    def _write_files(self, endpoint: Endpoint | None) -> None:
        from runner import hosts  # noqa: PLC0415 - it imports the standard library's address types

        bundle, path = self._bundle, self._container.path
        own = bundle.spec.hostname
        on_host = isinstance(bundle.network, HostNetwork)
        gateway = endpoint.gateway if endpoint else "127.0.0.1" if on_host else ""
        extra = [hosts.parse_add_host(text, gateway=gateway) for text in bundle.extra_hosts]
        if on_host:
            text = hosts.host_hosts(_read(b"/etc/hosts"), extra=extra)
        else:
            text = hosts.hosts(own, address=endpoint.address if endpoint else "", extra=extra)
        resolv = _read(b"/etc/resolv.conf")
        if not on_host and hosts.needs_systemd_servers(resolv):
            resolv = _read(os.fsencode(hosts.SYSTEMD_RESOLV_CONF)) or resolv
        (path / HOSTS).write_bytes(text)
        (path / RESOLV_CONF).write_bytes(hosts.resolv_conf(resolv, host_network=on_host, servers=bundle.nameservers))
        (path / HOSTNAME).write_bytes(hosts.hostname_file(own))

    def _open_streams(
        self, stack: contextlib.ExitStack, log: LogWriter | None, *, terminal: bool, owner: int
    ) -> tuple[int, int, int]:
        """Return the container's ends of its streams; ours go into `_pumps`."""
        if terminal:
            null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            return null, os.dup(null), os.dup(null)
        inner = [self._open_stdin(stack, owner)]
        for stream, sink in (("stdout", self._stdout), ("stderr", self._stderr)):
            ours, theirs = os.pipe()
            # Programs open /dev/stdout and /dev/stderr by name, which takes owning them (as runc does it).
            os.fchown(theirs, owner, -1)
            os.set_blocking(ours, False)
            self._pumps.append(Pump(ours, sink, tap=_tap(log, stream), closes_source=True))
            inner.append(theirs)
        return inner[0], inner[1], inner[2]

    def _open_stdin(self, stack: contextlib.ExitStack, owner: int) -> int:
        if self._stdin is None and not self._keep_stdin:
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        theirs, ours = os.pipe()
        os.fchown(theirs, owner, -1)
        if self._stdin is None:
            stack.callback(os.close, ours)
        else:
            os.set_blocking(ours, False)
            self._add_input(Pump(self._stdin, ours, closes_sink=True))
        return theirs

    def _attach_terminal(self, master: int, log: LogWriter | None) -> None:
        os.set_blocking(master, False)
        self._pumps.append(Pump(master, self._stdout, tap=_tap(log, "stdout")))
        if self._stdin is not None:
            self._add_input(Pump(self._stdin, master))

    def _end_process(self) -> None:
        """Kill the container if it still runs: something went wrong on our side."""
        if self._process is not None:
            self._process.signal(signal.SIGKILL)
            self._process.wait()

    def _add_input(self, pump: Pump) -> None:
        self._pumps.append(pump)
        self._inputs.append(pump)

    def _close_streams(self) -> None:
        for pump in self._pumps:
            pump.abandon()

    def _attend(self, process: Process) -> int:
        run_pumps(self._pumps, process.fileno())
        self._code = process.wait().shell_status
        for pump in self._inputs:
            pump.abandon()
        drain(self._pumps)
        self.problems += [f"writing its output: {pump.error}" for pump in self._pumps if pump.error]
        return self._code

    def _close_log(self, log: LogWriter) -> None:
        log.close()
        if log.error:
            self.problems.append(log.error)

    def _remove_group(self, group: Cgroup) -> None:
        self.oom_killed = group.stats().oom_killed
        group.kill()
        group.remove()


def start_detached(containers: Containers, container: Container, bundle: Bundle, *, keep_stdin: bool = False) -> None:
    """Start `container` under a supervisor of its own and return once it runs; this process lets go of it.

    Raises RunnerError as `Supervisor.run` does, and if the supervisor itself dies.
    """
    import pickle  # noqa: PLC0415 - only between these two processes

    assert container.lock is not None, "BUG: only the supervisor hands a container on"
    trace = container.path / "monitor.log"
    told, tell = os.pipe()
    with contextlib.ExitStack() as stack:
        payload = os.memfd_create("bundle")
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        log = os.open(trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for fd in (tell, payload, null, log):
            stack.callback(os.close, fd)
        stack.callback(container.release)
        os.write(payload, pickle.dumps((str(containers.root), str(container.path), bundle, keep_stdin, sys.path)))
        os.lseek(payload, 0, os.SEEK_SET)
        _spawn(null, log, (container.lock, payload, tell))
    with open(told, "rb") as pipe:
        answer = pipe.read()
    if not answer:
        raise RunnerError("the process that supervises the container ended", hint=f"see {trace}")
    failure = json.loads(answer)
    if failure is not None:
        error = RunnerError(failure["message"], hint=failure["hint"])
        error.exit_code = failure["status"]
        raise error


def _spawn(null: int, log: int, handed: tuple[int, ...]) -> None:
    """Start `main` in a fresh interpreter with the descriptors `handed`, as a child of nobody."""
    home = str(Path(__file__).resolve().parent.parent)
    code = f"import sys; sys.path.insert(0, {home!r}); from runner.monitor import main; main(sys.argv[1:])"
    for fd in handed:
        fcntl.fcntl(fd, fcntl.F_SETFD, 0)
    try:
        child = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", "-c", code, *map(str, handed)],
            {"PATH": os.defpath, "LC_ALL": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, source, target) for target, source in enumerate((null, log, log))],
        )
    except OSError as error:
        raise RunnerError(f"cannot start {sys.executable}: {error.strerror}", hint="set sys.executable") from error
    os.waitpid(child, 0)


def main(args: Sequence[str]) -> NoReturn:
    """Be the supervisor of a detached container; `args` are descriptors: its lock, its bundle, and the way to tell."""
    lock, payload, tell = map(int, args)
    for fd in (lock, payload, tell):
        fcntl.fcntl(fd, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
    # Whoever started us waits for this first process only: the second is nobody's child and has no terminal.
    if os.fork():
        os._exit(0)
    os.setsid()
    os.chdir("/")
    with contextlib.suppress(OSError), open("/proc/self/comm", "w", encoding="ascii") as comm:
        comm.write("pybuild-monitor")
    import pickle  # noqa: PLC0415

    with open(payload, "rb") as file:
        root, path, bundle, keep_stdin, places = pickle.load(file)
    # Where the caller's libraries are: the bridge needs one that is not part of Python.
    sys.path += [place for place in places if place not in sys.path]
    containers = Containers(Path(root), clock=time.time)
    container = containers.adopt(Path(path), lock)
    supervisor = Supervisor(containers, container, bundle, keep_stdin=keep_stdin)
    for signum in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        signal.signal(signum, signal.SIG_IGN)
    # The host goes down, or somebody wants the container to end the polite way: it gets the signal it asked for.
    signal.signal(signal.SIGTERM, lambda _signum, _frame: supervisor.signal(container.config.stop_signal))
    failure: dict[str, object] | None = None
    try:
        supervisor.run(ready=lambda: _tell(tell, None))
    except RunnerError as error:
        status = error.exit_status if isinstance(error, SetupError) else error.exit_code
        failure = {"message": error.message, "hint": error.hint, "status": status}
    if failure is not None:
        _tell(tell, failure)
    os._exit(0)


def _tell(fd: int, failure: dict[str, object] | None) -> None:
    with contextlib.suppress(BrokenPipeError):
        os.write(fd, json.dumps(failure).encode())
    os.close(fd)


def _tap(log: LogWriter | None, stream: str) -> Callable[[bytes], None] | None:
    return None if log is None else lambda data: log.write(stream, data)


def _read(path: bytes) -> bytes:
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file:
        return file.read()
    return b""

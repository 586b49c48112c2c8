"""Containers that outlive one call: their directories, ids, names and states, shared by every process of one store.

Each has a supervisor (`runner/monitor.py`, or `pybuild run` itself in the foreground) that holds the container's lock
for as long as it lives; whoever can take the lock of a container that is said to run knows that its supervisor was
killed, and records it. It knows nothing of images and does not start anything.

`<root>/<id>/config.json` never changes; `state.json` is written by the lock's holder only; `<root>/names/<name>` is a
symbolic link to the id. A directory without config.json that nobody has locked is litter of a crash. States are not
synced to disk: no container survives a power cut, and what is read after one is at worst an older state, which is
then recovered.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import select
import signal
import time
from collections.abc import Callable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from runner.errors import RunnerError
from runner.names import random_names
from runner.trees import remove_tree
from runner.volumes import Volumes

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_ID = re.compile(r"[0-9a-f]{1,64}\Z")
_KILLED = 128 + signal.SIGKILL
_PATIENCE = 10.0
"""Seconds that a killed container may take to be gone: the kernel tears its memory and namespaces down meanwhile."""


class ContainerNotFoundError(RunnerError):
    """No container has this name or id, or several have it as a prefix."""

    exit_code = 1


class ContainerExistsError(RunnerError):
    """The name is taken."""


class ContainerRunningError(RunnerError):
    """What was asked for needs a container that has stopped."""

    exit_code = 1


class Status(StrEnum):
    """Where a container is in its life: CREATED → RUNNING → EXITED; one that cannot be started stays CREATED."""

    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


class Config(NamedTuple):
    """What a container is for as long as it exists.

    `id` is 64 hex digits. `created` is in seconds since the epoch. `image` is the reference as asked for, `image_id`
    what it stood for, `layers` its diff IDs (they must stay in the store). `command` is for display. `volumes` are
    the names of the volumes it uses, `anonymous` of those that were made for it alone. `stop_timeout` is in seconds.
    `network` is none, host or bridge; `bridge_state` is where the bridge's addresses are recorded.
    """

    id: str
    name: str = ""
    created: float = 0.0
    image: str = ""
    image_id: str = ""
    layers: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    volumes: tuple[str, ...] = ()
    anonymous: tuple[str, ...] = ()
    terminal: bool = False
    detached: bool = False
    auto_remove: bool = False
    stop_signal: int = signal.SIGTERM
    stop_timeout: int = 10
    network: str = "none"
    bridge_state: str = ""

    @property
    def short_id(self) -> str:
        """The twelve digits that people see."""
        return self.id[:12]

    @property
    def keeps_log(self) -> bool:
        """Whether its output is kept: not where it goes to whoever started it and nothing else of it stays either."""
        return self.detached or not self.auto_remove


class State(NamedTuple):
    """What a container is now.

    `pid` is of its first process and `birth` that process's start time in clock ticks since boot, so that a pid used
    again is not taken for it. `claimed` says that control groups or a network may exist for it. Times are seconds
    since the epoch. `ports` are the published ports as `address:port->port/protocol`. `error` says why it could not
    be started, or what else went wrong.
    """

    status: Status = Status.CREATED
    pid: int = 0
    birth: int = 0
    claimed: bool = False
    started: float = 0.0
    finished: float = 0.0
    exit_code: int = 0
    oom_killed: bool = False
    address: str = ""
    ports: tuple[str, ...] = ()
    error: str = ""


class Container:
    """One container; `lock` is its lock's descriptor while this process is its supervisor."""

    CONFIG: ClassVar[str] = "config.json"
    STATE: ClassVar[str] = "state.json"
    LOCK: ClassVar[str] = "lock"
    LOG: ClassVar[str] = "log.json"

    def __init__(
        self, path: Path, config: Config, *, lock: int | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.path = path
        self.config = config
        self.lock = lock
        self.clock = clock
        self._state = State()

    @property
    def id(self) -> str:
        """Its 64 hex digits."""
        return self.config.id

    @property
    def log(self) -> Path:
        """The file with its output (`runner/log.py`)."""
        return self.path / self.LOG

    def state(self) -> State:
        """Return what it is now, as its supervisor last recorded it."""
        if self.lock is None:
            self._state = _read_state(self.path / self.STATE)
        return self._state

    def started(self, pid: int, *, address: str = "", ports: tuple[str, ...] = ()) -> None:
        """Record that its first process runs; for the supervisor."""
        now = self.clock()
        birth = _birth(pid) or 0
        running = Status.RUNNING
        self._enter(
            State(status=running, claimed=True, pid=pid, birth=birth, started=now, address=address, ports=ports)
        )

    def exited(self, exit_code: int, *, oom_killed: bool = False, error: str = "") -> None:
        """Record that it has ended with `exit_code` (128 + n for signal n); for the supervisor."""
        ended = self._state._replace(status=Status.EXITED, claimed=False, pid=0, birth=0, finished=self.clock())
        self._enter(ended._replace(exit_code=exit_code, oom_killed=oom_killed, error=error, address="", ports=()))

    def failed(self, exit_code: int, error: str) -> None:
        """Record that it could not be started; for the supervisor."""
        self._enter(State(exit_code=exit_code, error=error))

    def signal(self, signum: int) -> bool:
        """Send a signal to its first process; False if that has ended."""
        pidfd = self.open_process()
        if pidfd is None:
            return False
        try:
            signal.pidfd_send_signal(pidfd, signum)
        except ProcessLookupError:
            return False
        finally:
            os.close(pidfd)
        return True

    def open_process(self) -> int | None:
        """Return a pidfd of its first process, which the caller closes; None if that has ended."""
        state = self.state()
        if state.status is not Status.RUNNING or not state.pid:
            return None
        try:
            pidfd = os.pidfd_open(state.pid)
        except ProcessLookupError:
            return None
        # Only now is the number pinned: whose it is can be told without a race.
        if _birth(state.pid) != state.birth:
            os.close(pidfd)
            return None
        return pidfd

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether it has ended, recorded and all, within `timeout` seconds; None waits for ever."""
        deadline = None if timeout is None else time.monotonic() + timeout
        pidfd = self.open_process()
        if pidfd is not None:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            ended = poll.poll(None if timeout is None else max(0, timeout) * 1000)
            os.close(pidfd)
            if not ended:
                return False
            # Its process is gone, so its supervisor is about to record that: not for the caller's timeout to cut short.
            deadline = time.monotonic() + _PATIENCE
        while self.supervised():
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

    def supervised(self) -> bool:
        """Return whether a supervisor is alive."""
        with self._try_lock() as taken:
            return not taken

    def release(self) -> None:
        """Let go of the lock: this process supervises it no more."""
        if self.lock is not None:
            os.close(self.lock)
            self.lock = None

    def _enter(self, state: State) -> None:
        """Record a state; the one place where it changes."""
        assert self.lock is not None, "BUG: only the supervisor changes a container's state"
        self._state = state
        _write_json(self.path / self.STATE, state)

    @contextlib.contextmanager
    def _try_lock(self) -> Iterator[bool]:
        """Hold the lock for a while if nobody has it; False if somebody has. One that is gone counts as free."""
        if self.lock is not None:
            yield False
            return
        try:
            fd = os.open(self.path / self.LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            yield True
            return
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            yield False
            return
        self.lock = fd
        try:
            yield True
        finally:
            self.release()


class Containers:
    """The containers below one directory, and the volumes in the directory `volumes` beside it."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.time) -> None:
        """Take `root`, the directory they are in, made with the first one; `clock` returns seconds since the epoch."""
        self.root = root
        self.volumes = Volumes(root.parent / "volumes")
        self._clock = clock

    def create(self, config: Config) -> Container:
        """Make the container's directory and take its name (one is chosen if it has none); the caller supervises it.

        Raises ContainerExistsError for a name that is taken, RunnerError for one that cannot be.
        """
        if config.name and not _NAME.match(config.name):
            raise RunnerError(
                f"invalid container name {config.name!r}",
                hint="use letters, digits, and after the first character also _ . -; two characters or more",
            )
        (self.root / "names").mkdir(parents=True, exist_ok=True, mode=0o711)
        path = self.root / config.id
        with self._locked():
            # The directory first: a crash leaves no name without one, and `_scan` finds directories.
            path.mkdir(mode=0o711)
            try:
                name = self._take_name(config.name, config.id)
            except ContainerExistsError:
                path.rmdir()
                raise
            lock = os.open(path / Container.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(lock, fcntl.LOCK_EX)
            config = config._replace(name=name)
            container = Container(path, config, lock=lock, clock=self._clock)
            _write_json(path / Container.STATE, State(claimed=True))
            _write_json(path / Container.CONFIG, config)
        return container

    def adopt(self, path: Path, lock: int) -> Container:
        """Return the container at `path` for the process that inherited its lock."""
        config = _read_config(path)
        if config is None:
            raise ContainerNotFoundError(f"no such container: {path.name}")
        return Container(path, config, lock=lock, clock=self._clock)

    def all(self) -> list[Container]:
        """Return all of them, newest first, after recovering those whose supervisors were killed."""
        self.recover()
        found = list(self._scan())
        found.sort(key=lambda container: container.config.created, reverse=True)
        return found

    def find(self, text: str) -> Container:
        """Return the one with this name, id or unambiguous beginning of an id; ContainerNotFoundError."""
        self.recover()
        every = list(self._scan())
        for container in every:
            if text in {container.id, container.config.name}:
                return container
        matches = [container for container in every if _ID.match(text) and container.id.startswith(text)]
        if len(matches) > 1:
            raise ContainerNotFoundError(
                f"several containers have ids that start with {text}",
                hint="give more digits: `pybuild ps -a --no-trunc` shows them all",
            )
        if not matches:
            raise ContainerNotFoundError(f"no such container: {text}", hint="`pybuild ps -a` lists the containers")
        return matches[0]

    def remove(self, container: Container, *, force: bool = False) -> None:
        """Take a stopped container away with everything in its directory; `force` kills it first.

        Raises ContainerRunningError. The caller removes its volumes.
        """
        if container.lock is not None:
            self._remove_locked(container)
            return
        if force:
            self.kill(container)
        with container._try_lock() as taken:  # noqa: SLF001 - two classes of one noun
            if not taken:
                raise ContainerRunningError(
                    f"container {container.config.name} is running", hint="stop it first, or use `pybuild rm -f`"
                )
            if container.lock is not None:
                self._remove_locked(container)

    def remove_volumes(self, config: Config) -> None:
        """Take away the anonymous volumes of a container that is gone, but for those that another one uses."""
        if config.anonymous:
            used = {name for container in self._scan() for name in container.config.volumes}
            self.volumes.remove(name for name in config.anonymous if name not in used)

    def kill(self, container: Container) -> None:
        """End a container at once and return when that is recorded; RunnerError if it does not go."""
        container.signal(signal.SIGKILL)
        if not container.wait(_PATIENCE):
            raise RunnerError(
                f"container {container.config.name} does not end",
                hint=f"its first process is {container.state().pid}; see where it hangs in /proc/PID/stack",
            )
        self.recover()

    def recover(self) -> None:
        """Record the end of containers whose supervisors were killed, and remove what crashes left."""
        for container in list(self._scan()):
            if not container.state().claimed and not container.config.auto_remove:
                continue
            with container._try_lock() as taken:  # noqa: SLF001 - two classes of one noun
                if taken and container.lock is not None:
                    self._recover_locked(container)

    def _recover_locked(self, container: Container) -> None:
        state = container._state = _read_state(container.path / Container.STATE)  # noqa: SLF001
        if state.claimed:
            self._reap(container)
        match state.status:
            case Status.RUNNING:
                container.exited(_KILLED, error="the process that supervised it was killed")
            case Status.CREATED if state.claimed:
                container.failed(_KILLED, "the process that was starting it was killed")
        if container.config.auto_remove and _read_config(container.path) is not None:
            self._remove_locked(container)
            self.remove_volumes(container.config)

    def _reap(self, container: Container) -> None:
        """End what a dead supervisor left: the process dies with it as a rule, its resources do not."""
        pidfd = container.open_process()
        if pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            poll.poll(_PATIENCE * 1000)
            os.close(pidfd)
        release_resources(container.config)

    def _remove_locked(self, container: Container) -> None:
        # In this order a crash leaves litter, which `_scan` removes, and never a container that is half there.
        with self._locked():
            name = self.root / "names" / container.config.name
            with contextlib.suppress(OSError):
                if os.readlink(name) == container.id:
                    name.unlink()
            with contextlib.suppress(FileNotFoundError):
                (container.path / Container.CONFIG).unlink()
        remove_tree(container.path)

    def _scan(self) -> Iterator[Container]:
        litter = []
        try:
            entries = sorted(os.listdir(self.root))
        except FileNotFoundError:
            return
        for entry in entries:
            if len(entry) != 64 or not _ID.match(entry):
                continue
            path = self.root / entry
            config = _read_config(path)
            if config is None:
                litter.append(path)
            else:
                yield Container(path, config, clock=self._clock)
        if litter:
            self._remove_litter(litter)

    def _remove_litter(self, paths: list[Path]) -> None:
        with self._locked():
            for path in paths:
                if _read_config(path) is not None:
                    continue
                with Container(path, Config(id=path.name))._try_lock() as taken:  # noqa: SLF001
                    if taken:
                        self._remove_names(path.name)
                        remove_tree(path)

    def _remove_names(self, container_id: str) -> None:
        for link in (self.root / "names").glob("*"):
            if os.readlink(link) == container_id:
                link.unlink()

    def _take_name(self, wanted: str, container_id: str) -> str:
        for name in [wanted] if wanted else random_names():
            link = self.root / "names" / name
            try:
                os.symlink(container_id, link)
            except FileExistsError:
                owner = os.readlink(link)
                if _read_config(self.root / owner) is None:
                    # A crash left it; nobody is between two steps now, since the lock is ours.
                    link.unlink()
                    os.symlink(container_id, link)
                    return name
                if wanted:
                    raise ContainerExistsError(
                        f"the container name {name!r} is already in use by container {owner[:12]}",
                        hint=f"remove it with `pybuild rm {name}`, or choose another name",
                    ) from None
            else:
                return name
        raise AssertionError("BUG: random names never run out")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the lock of names and directories; for short."""
        fd = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)


def new_id() -> str:
    """Return a new container's id; its first twelve digits are no number, so that it cannot be taken for a pid."""
    while (text := os.urandom(32).hex())[:12].isdigit():
        pass
    return text


def release_resources(config: Config) -> None:
    """Give back what a container has besides its directory: its control groups and its place on the bridge."""
    from runner.cgroups import Cgroup  # noqa: PLC0415 - not needed by those that only look

    group = Cgroup.open(config.id)
    group.kill()
    group.remove()
    if config.network == "bridge":
        from runner.network import Bridge  # noqa: PLC0415 - not needed by those that only look

        Bridge(Path(config.bridge_state)).release(config.id)


def _read_config(path: Path) -> Config | None:
    document = _read_json(path / Container.CONFIG)
    if document is None:
        return None
    document["labels"] = tuple((key, value) for key, value in document["labels"])
    return Config(**document)


def _read_state(path: Path) -> State:
    document = _read_json(path)
    if document is None:
        return State()
    document["status"] = Status(document["status"])
    return State(**document)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            document: dict[str, Any] = json.loads(file.read())
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            return None
        raise
    except ValueError:
        # Renamed over, but the data was lost with the power: a container that ran then does not run now.
        return None
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def _write_json(path: Path, value: Config | State) -> None:
    """Replace the file by one rename, so that a reader sees the old or the new."""
    document = value._asdict()
    temporary = f"{path}.tmp"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(json.dumps(document))
    os.rename(temporary, path)


def _birth(pid: int) -> int | None:
    """Return when a process started in clock ticks since boot (proc_pid_stat(5), field 22); None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    # The second field, the command, may hold blanks and parentheses itself.
    return int(text[text.rindex(b")") + 2 :].split()[19])

"""Control groups: a container's limits, its processes as one, and what they used; versions 1, 2 and hybrid hosts.

Groups are made as `pybuild/<id>` at the root of what is mounted (inside a container that is the container's own
group), so that every process that knows the id finds them; below the caller's own group where that root is not
writable. In version 1 there is a directory for every controller, in version 2 one for all, on a hybrid host both: the
version 2 side freezes and kills.
"""

# ruff: noqa: A002 - what names a container is its id
from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import EACCES, EBUSY, EINVAL, ENOENT, ENOSPC, EPERM, EROFS
from pathlib import Path
from typing import NamedTuple

from runner.errors import RunnerError, UnsupportedError
from runner.limits import Limits, Setting, settings_v1, settings_v2

__all__ = ["Cgroup", "Hierarchies", "Limits", "Stats"]

DEFAULT_ROOT = Path("/sys/fs/cgroup")
DEFAULT_PARENT = "pybuild"

_ALWAYS = ("memory", "cpuacct", "pids", "freezer")  # to count what is used and to stop members, limits or not
_PATIENCE = 10.0  # seconds until dying processes count as stuck


class Stats(NamedTuple):
    """What a group has used: bytes, nanoseconds, and whether the kernel killed a member for lack of memory.

    None where the host does not count it.
    """

    memory: int | None
    memory_peak: int | None
    cpu: int | None
    pids: int | None
    oom_killed: bool


class Hierarchies(NamedTuple):
    """What is mounted: the directory of version 2, and that of every version 1 controller."""

    unified: Path | None
    controllers: dict[str, Path]

    @classmethod
    def find(cls, root: Path = DEFAULT_ROOT) -> Hierarchies:
        """Look at `root`: it is version 2 itself, or holds one directory per hierarchy."""
        if (root / "cgroup.controllers").exists():
            return cls(root, {})
        unified, controllers = None, {}
        with suppress(FileNotFoundError):
            for name in sorted(os.listdir(root)):
                path = root / name
                if (path / "cgroup.controllers").exists():
                    unified = path
                elif (path / "cgroup.procs").exists():
                    real = Path(os.path.realpath(path))  # cpu and cpuacct may be links to one directory
                    controllers.update(dict.fromkeys(name.split(","), real))
        return cls(unified, controllers)

    @property
    def version(self) -> str:
        """ "2", "1", "hybrid" or "none"."""
        if self.unified is not None:
            return "hybrid" if self.controllers else "2"
        return "1" if self.controllers else "none"

    def writable(self) -> tuple[str, ...]:
        """The controllers, of either version, in whose root directory the caller may create groups."""
        found = {name for name, path in self.controllers.items() if os.access(path, os.W_OK)}
        if self.unified is not None and os.access(self.unified, os.W_OK):
            found.update(_words(self.unified / "cgroup.controllers"))
        return tuple(sorted(found))


class Cgroup:
    """One container's groups. Methods may be called from any process that knows the id."""

    def __init__(self, unified: Path | None, controllers: dict[str, Path], mounts: Hierarchies) -> None:
        """`unified`, `controllers`: the group's own directories, below those of `mounts`; see `create` and `open`."""
        self._unified = unified
        self._controllers = controllers
        self._mounts = mounts

    @classmethod
    def create(
        cls, id: str, limits: Limits, *, parent: str | None = None, root: Path = DEFAULT_ROOT, counted: bool = True
    ) -> Cgroup:
        """Make the groups `<parent>/<id>` and set the limits; one that exists (and is empty) is taken over.

        Without `counted` there are only the groups that the limits need. Where nothing is limited and the host lets
        nothing be created, the result has no directories and does nothing.
        RunnerError names controller, file and next action where a limit cannot be applied; nothing is left then.
        """
        limits.check(len(os.sched_getaffinity(0)))
        mounts = Hierarchies.find(root)
        needed = {setting.controller for setting in settings_v1(limits)}
        unified, controllers = _plan(id, parent, mounts, {*_ALWAYS, *needed} if counted else needed)
        group = cls(unified if counted or not controllers else None, controllers, mounts)
        try:
            group._make(needed)
            group.update(limits)
        except BaseException:
            with suppress(RunnerError):  # what went wrong first is what the user has to know
                group.remove()
            raise
        return group

    @classmethod
    def open(cls, id: str, *, parent: str | None = None, root: Path = DEFAULT_ROOT) -> Cgroup:
        """The groups that `create` made with the same id and parent, as far as they still exist."""
        mounts = Hierarchies.find(root)
        unified, controllers = _plan(id, parent, mounts, set(mounts.controllers))
        there = {name: path for name, path in controllers.items() if path.is_dir()}
        return cls(unified if unified is not None and unified.is_dir() else None, there, mounts)

    @property
    def directories(self) -> tuple[Path, ...]:
        """The group's directory in every hierarchy it is part of, for `Spec.cgroups` and `Launcher.join`."""
        found = [] if self._unified is None else [self._unified]
        return tuple(dict.fromkeys((*found, *self._controllers.values())))

    def update(self, limits: Limits) -> None:
        """Set limits on the group; RunnerError names what cannot be applied."""
        limits.check(len(os.sched_getaffinity(0)))
        settings = settings_v1(limits) if self._controllers else settings_v2(limits)
        # A limit of memory above the old one of memory and swap is refused: the order depends on what was there.
        by_file = {setting.file: setting for setting in settings}
        memory, swap = by_file.get("memory.limit_in_bytes"), by_file.get("memory.memsw.limit_in_bytes")
        if memory is not None and swap is not None:
            old = _number(self._controllers.get("memory", Path()) / swap.file)
            if old is not None and int(memory.text) > old:
                settings[:2] = [swap, memory]
        for setting in settings:
            self._set(setting)
        if limits.devices and not self._controllers:
            self._filter_devices(limits)

    def pids(self) -> tuple[int, ...]:
        """The members, those of groups below included, as the caller's pid namespace numbers them."""
        directories = self.directories
        if not directories:
            return ()
        return tuple(sorted({int(pid) for path in _tree(directories[0]) for pid in _words(path / "cgroup.procs")}))

    def kill(self) -> None:
        """SIGKILL every member, also those that fork meanwhile; returns when none is left. RunnerError if one stays."""
        if self._unified is not None and (self._unified / "cgroup.kill").exists():
            with suppress(FileNotFoundError):
                (self._unified / "cgroup.kill").write_text("1")
        deadline = time.monotonic() + _PATIENCE
        while members := self.pids():
            if time.monotonic() > deadline:
                raise RunnerError(
                    f"processes {', '.join(map(str, members))} do not end although they were killed",
                    hint="they wait for a device or network file system; see /proc/PID/stack",
                )
            self._signal_all(members)
            time.sleep(0.002)

    def freeze(self) -> None:
        """Stop every member until `thaw`; returns when they have stopped. RunnerError if the host cannot."""
        if self._unified is not None and (self._unified / "cgroup.freeze").exists():
            _write(self._unified / "cgroup.freeze", "1", "cgroup")
            self._await(lambda: "frozen 1" in _text(self._events), "freeze")
        elif "freezer" in self._controllers:
            state = self._controllers["freezer"] / "freezer.state"
            _write(state, "FROZEN", "freezer")
            self._await(lambda: _text(state).strip() == "FROZEN", "freeze")
        else:
            raise UnsupportedError(
                "processes cannot be frozen: this host has no freezer", hint="mount cgroup2, or the freezer controller"
            )

    def thaw(self) -> None:
        """Let members run again."""
        if self._unified is not None and (self._unified / "cgroup.freeze").exists():
            _write(self._unified / "cgroup.freeze", "0", "cgroup")
        elif "freezer" in self._controllers:
            _write(self._controllers["freezer"] / "freezer.state", "THAWED", "freezer")

    def stats(self) -> Stats:
        """What was used until now."""
        if self._controllers:
            memory = self._controllers.get("memory", Path("/nonexistent"))
            return Stats(
                memory=_number(memory / "memory.usage_in_bytes"),
                memory_peak=_number(memory / "memory.max_usage_in_bytes"),
                cpu=_number(self._controllers.get("cpuacct", Path("/nonexistent")) / "cpuacct.usage"),
                pids=_number(self._controllers.get("pids", Path("/nonexistent")) / "pids.current"),
                oom_killed=_fields(memory / "memory.oom_control").get("oom_kill", 0) > 0,
            )
        group = self._unified or Path("/nonexistent")
        used = _fields(group / "cpu.stat").get("usage_usec")
        return Stats(
            memory=_number(group / "memory.current"),
            memory_peak=_number(group / "memory.peak"),
            cpu=None if used is None else used * 1000,
            pids=_number(group / "pids.current"),
            oom_killed=_fields(group / "memory.events").get("oom_kill", 0) > 0,
        )

    def remove(self) -> None:
        """Take the groups away, waiting for members that are dying; RunnerError if they stay. Safe to repeat."""
        for directory in self.directories:
            for path in reversed(list(_tree(directory))):
                _remove_directory(path)
            if directory.parent.name == DEFAULT_PARENT:
                with suppress(OSError):  # others are still in there, or have just taken it away
                    os.rmdir(directory.parent)

    @property
    def _events(self) -> Path:
        return (self._unified or Path()) / "cgroup.events"

    def _make(self, needed: set[str]) -> None:
        """Create the directories; those that nobody asked for by a limit are left out where the host refuses."""
        if self._unified is not None:
            try:
                self._make_unified(needed if not self._controllers else set())
            except RunnerError:
                if needed and not self._controllers:
                    raise
                self._unified = None
        missing = needed - set(self._controllers)
        if missing and (self._unified is None or self._controllers):
            name = sorted(missing)[0]
            raise UnsupportedError(
                f"the {name} limit cannot be applied: this host has no writable {name} controller",
                hint="mount it below /sys/fs/cgroup, or leave the limit out",
            )
        for name, path in list(self._controllers.items()):
            try:
                _make_directory(path, name)
                if name == "cpuset":
                    _inherit_cpuset(self._mounts.controllers[name], path)
            except RunnerError:
                if name in needed:
                    raise
                del self._controllers[name]

    def _make_unified(self, needed: set[str]) -> None:
        mount, path = self._mounts.unified, self._unified
        if mount is None or path is None:
            return
        _make_directory(path, "cgroup")
        wanted = needed - {"devices"}  # a program, not a controller
        for ancestor in [p for p in reversed(path.parents) if p == mount or mount in p.parents]:
            missing = wanted - set(_words(ancestor / "cgroup.subtree_control"))
            for name in sorted(missing):
                _enable(ancestor, name)
        # What is only counted may be missing.
        for ancestor in [p for p in reversed(path.parents) if p == mount or mount in p.parents]:
            offered = set(_words(ancestor / "cgroup.controllers")) - set(_words(ancestor / "cgroup.subtree_control"))
            for name in sorted(offered & {"memory", "pids", "cpu"}):
                with suppress(RunnerError):
                    _enable(ancestor, name)

    def _set(self, setting: Setting) -> None:
        directory = self._controllers.get(setting.controller) if self._controllers else self._unified
        if directory is None:
            raise UnsupportedError(
                f"the limit {setting.file} cannot be applied: no writable {setting.controller} controller here",
                hint="mount it below /sys/fs/cgroup, or leave the limit out",
            )
        path = directory / setting.file
        if setting.optional and not path.exists():
            return
        _write(path, setting.text, setting.controller)

    def _filter_devices(self, limits: Limits) -> None:
        from runner.devicefilter import attach  # noqa: PLC0415 - version 2 with a device limit only

        if self._unified is not None:
            attach(self._unified, limits.allowed_devices)

    def _signal_all(self, members: tuple[int, ...]) -> None:
        """SIGKILL; version 1 freezes first, so that no member forks away from under the list."""
        state = self._controllers.get("freezer", Path("/nonexistent")) / "freezer.state"
        use_freezer = self._unified is None and state.exists()
        if use_freezer:
            _write(state, "FROZEN", "freezer")
            members = self.pids()
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if use_freezer:
            _write(state, "THAWED", "freezer")

    def _await(self, reached: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not reached():
            if time.monotonic() > deadline:
                self.thaw()
                raise RunnerError(f"cannot {what} the container: a process does not stop", hint="it waits for a device")
            time.sleep(0.002)


def _plan(
    id: str, parent: str | None, mounts: Hierarchies, controllers: set[str]
) -> tuple[Path | None, dict[str, Path]]:
    """Where the group's directories are, or will be: that of version 2, and those of the wanted controllers."""
    if not id or "/" in id or id in {".", ".."}:
        raise RunnerError(f"invalid control group name {id!r}", hint="use one path component")
    own = _own_groups()
    unified = None if mounts.unified is None else _place(mounts.unified, own.get(""), parent) / id
    wanted = {name: path for name, path in mounts.controllers.items() if name in controllers}
    return unified, {name: _place(path, own.get(name), parent) / id for name, path in wanted.items()}


def _place(mount: Path, own: str | None, parent: str | None) -> Path:
    """The directory below which a container's group is made in one hierarchy."""
    if parent is not None:
        return mount / parent.strip("/")
    below_own = mount / (own or "").strip("/")
    if os.access(mount, os.W_OK) or not below_own.is_dir():
        return mount / DEFAULT_PARENT
    return below_own / DEFAULT_PARENT


def _own_groups() -> dict[str, str]:
    """The caller's own group by controller, "" for version 2 (cgroups(7), /proc/PID/cgroup)."""
    found = {}
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        _, names, path = line.split(":", 2)
        found.update(dict.fromkeys(names.split(","), path))
    return found


def _make_directory(path: Path, controller: str) -> None:
    for _ in range(100):  # the last user of the parent may take it away between the two calls
        try:
            os.makedirs(path, exist_ok=True)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise RunnerError(
                f"{controller}: {path} cannot be created: {error.strerror}", hint=_hint(error.errno or 0, controller)
            ) from error
        return
    raise RunnerError(f"{controller}: {path} is taken away again and again", hint="try again")


def _remove_directory(path: Path) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            os.rmdir(path)
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != EBUSY or time.monotonic() > deadline:
                raise RunnerError(
                    f"{path} cannot be removed: {error.strerror}", hint="a process is still in it"
                ) from error
            time.sleep(0.002)
        else:
            return


def _inherit_cpuset(mount: Path, path: Path) -> None:
    """A new version 1 cpuset is empty and takes no process; give it, and what lies between, what is above."""
    for directory in [p for p in (*reversed(path.parents), path) if mount in p.parents]:
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not _text(directory / name).strip():
                _write(directory / name, _text(directory.parent / name).strip(), "cpuset")


def _enable(directory: Path, controller: str) -> None:
    if controller not in _words(directory / "cgroup.controllers"):
        raise UnsupportedError(
            f"the {controller} limit cannot be applied: {directory} does not offer that controller",
            hint=f"enable it: echo +{controller} > {directory.parent}/cgroup.subtree_control",
        )
    _write(directory / "cgroup.subtree_control", f"+{controller}", controller)


def _write(path: Path, text: str, controller: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise RunnerError(
            f"{controller}: {path} does not take {text!r}: {error.strerror}", hint=_hint(error.errno or 0, controller)
        ) from error


def _hint(number: int, controller: str) -> str:
    match number:
        case _ if number == ENOENT:
            return f"this kernel has no such {controller} limit; leave it out"
        case _ if number in {EACCES, EPERM, EROFS}:
            return "run as root with a writable /sys/fs/cgroup, or name a parent group that you own"
        case _ if number == EBUSY:
            return "a group with processes of its own cannot pass controllers on, or uses more than the limit already"
        case _ if number in {EINVAL, ENOSPC}:
            return "the value is out of what the host, or the group above, has"
    return "leave the limit out, or look at the kernel's log"


def _tree(directory: Path) -> Iterator[Path]:
    """A group and all below it, parents first."""
    yield directory
    try:
        with os.scandir(directory) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    for path in below:
        yield from _tree(path)


def _text(path: Path) -> str:
    """A file's text; empty where it does not exist (any more)."""
    try:
        return path.read_text()
    except OSError as error:
        if error.errno in {ENOENT, 19, 95}:  # ENODEV, EOPNOTSUPP: the group is gone, or not of that kind
            return ""
        raise


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _number(path: Path) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _fields(path: Path) -> dict[str, int]:
    """The `name number` lines of a file."""
    pairs = (line.split() for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

"""What a container is to be, in the terms of the OCI runtime specification (config.md, config-linux.md).

Values only: it knows neither how a container is made nor where its root filesystem came from. They are named tuples,
since every command that runs something waits for their definition.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from runner.caps import DEFAULT_CAPABILITIES, available

DEFAULT_SHM_SIZE = 64 << 20


class Overlay(NamedTuple):
    """A root filesystem made of layers: `lowers` topmost first, changes go to `upper`.

    Paths are on the host; `upper` and `work` are on one file system and `work` is empty. Without lowers (FROM scratch)
    `upper` itself is the root. The mount exists inside the container's mount namespace only.
    """

    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    read_only: bool = False


class Directory(NamedTuple):
    """A root filesystem that is a directory of the host."""

    path: Path
    read_only: bool = False


Rootfs = Overlay | Directory


class User(NamedTuple):
    """The ids of the process; names are resolved by the caller."""

    uid: int = 0
    gid: int = 0
    additional_gids: tuple[int, ...] = ()
    umask: int = 0o022


class Rlimit(NamedTuple):
    """One resource limit, `type` as in getrlimit(2): `RLIMIT_NOFILE`; -1 is unlimited."""

    type: str
    soft: int
    hard: int


class ConsoleSize(NamedTuple):
    """The size of a terminal in characters."""

    height: int
    width: int


class ProcessSpec(NamedTuple):
    """The first process: `args[0]` is looked up on the PATH of `env` inside the root filesystem.

    `cwd` is absolute and must exist. `env` holds `NAME=value` in order, text with surrogateescape. `capabilities` is
    the bounding set; a process of uid 0 holds all of it, any other none, as with docker.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: frozenset[str] = DEFAULT_CAPABILITIES
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int | None = None
    no_new_privileges: bool = False


class Mount(NamedTuple):
    """One mount, `destination` inside the root filesystem, `options` as in mount(8) and the OCI runtime spec.

    `type` is a file system (`tmpfs`, `proc`, …) or `bind`; then `source` is a path of the host, file or directory.
    """

    destination: bytes
    type: str
    source: str = ""
    options: tuple[str, ...] = ()


class OverlayMount(NamedTuple):
    """Layers shown at `destination`, topmost first; what is written there goes to `upper`, never to the layers."""

    destination: bytes
    lowers: tuple[Path, ...]
    upper: Path
    work: Path
    read_only: bool = False


class FileMount(NamedTuple):
    """A file that exists in memory only, read-only at `destination`; executable if `mode` says so."""

    destination: bytes
    data: bytes
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


AnyMount = Mount | OverlayMount | FileMount


class Device(NamedTuple):
    """A device node made inside the container; `type` is `c`, `b` or `p` (a fifo)."""

    path: bytes
    type: str
    major: int = 0
    minor: int = 0
    file_mode: int = 0o666
    uid: int = 0
    gid: int = 0


class _Fieldless:
    """A value that is told by its class alone."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self)

    def __hash__(self) -> int:
        return hash(type(self))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class NoNetwork(_Fieldless):
    """A network namespace of its own, with nothing but loopback (up)."""

    __slots__ = ()


class HostNetwork(_Fieldless):
    """The caller's network namespace."""

    __slots__ = ()


class JoinNetwork(NamedTuple):
    """An existing network namespace; `path` is opened by the caller: `/proc/PID/ns/net`, `/proc/self/fd/N`."""

    path: str


Network = NoNetwork | HostNetwork | JoinNetwork


class Seccomp(NamedTuple):
    """A system call filter: docker's default profile, or the profile file (docker's JSON format) at `profile`."""

    profile: Path | None = None


DEFAULT_MASKED_PATHS: tuple[bytes, ...] = (
    b"proc/acpi",
    b"proc/asound",
    b"proc/interrupts",
    b"proc/kcore",
    b"proc/keys",
    b"proc/latency_stats",
    b"proc/sched_debug",
    b"proc/scsi",
    b"proc/timer_list",
    b"proc/timer_stats",
    b"sys/devices/virtual/powercap",
    b"sys/firmware",
)
DEFAULT_READONLY_PATHS: tuple[bytes, ...] = (
    b"proc/bus",
    b"proc/fs",
    b"proc/irq",
    b"proc/sys",
    b"proc/sysrq-trigger",
)


def default_mounts(*, shm_size: int = DEFAULT_SHM_SIZE, writable_sys: bool = False) -> tuple[Mount, ...]:
    """Return the mounts every docker container has; `shm_size` in bytes; `writable_sys` as with --privileged."""
    read_only = () if writable_sys else ("ro",)
    quiet = ("nosuid", "noexec", "nodev")
    dev = ("nosuid", "strictatime", "mode=755", "size=65536k")
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5")
    return (
        Mount(destination=b"proc", type="proc", source="proc", options=quiet),
        Mount(destination=b"dev", type="tmpfs", source="tmpfs", options=dev),
        Mount(destination=b"dev/pts", type="devpts", source="devpts", options=pts),
        Mount(destination=b"sys", type="sysfs", source="sysfs", options=(*quiet, *read_only)),
        Mount(destination=b"sys/fs/cgroup", type="cgroup", source="cgroup", options=(*quiet, *read_only)),
        Mount(destination=b"dev/mqueue", type="mqueue", source="mqueue", options=quiet),
        Mount(destination=b"dev/shm", type="tmpfs", source="shm", options=(*quiet, "mode=1777", f"size={shm_size}")),
    )


class Spec(NamedTuple):
    """A whole container.

    `mounts` are made in order of depth, after the root filesystem; their points are created where the root filesystem
    lacks them. `cgroups` are directories of the caller's cgroup mounts (one per v1 hierarchy, or one v2) that the
    process joins before it starts; made and removed by the caller. `init` puts a reaper in as pid 1, as
    `docker run --init` does. `host_devices` adds every device node of the host's /dev.
    """

    rootfs: Rootfs
    process: ProcessSpec
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[AnyMount, ...] = default_mounts()
    devices: tuple[Device, ...] = ()
    host_devices: bool = False
    masked_paths: tuple[bytes, ...] = DEFAULT_MASKED_PATHS
    readonly_paths: tuple[bytes, ...] = DEFAULT_READONLY_PATHS
    sysctl: tuple[tuple[str, str], ...] = ()
    network: Network = NoNetwork()
    cgroups: tuple[Path, ...] = ()
    seccomp: Seccomp | None = Seccomp()
    init: bool = False


def privileged(spec: Spec) -> Spec:
    """Return `spec` as `--privileged` and `RUN --security=insecure` have it.

    All capabilities that this process has, a writable /sys and cgroup, nothing masked or read-only, no filter, the
    devices of the host.
    """
    mounts = tuple(
        mount._replace(options=tuple(option for option in mount.options if option != "ro"))
        if isinstance(mount, Mount) and mount.type in {"sysfs", "cgroup"}
        else mount
        for mount in spec.mounts
    )
    return spec._replace(
        process=spec.process._replace(capabilities=available()),
        mounts=mounts,
        masked_paths=(),
        readonly_paths=(),
        seccomp=None,
        host_devices=True,
    )

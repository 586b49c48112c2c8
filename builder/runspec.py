"""An image and what was asked for → the container's description, its directories and volumes.

The rules are docker's: whose entrypoint, command, user and environment count. It starts nothing.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, assert_never

from builder.errors import BuildError, UsageError
from builder.runoptions import BindVolume, NamedVolume, RunOptions, TmpfsVolume, Volume
from builder.users import User, lookup_user
from layerstore.entry import Entry, Kind
from runner.caps import ALL_CAPABILITIES, DEFAULT_CAPABILITIES
from runner.container import Config
from runner.limits import Limits
from runner.monitor import HOSTNAME, HOSTS, RESOLV_CONF, BridgeNetwork, Bundle, Network
from runner.signals import parse_signal
from runner.spec import (
    DEFAULT_SHM_SIZE,
    ConsoleSize,
    HostNetwork,
    Mount,
    NoNetwork,
    Overlay,
    ProcessSpec,
    Rlimit,
    Seccomp,
    Spec,
    default_mounts,
    privileged,
)
from runner.spec import User as Ids
from runner.volumes import Volumes, new_name

if TYPE_CHECKING:
    from layerstore.images import Image
    from layerstore.view import View
    from runner.ports import Port

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
UPPER, WORK = "upper", "work"
"""The directories of a container that hold what it changes."""

Json = Mapping[str, Any]


class Prepared(NamedTuple):
    """A container that can be made: its record, what its supervisor needs, and the volumes in `bundle`'s order."""

    config: Config
    bundle: Bundle
    volumes: tuple[Volume, ...]
    cwd: str


class Place(NamedTuple):
    """Where a container is to be: id and directory, the store's volumes, the bridge's state, the host's name."""

    id: str
    path: Path
    volumes: Volumes
    bridge_state: Path
    nodename: str


def prepare(options: RunOptions, image: Image, document: Json, view: View, place: Place, *, now: float) -> Prepared:
    """Merge `options` with the image's config (`document`, the whole JSON) into a container to be made at `place`.

    `view` is the image's files, `now` the time in seconds since the epoch. UsageError, UserLookupError, RunnerError.
    """
    own: Json = document.get("config") or {}
    args = command(own, options)
    user = lookup_user(view, options.user if options.user is not None else str(own.get("User") or ""))
    hostname = options.hostname or (place.nodename if options.network == "host" else place.id[:12])
    cwd = posixpath.join("/", options.workdir or str(own.get("WorkingDir") or "/"))
    volumes = _volumes(own, options)
    spec = Spec(
        rootfs=Overlay(
            lowers=tuple(reversed(view.trees)),
            upper=place.path / UPPER,
            work=place.path / WORK,
            read_only=options.read_only,
        ),
        process=_process(own, options, args, user, hostname, cwd),
        hostname=hostname,
        mounts=(
            *default_mounts(shm_size=options.shm_size or DEFAULT_SHM_SIZE),
            *_files(place.path),
            *(_mount(volume, place.volumes) for volume in volumes),
        ),
        init=options.init,
    )
    spec = privileged(spec) if options.privileged else spec
    spec = _secured(spec, options.security_options)
    network = _network(own, options, place.bridge_state)
    bundle = Bundle(
        spec=spec,
        limits=Limits(
            memory=options.memory,
            memory_swap=options.memory_swap,
            cpus=options.cpus,
            cpu_shares=options.cpu_shares,
            cpuset_cpus=options.cpuset_cpus,
            pids=options.pids_limit or None,
            devices=not options.privileged,
        ),
        network=network,
        extra_hosts=options.add_hosts,
        nameservers=options.dns,
    )
    stop_signal = options.stop_signal or str(own.get("StopSignal") or "TERM")
    config = Config(
        id=place.id,
        name=options.name,
        created=now,
        image=options.image,
        image_id=str(image.id),
        layers=tuple(map(str, image.layers)),
        command=args,
        labels=tuple({**(own.get("Labels") or {}), **dict(options.labels)}.items()),
        volumes=tuple(volume.name for volume in volumes if isinstance(volume, NamedVolume)),
        anonymous=tuple(volume.name for volume in volumes if isinstance(volume, NamedVolume) and volume.anonymous),
        terminal=options.terminal,
        detached=options.detach,
        auto_remove=options.remove,
        stop_signal=parse_signal(stop_signal),
        stop_timeout=10 if options.stop_timeout is None else options.stop_timeout,
        network=options.network,
        bridge_state=str(place.bridge_state),
    )
    return Prepared(config=config, bundle=bundle, volumes=volumes, cwd=cwd)


def command(own: Json, options: RunOptions) -> tuple[str, ...]:
    """Return what is executed: entrypoint and arguments, the image's (`own`, its `config`) or the user's.

    Arguments replace the image's command; an entrypoint of one's own drops it (moby `runconfig.Merge`). UsageError if
    nothing is left.
    """
    image_entrypoint, image_command = own.get("Entrypoint") or (), own.get("Cmd") or ()
    if options.entrypoint is None:
        words = (*image_entrypoint, *(options.args or image_command))
    else:
        words = (*((options.entrypoint,) if options.entrypoint else ()), *options.args)
    if not words:
        raise UsageError("no command specified", hint="the image has none: add one after its name")
    return tuple(map(str, words))


def make_directories(prepared: Prepared, view: View, volumes: Volumes) -> None:
    """Make what the container needs on disk before it starts: its upper directory, volumes, working directory.

    `view` is the image's files. A new volume gets what the image has at its place. BuildError, OSError.
    """
    rootfs = prepared.bundle.spec.rootfs
    assert isinstance(rootfs, Overlay), "BUG: containers run on overlays"
    root = view.lstat(b"") or Entry(b"", Kind.DIR, 0o755)
    os.mkdir(rootfs.work, 0o700)
    os.mkdir(rootfs.upper, 0o755)
    _own(os.fsencode(rootfs.upper), root)
    for volume in prepared.volumes:
        match volume:
            case NamedVolume():
                if volumes.create(volume.name) or volumes.is_empty(volume.name):
                    _fill(volume, view, volumes.path(volume.name))
            case BindVolume():
                _make_source(volume)
            case TmpfsVolume():
                pass
            case _:
                assert_never(volume)
    _make_cwd(prepared, view, volumes, os.fsencode(rootfs.upper))


def _process(own: Json, options: RunOptions, args: tuple[str, ...], user: User, hostname: str, cwd: str) -> ProcessSpec:
    size = options.console_size
    return ProcessSpec(
        args=args,
        env=_environment(own, options, user, hostname),
        cwd=posixpath.normpath(cwd),
        user=Ids(uid=user.uid, gid=user.gid, additional_gids=user.additional_gids),
        terminal=options.terminal,
        console_size=ConsoleSize(height=size[0], width=size[1]) if size else None,
        capabilities=_capabilities(options.cap_add, options.cap_drop),
        rlimits=_rlimits(options.ulimits),
    )


def _environment(own: Json, options: RunOptions, user: User, hostname: str) -> tuple[str, ...]:
    """Docker's defaults, then the image's variables, then the user's; HOME from the user database if nobody sets it."""
    found = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if options.terminal:
        found["TERM"] = "xterm"
    for word in own.get("Env") or ():
        key, _, value = str(word).partition("=")
        found[key] = value
    for word in options.env:
        key, equals, value = word.partition("=")
        if equals:
            found[key] = value
        else:
            found.pop(key, None)
    if not found.get("HOME"):
        found["HOME"] = user.home
    return tuple(f"{key}={value}" for key, value in found.items())


def _capabilities(add: Sequence[str], drop: Sequence[str]) -> frozenset[str]:
    """Docker's default set, changed as `--cap-add` and `--cap-drop` say (moby `caps.TweakCapabilities`)."""
    added, dropped = _capability_names(add, "--cap-add"), _capability_names(drop, "--cap-drop")
    if "ALL" in added:
        return ALL_CAPABILITIES - dropped
    if "ALL" in dropped:
        return added
    return (DEFAULT_CAPABILITIES - dropped) | added


def _capability_names(words: Sequence[str], option: str) -> frozenset[str]:
    found = set()
    for word in words:
        name = word.strip().upper()
        if name == "ALL":
            found.add(name)
            continue
        name = name if name.startswith("CAP_") else f"CAP_{name}"
        if name not in ALL_CAPABILITIES:
            raise UsageError(f"{option}: unknown capability {word!r}", hint="capabilities(7) lists them; ALL means all")
        found.add(name)
    return frozenset(found)


def _rlimits(words: Sequence[str]) -> tuple[Rlimit, ...]:
    if not words:
        return ()
    from builder.ulimits import parse_ulimit  # noqa: PLC0415 - few containers have limits

    return tuple(parse_ulimit(word) for word in words)


def _secured(spec: Spec, words: Sequence[str]) -> Spec:
    for word in words:
        # The older form has a colon, as in seccomp:unconfined.
        match = word.partition("=" if "=" in word else ":")
        match match:
            case ("no-new-privileges", _, "" | "true"):
                spec = spec._replace(process=spec.process._replace(no_new_privileges=True))
            case ("no-new-privileges", _, "false"):
                spec = spec._replace(process=spec.process._replace(no_new_privileges=False))
            case ("seccomp", _, "unconfined"):
                spec = spec._replace(seccomp=None)
            case ("seccomp", _, path) if path:
                spec = spec._replace(seccomp=Seccomp(profile=Path(path)))
            case ("systempaths", _, "unconfined"):
                spec = spec._replace(masked_paths=(), readonly_paths=())
            case _:
                raise UsageError(
                    f"--security-opt: {word!r} is not known",
                    hint="use no-new-privileges, seccomp=unconfined, seccomp=FILE or systempaths=unconfined",
                )
    return spec


def _network(own: Json, options: RunOptions, state: Path) -> Network:
    ports = _ports(own, options)
    if ports and options.network != "bridge":
        raise UsageError(
            f"ports cannot be published with --network {options.network}",
            hint="use the bridge network, or leave -p and -P out",
        )
    match options.network:
        case "none":
            return NoNetwork()
        case "host":
            return HostNetwork()
        case "bridge":
            return BridgeNetwork(state=state, ports=ports)
    raise UsageError(f"there is no network {options.network!r}", hint="use bridge, host or none")


def _ports(own: Json, options: RunOptions) -> tuple[Port, ...]:
    if not options.publish and not options.publish_all:
        return ()
    from runner.ports import parse_ports  # noqa: PLC0415 - it imports the standard library's address types

    ports = [port for text in options.publish for port in parse_ports(text)]
    if options.publish_all:
        inside = {(port.container_port, port.protocol) for port in ports}
        for text in sorted(own.get("ExposedPorts") or ()):
            ports += [port for port in parse_ports(text) if (port.container_port, port.protocol) not in inside]
    return tuple(ports)


def _volumes(own: Json, options: RunOptions) -> tuple[Volume, ...]:
    """What is mounted: what was asked for, and an anonymous volume for every VOLUME of the image nothing covers."""
    wanted: dict[str, Volume] = {}
    for volume in options.volumes:
        if volume.target in wanted:
            raise UsageError(f"duplicate mount point {volume.target}", hint="give each target once")
        wanted[volume.target] = volume
    for text in own.get("Volumes") or ():
        target = posixpath.normpath("/" + str(text).lstrip("/"))
        wanted.setdefault(target, NamedVolume(name="", target=target, anonymous=True))
    return tuple(
        volume._replace(name=new_name()) if isinstance(volume, NamedVolume) and volume.anonymous else volume
        for volume in wanted.values()
    )


def _mount(volume: Volume, volumes: Volumes) -> Mount:
    target = os.fsencode(volume.target.lstrip("/"))
    match volume:
        case NamedVolume():
            source, how = volumes.path(volume.name), ("rbind", "ro" if volume.read_only else "rw")
            return Mount(destination=target, type="bind", source=str(source), options=how)
        case BindVolume():
            access = "ro" if volume.read_only else "rw"
            options = ("rbind", access, volume.propagation)
            return Mount(destination=target, type="bind", source=str(volume.source), options=options)
        case TmpfsVolume():
            # Docker's defaults, which the user's own options come after.
            defaults = ("nosuid", "nodev", "noexec")
            return Mount(destination=target, type="tmpfs", source="tmpfs", options=(*defaults, *volume.options))
        case _:
            assert_never(volume)


def _files(path: Path) -> tuple[Mount, ...]:
    return tuple(
        Mount(destination=b"etc/" + name.encode(), type="bind", source=str(path / name), options=("rw",))
        for name in (HOSTS, RESOLV_CONF, HOSTNAME)
    )


def _make_source(volume: BindVolume) -> None:
    if volume.source.exists():
        return
    if not volume.create:
        raise UsageError(f"bind source path does not exist: {volume.source}", hint="make it, or use -v, which does")
    volume.source.mkdir(parents=True, exist_ok=True)


def _fill(volume: NamedVolume, view: View, path: Path) -> None:
    """Give an empty volume what the image has at its place, its root's owner and mode included (as docker does)."""
    inside = view.resolve(os.fsencode(volume.target.lstrip("/")))
    found = view.lstat(inside)
    if found is None or found.kind is not Kind.DIR:
        return
    if volume.copy and view.listdir(inside):
        from builder.copy import CopySpec, PathSource, plan_copy, select  # noqa: PLC0415 - for volumes with content
        from builder.writetree import write_tree  # noqa: PLC0415

        spec = CopySpec(sources=(PathSource(inside),), dest=b"/")
        write_tree(plan_copy(spec, select(spec, view), None).entries(), path)
    if volume.copy:
        _own(os.fsencode(path), found)


def _make_cwd(prepared: Prepared, view: View, volumes: Volumes, upper: bytes) -> None:
    """Make the working directory where it is missing, root's and 0755, as docker does.

    Below a mount it is made in what is mounted, unless that is in memory.
    """
    cwd = prepared.cwd
    below = [volume for volume in prepared.volumes if posixpath.join(cwd, "").startswith(volume.target + "/")]
    if not below:
        path = view.resolve(os.fsencode(cwd))
        found = view.lstat(path)
        if found is None:
            _make_path(upper, path.split(b"/"), view)
        elif found.kind is not Kind.DIR:
            raise BuildError(f"the working directory {cwd} is not a directory", hint="choose another one with -w")
        return
    volume = max(below, key=lambda volume: len(volume.target))
    rest = [os.fsencode(part) for part in posixpath.normpath(cwd)[len(volume.target) :].split("/") if part]
    match volume:
        case NamedVolume():
            _make_path(os.fsencode(volumes.path(volume.name)), rest, None)
        case BindVolume():
            _make_path(os.fsencode(volume.source), rest, None)
        case TmpfsVolume():
            pass
        case _:
            assert_never(volume)


def _make_path(root: bytes, parts: Sequence[bytes], view: View | None) -> None:
    """Make directories below `root`, never through a symlink; one that `view` has is given its owner and mode there."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(root, flags)
    try:
        for depth, part in enumerate(parts, 1):
            below = view.lstat(b"/".join(parts[:depth])) if view is not None else None
            try:
                os.mkdir(part, 0o755, dir_fd=fd)
                made = True
            except FileExistsError:
                made = False
            try:
                inner = os.open(part, flags, dir_fd=fd)
            except OSError:
                # A link or a file of the user's own: what the working directory is then shows when it is entered.
                return
            os.close(fd)
            fd = inner
            if made:
                _own(fd, below or Entry(b"", Kind.DIR, 0o755))
    finally:
        os.close(fd)


def _own(directory: int | bytes, like: Entry) -> None:
    os.chown(directory, like.uid, like.gid)
    os.chmod(directory, stat.S_IMODE(like.mode))
    for name, value in like.xattrs:
        os.setxattr(directory, name, value)

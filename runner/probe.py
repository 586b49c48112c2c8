"""What this host lets pybuild do: every ability tried in a forked child, and the rung of the ladder that follows.

The rungs, best first: 1 root with namespaces and overlayfs; 2 user namespaces with subordinate ids; 3 a user namespace
with one id; 4 chroot on a copy. 0 means that none of them can be had. Nothing a child does outlives it.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from errno import EINVAL
from pathlib import Path

from runner import caps, firewall, nft, syscalls
from runner.cgroups import DEFAULT_ROOT, Hierarchies
from runner.errors import RunnerError
from runner.ports import Port

_NAMESPACES = (
    syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_STAGE = b"/sys"  # covered inside a child's own mount namespace: a directory that every system has
_SIOCBRADDBR = 0x89A0
_RETURN_ALLOW = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW
_HELPERS = ("pasta", "slirp4netns")
_BINFMT = "/proc/sys/fs/binfmt_misc"
_ENOUGH_IDS = 65_536


@dataclass(frozen=True)
class Abilities:
    """What `probe` found; `rung` and `missing` say what it means."""

    uid: int
    capabilities: frozenset[str]
    namespaces: bool
    """Mount, pid, net, ipc, uts and cgroup namespaces can be made as the caller is."""
    user_namespaces: bool
    """A user namespace with the caller's own id can be made and mounts a tmpfs."""
    overlay_root: bool
    overlay_userns: bool
    new_mount_api: bool
    lowerdir_plus: bool
    seccomp: bool
    cgroup_version: str
    """"1", "2", "hybrid" or "none"."""
    cgroup_controllers: tuple[str, ...]
    """Those in which the caller may create groups."""
    subuids: int
    """How many subordinate user ids the caller has, or group ids if those are fewer."""
    newuidmap: bool
    net_admin: bool
    bridge: bool
    nftables: bool
    """The rules that a bridge needs are accepted: NAT, connection tracking, fib."""
    rootless_network: tuple[str, ...]
    """Those of pasta and slirp4netns that are on the path."""
    binfmt: tuple[str, ...]
    """Names of the enabled handlers of foreign programs, such as qemu-aarch64."""
    rung: int
    missing: tuple[str, ...]
    """What the next better rung (or, on the first, the whole of it) needs, in plain words."""


def probe(
    *,
    path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    cgroup_root: Path = DEFAULT_ROOT,
) -> Abilities:
    """Try everything; takes about 50 ms. `path` is searched for helper programs.

    To be called while the process has one thread: it forks.
    """
    effective = syscalls.capget()[0]
    capabilities = frozenset(name for n, name in enumerate(caps.CAPABILITIES) if effective >> n & 1)
    hierarchies = Hierarchies.find(cgroup_root)
    namespaces = _works(lambda: syscalls.unshare(_NAMESPACES))
    in_user_namespace = _works(lambda: _stage(user=True))
    overlay_root = namespaces and _works(lambda: _overlay(user=False))
    overlay_userns = in_user_namespace and _works(lambda: _overlay(user=True))
    ids = _subordinate_ids(os.getuid())
    helper = _on_path("newuidmap", path) and _on_path("newgidmap", path)
    rung = _rung(
        overlay_root=overlay_root,
        overlay_userns=overlay_userns,
        subordinate=ids >= _ENOUGH_IDS and helper,
        chroot="CAP_SYS_CHROOT" in capabilities,
    )
    bridge = namespaces and _works(_make_bridge)
    nftables = namespaces and _works(_make_rules)
    return Abilities(
        uid=os.getuid(),
        capabilities=capabilities,
        namespaces=namespaces,
        user_namespaces=in_user_namespace,
        overlay_root=overlay_root,
        overlay_userns=overlay_userns,
        new_mount_api=_works(lambda: _open_context(user=not namespaces)),
        lowerdir_plus=_works(lambda: _lowerdir_plus(user=not namespaces)),
        seccomp=_works(_filter),
        cgroup_version=hierarchies.version,
        cgroup_controllers=hierarchies.writable(),
        subuids=ids,
        newuidmap=helper,
        net_admin="CAP_NET_ADMIN" in capabilities,
        bridge=bridge,
        nftables=nftables,
        rootless_network=tuple(name for name in _HELPERS if _on_path(name, path)),
        binfmt=_handlers(),
        rung=rung,
        missing=_missing(
            rung,
            admin="CAP_SYS_ADMIN" in capabilities,
            namespaces=namespaces,
            network=bridge and nftables,
            user=in_user_namespace,
            overlay_userns=overlay_userns,
            ids=ids,
            helper=helper,
        ),
    )


def _rung(*, overlay_root: bool, overlay_userns: bool, subordinate: bool, chroot: bool) -> int:
    if overlay_root:
        return 1
    if overlay_userns:
        return 2 if subordinate else 3
    return 4 if chroot else 0


def _missing(
    rung: int,
    *,
    admin: bool,
    namespaces: bool,
    network: bool,
    user: bool,
    overlay_userns: bool,
    ids: int,
    helper: bool,
) -> tuple[str, ...]:
    """What keeps the host from the next better rung; on rung 1, from bridge networks."""
    found = []
    if rung == 1:
        if not network:
            found.append("bridge networks need CAP_NET_ADMIN, CONFIG_BRIDGE and nf_tables with NAT in the kernel")
    elif rung == 2:
        found += _missing_for_root(admin=admin, namespaces=namespaces)
    elif rung == 3:
        if not helper:
            found.append("newuidmap and newgidmap (package uidmap)")
        if ids < _ENOUGH_IDS:
            found.append(
                f"{_ENOUGH_IDS} subordinate ids in /etc/subuid and /etc/subgid (usermod --add-subuids, --add-subgids)"
            )
    elif not user:
        found += _missing_for_root(admin=admin, namespaces=namespaces)
        found.append(
            "or user namespaces (sysctl user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns=0)"
        )
    elif not overlay_userns:
        found.append("overlayfs in a user namespace (Linux 5.11 or later)")
    return tuple(found)


def _missing_for_root(*, admin: bool, namespaces: bool) -> list[str]:
    if not admin:
        return [
            "root with CAP_SYS_ADMIN (for a container: --privileged, or --cap-add SYS_ADMIN and no seccomp profile)"
        ]
    if not namespaces:
        return ["mount, pid, net, ipc, uts and cgroup namespaces, which something forbids (a seccomp profile?)"]
    return ["overlayfs in the kernel (CONFIG_OVERLAY_FS, or modprobe overlay)"]


def _works(action: Callable[[], object]) -> bool:
    """Whether `action` succeeds in a child of its own, with which all it does vanishes."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except (OSError, RunnerError):
            pass
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0


def _stage(*, user: bool) -> None:
    """A mount namespace of its own, in a user namespace of its own on request, with an empty tmpfs on `_STAGE`."""
    uid, gid = os.getuid(), os.getgid()
    syscalls.unshare(syscalls.CLONE_NEWNS | (syscalls.CLONE_NEWUSER if user else 0))
    if user:
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    syscalls.mount(None, b"/", None, syscalls.MS_REC | syscalls.MS_PRIVATE)
    syscalls.mount(b"tmpfs", _STAGE, b"tmpfs", 0)


def _overlay(*, user: bool) -> None:
    _stage(user=user)
    for name in (b"lower", b"upper", b"work", b"merged"):
        os.mkdir(_STAGE + b"/" + name)
    options = b"lowerdir=%b/lower,upperdir=%b/upper,workdir=%b/work" % (_STAGE, _STAGE, _STAGE)
    syscalls.mount(b"overlay", _STAGE + b"/merged", b"overlay", 0, options + (b",userxattr" if user else b""))


def _open_context(*, user: bool) -> None:
    _stage(user=user)
    syscalls.fsopen(b"tmpfs")


def _lowerdir_plus(*, user: bool) -> None:
    _stage(user=user)
    context = syscalls.fsopen(b"overlay")
    syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, b"lowerdir+", _STAGE)


def _filter() -> None:
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.seccomp(_RETURN_ALLOW)


def _make_bridge() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, _SIOCBRADDBR, b"probe\0")


def _make_rules() -> None:
    syscalls.unshare(syscalls.CLONE_NEWNET)
    redirect = firewall.Redirect(Port(80, 80), "192.0.2.2")
    firewall.apply("probe", "192.0.2.0", 24, [redirect])
    if (nft.IPV4, "probe") not in nft.tables():
        raise OSError(EINVAL, "the rules vanished")


def _subordinate_ids(uid: int) -> int:
    """The sum of the caller's ranges (subuid(5), subgid(5)), the smaller of both files."""
    names = {str(uid)}
    with suppress(KeyError):
        names.add(pwd.getpwuid(uid).pw_name)
    return min(_ids_in(path, names) for path in ("/etc/subuid", "/etc/subgid"))


def _ids_in(path: str, names: set[str]) -> int:
    total = 0
    with suppress(OSError), open(path) as file:
        for line in file:
            fields = line.strip().split(":")
            if len(fields) == 3 and fields[0] in names and fields[2].isdigit():
                total += int(fields[2])
    return total


def _on_path(program: str, path: str) -> bool:
    return any(os.access(os.path.join(directory, program), os.X_OK) for directory in path.split(":") if directory)


def _handlers() -> tuple[str, ...]:
    found = []
    with suppress(OSError):
        for name in sorted(os.listdir(_BINFMT)):
            if name in {"register", "status"}:
                continue
            with open(f"{_BINFMT}/{name}") as file:
                if file.readline().strip() == "enabled":
                    found.append(name)
    return tuple(found)

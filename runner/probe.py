"""What this host lets pybuild do: every ability tried for real in a forked child, and the rung of the ladder that follows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Abilities:
    """What `probe` found; see `rung` and `missing` for what it means."""

    uid: int
    capabilities: frozenset[str]
    user_namespaces: bool
    overlay_root: bool
    overlay_userns: bool
    new_mount_api: bool
    lowerdir_plus: bool
    seccomp: bool
    cgroup_version: str  # "1", "2", "hybrid" or "none"
    cgroup_controllers: tuple[str, ...]  # those in which the caller may create groups
    subuids: int  # how many subordinate ids the user has
    newuidmap: bool
    net_admin: bool
    nftables: bool
    rootless_network: tuple[str, ...]  # pasta, slirp4netns, as found on PATH
    binfmt: tuple[str, ...]
    rung: int
    missing: tuple[str, ...]  # what the next better rung needs, in words; empty on the first


def probe(*, path: str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin") -> Abilities:
    """Try everything; nothing is left behind. `path` is searched for helper programs."""
    raise NotImplementedError

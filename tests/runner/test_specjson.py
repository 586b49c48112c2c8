"""Specifications survive their way through JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from runner import (
    ConsoleSize,
    Device,
    Directory,
    FileMount,
    HostNetwork,
    JoinNetwork,
    Mount,
    Overlay,
    OverlayMount,
    ProcessSpec,
    Rlimit,
    Seccomp,
    Spec,
    SpecError,
    User,
    default_mounts,
)
from runner.specjson import dumps, loads

ODD = os.fsdecode(b"\xff")
PLAIN = Spec(rootfs=Directory(path=Path("/r"), read_only=True), process=ProcessSpec(args=("true",)))
FULL = Spec(
    rootfs=Overlay(lowers=(Path("/a"), Path("/b")), upper=Path("/u"), work=Path("/w"), read_only=True),
    process=ProcessSpec(
        args=("sh", "-c", ODD),
        env=(f"A={ODD}",),
        cwd="/here",
        user=User(uid=1, gid=2, additional_gids=(3, 4), umask=0o77),
        terminal=True,
        console_size=ConsoleSize(height=1, width=2),
        capabilities=frozenset({"CAP_KILL"}),
        rlimits=(Rlimit(type="RLIMIT_CORE", soft=0, hard=-1),),
        oom_score_adj=7,
        no_new_privileges=True,
    ),
    hostname="h",
    domainname="d",
    mounts=(
        *default_mounts(),
        Mount(destination=b"odd/\xff", type="bind", source="/x", options=("ro",)),
        OverlayMount(destination=b"o", lowers=(Path("/a"),), upper=Path("/u"), work=Path("/w"), read_only=True),
        FileMount(destination=b"f", data=b"\0\xff", mode=0o755, uid=1, gid=2),
    ),
    devices=(Device(path=b"/dev/x", type="b", major=1, minor=2, file_mode=0o600, uid=3, gid=4),),
    host_devices=True,
    masked_paths=(b"proc/x",),
    readonly_paths=(),
    sysctl=(("net.a", "1"),),
    network=JoinNetwork("/proc/1/ns/net"),
    cgroups=(Path("/c"),),
    seccomp=Seccomp(profile=Path("/p.json")),
    init=True,
)
OPEN = Spec(
    rootfs=Overlay(lowers=(), upper=Path("/u"), work=Path("/w")),
    process=ProcessSpec(args=("true",)),
    network=HostNetwork(),
    seccomp=None,
)


@pytest.mark.parametrize("spec", [PLAIN, FULL, OPEN], ids=["plain", "full", "open"])
def test_round_trip(spec: Spec) -> None:
    """What was written is read back equal, every field of it."""
    assert loads(dumps(spec)) == spec


def test_words_are_those_of_the_runtime_spec() -> None:
    """The document is config.json of the OCI runtime spec where that has a word."""
    document = json.loads(dumps(FULL))

    assert document["process"]["user"] == {"uid": 1, "gid": 2, "umask": 0o77, "additionalGids": [3, 4]}
    assert document["linux"]["namespaces"][-1] == {"type": "network", "path": "/proc/1/ns/net"}
    assert document["mounts"][0]["destination"] == "/proc"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"linux": 1, "pybuild": 2}'])
def test_what_is_no_specification(text: str) -> None:
    """Anything else is refused with the next action."""
    with pytest.raises(SpecError) as caught:
        loads(text)

    assert caught.value.hint

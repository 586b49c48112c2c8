"""The group of a build's steps: device nodes may be made, those of the host's disks and memory not opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from runner import Launcher, UnsupportedError
from runner.cgroups import Cgroup, Hierarchies
from runner.devices import DeviceGroup
from runner.launcher import GROUP_PREFIX
from runner.limits import Limits
from tests.runner.conftest import Bench

pytestmark = pytest.mark.root

SCRIPT = """
for node in "b 7 0" "c 1 1" "c 10 237" "b 254 0"; do
    mknod /node $node && (: < /node) 2>&1
    mknod /dev/node $node && (: < /dev/node) 2>&1
    rm /node /dev/node
done
mknod /null c 1 3 && echo x > /null && echo null works
head -c 3 /dev/zero | wc -c
"""


def groups() -> list[Path]:
    """All groups of steps there are."""
    found = Hierarchies.find()
    mounts = {*found.controllers.values(), *((found.unified,) if found.unified is not None else ())}
    return sorted(path for mount in mounts for path in mount.glob(f"pybuild/{GROUP_PREFIX}*"))


def test_steps_make_nodes_and_do_not_open_them(bench: Bench) -> None:
    """Root in a container may make a node of any device, in its root and in /dev; only docker's defaults open."""
    before = groups()
    with Launcher.start() as launcher:
        group = DeviceGroup.confine(launcher)
        text = replace(bench, launcher=launcher).sh(SCRIPT)
    group.remove()
    group.remove()
    assert 8 == text.count("Operation not permitted"), text
    assert ["null works", "3"] == text.splitlines()[-2:]
    assert before == groups()


def test_what_a_killed_build_left_goes_with_the_next() -> None:
    """An empty group of steps is taken away by the next build; one with members stays."""
    dead = Cgroup.create(f"{GROUP_PREFIX}dead", Limits(devices=True), counted=False)
    with Launcher.start() as first, Launcher.start() as second:
        living = DeviceGroup.confine(first)
        assert not any(path.exists() for path in dead.directories)
        kept = groups()
        other = DeviceGroup.confine(second)
        assert set(kept) < set(groups())
    other.remove()
    living.remove()


def test_host_without_groups(tmp_path: Path) -> None:
    """A host that cannot confine steps says so."""
    with Launcher.start() as launcher, pytest.raises(UnsupportedError, match="devices"):
        DeviceGroup.confine(launcher, root=tmp_path)

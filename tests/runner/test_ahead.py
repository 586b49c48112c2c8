"""Containers that are born before they are asked for: they are like any other, and nothing of one that is not needed
stays."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from runner import ExitStatus, HostNetwork, JoinNetwork, Launcher, NoNetwork, SetupError, Spec, default_mounts
from runner.network import NetworkNamespace
from tests.runner.conftest import Bench

LOOK = """
sed 's/^[0-9]* [0-9]* [0-9]*:[0-9]* //; s/ master:[0-9]*//; s/,uuid=on//' /proc/self/mountinfo
grep -E 'Cap|Seccomp|NoNewPrivs' /proc/self/status; cat /proc/self/cgroup; hostname; umask; tty
ls -lR /dev | grep -v total; ls /sys/class/net; ls /proc/self/fd; echo $$; cat /proc/keys /proc/sys/kernel/hostname
(echo x >/proc/sys/kernel/hostname) 2>&1; true
"""


def spawn(bench: Bench, spec: Spec, *, more: bool) -> str:
    """Run `spec` with what is expected after it, and return its output."""
    read, write = os.pipe()
    with open(os.devnull, "rb") as null, open(read, "rb") as output:
        try:
            process = bench.launcher.spawn(spec, stdin=null.fileno(), stdout=write, stderr=write, more=more)
        finally:
            os.close(write)
        text = output.read().decode()
        assert (ExitStatus(0, None), text) == (process.wait(timeout=20), text)
    return text


def children(pid: int) -> list[int]:
    """The processes that a launcher has given birth to."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.parametrize("network", ["none", "host", "join"])
def test_one_born_ahead_is_like_any_other(bench: Bench, network: str) -> None:
    """Mounts, devices, interfaces, privileges, descriptors: a container cannot tell when it was born."""
    with NetworkNamespace.create() as namespace:
        kind = {"none": NoNetwork(), "host": HostNetwork(), "join": JoinNetwork(namespace.path)}[network]
        spec = bench.spec("/bin/sh", "-c", LOOK, network=kind, hostname="box")
        first = spawn(bench, spec, more=True)
        (expected,) = children(bench.launcher.pid)
        second = spawn(bench, spec, more=False)

    assert first == second
    assert [] == children(bench.launcher.pid)
    assert "/proc/keys" in first
    assert not Path(f"/proc/{expected}").exists()


def test_another_kind_than_expected(bench: Bench) -> None:
    """What was expected has another network or another /dev/shm: it is given up, and the container is as asked for."""
    look = "df -k /dev/shm | tail -1 | awk '{print $2}'; ls /sys/class/net | wc -l"
    mounts = default_mounts(shm_size=1 << 20)
    small = bench.spec("/bin/sh", "-c", look, mounts=mounts)

    assert "65536\n1\n" == spawn(bench, bench.spec("/bin/sh", "-c", look), more=True)
    assert "1024\n1\n" == spawn(bench, small, more=True)
    assert ["1024"] == spawn(bench, small._replace(network=HostNetwork()), more=True).split()[:1]
    assert "65536\n1\n" == spawn(bench, bench.spec("/bin/sh", "-c", look), more=False)
    assert [] == children(bench.launcher.pid)


def test_devices_are_each_ones_own(bench: Bench) -> None:
    """What a container leaves in /dev and /dev/shm, the next one, born beside it, does not see."""
    spec = bench.spec("/bin/sh", "-c", "ls /dev /dev/shm; touch /dev/mine /dev/shm/mine")

    assert spawn(bench, spec, more=True) == spawn(bench, spec, more=False)


def test_the_expected_one_is_killed(bench: Bench) -> None:
    """Somebody kills the process that waits: the next container is born as if there had been none."""
    spec = bench.spec("/bin/echo", "alive")
    spawn(bench, spec, more=True)
    (expected,) = children(bench.launcher.pid)
    os.kill(expected, signal.SIGKILL)
    while Path(f"/proc/{expected}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.001)

    assert "alive\n" == spawn(bench, spec, more=False)


def test_a_failure_is_told_to_who_asks(bench: Bench) -> None:
    """A mount that the kernel refuses is the same error whether it was tried before or after."""
    mounts = tuple(
        mount._replace(options=(*mount.options, "nonsense=1")) if mount.destination == b"dev/shm" else mount
        for mount in default_mounts()
    )
    spec = bench.spec("true", mounts=mounts)
    told = []
    for more in (True, False):
        with pytest.raises(SetupError) as caught:
            bench.launcher.spawn(spec, stdin=0, stdout=1, stderr=2, more=more)
        told.append((caught.value.stage, caught.value.errno, caught.value.path))

    assert told[0] == told[1]
    assert told[0][0] == "mounts"


@pytest.mark.parametrize("end", ["close", "kill"])
def test_nothing_expected_outlives_the_launcher(base: Path, tmp_path: Path, end: str) -> None:
    """Closed or killed, the launcher takes what it expected along."""
    (tmp_path / "upper").mkdir()
    (tmp_path / "work").mkdir()
    launcher = Launcher.start()
    bench = Bench(launcher, base, tmp_path / "upper", tmp_path / "work")
    spawn(bench, bench.spec("true"), more=True)
    (expected,) = children(launcher.pid)
    if end == "kill":
        os.kill(launcher.pid, signal.SIGKILL)
    launcher.close()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{expected}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.001)

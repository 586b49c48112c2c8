"""Control groups: version 1 and the hybrid's version 2 side for real, version 2 limits on a tree that looks like it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cgroups import DEFAULT_ROOT, Cgroup, Hierarchies, Limits
from runner.devicefilter import attach
from runner.errors import RunnerError
from runner.limits import DEFAULT_DEVICES, settings_v1, settings_v2

real = pytest.mark.skipif(
    "memory" not in Hierarchies.find().controllers or os.getuid() != 0, reason="needs writable version 1 controllers"
)
PARENT = f"pbtest-{os.getpid()}"


def groups() -> list[str]:
    """Every directory that a test may have left below any hierarchy."""
    return sorted(str(path) for path in DEFAULT_ROOT.glob(f"*/{PARENT}/*") if path.is_dir())


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    yield
    assert [] == groups()
    for path in DEFAULT_ROOT.glob(f"*/{PARENT}"):
        path.rmdir()


def create(limits: Limits | None = None, name: str = "one") -> Cgroup:
    return Cgroup.create(name, limits or Limits(), parent=PARENT)


def start(group: Cgroup, script: str) -> subprocess.Popen[str]:
    """A shell that joins the group and runs `script`."""
    join = "; ".join(f"echo $$ > {path}/cgroup.procs" for path in group.directories)
    return subprocess.Popen(
        ["sh", "-c", f"{join}; {script}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def settled(group: Cgroup, count: int) -> tuple[int, ...]:
    deadline = time.monotonic() + 5
    while len(group.pids()) != count and time.monotonic() < deadline:
        time.sleep(0.005)
    return group.pids()


@real
def test_limits_are_written() -> None:
    """Every limit arrives in the kernel's files, swap as docker's default."""
    group = create(
        Limits(
            memory=64 << 20,
            memory_reservation=32 << 20,
            cpus=0.5,
            cpu_shares=512,
            cpuset_cpus="0",
            cpuset_mems="0",
            pids=20,
        )
    )
    directories = {path.parts[4]: path for path in group.directories}
    read = {
        name: (directories[name.split(".")[0]] / name).read_text().strip()
        for name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes")
    }
    cpu = [
        (directories["cpu"] / f"cpu.{name}").read_text().strip() for name in ("cfs_quota_us", "cfs_period_us", "shares")
    ]
    sets = [(directories["cpuset"] / f"cpuset.{name}").read_text().strip() for name in ("cpus", "mems")]
    group.remove()

    assert [str(64 << 20), str(128 << 20), str(32 << 20)] == list(read.values())
    assert ["50000", "100000", "512"] == cpu
    assert ["0", "0"] == sets


@real
def test_memory_limit_kills_and_is_told() -> None:
    """A process that takes more memory than allowed is killed, and the group says so."""
    group = create(Limits(memory=32 << 20, memory_swap=32 << 20))
    paths = [str(path / "cgroup.procs") for path in group.directories]
    program = f"import os\nfor p in {paths}: open(p, 'w').write(str(os.getpid()))\nb = bytearray(b'x') * (200 << 20)"
    status = subprocess.run([sys.executable, "-S", "-c", program], check=False).returncode
    stats = group.stats()
    group.remove()

    assert (-9, True) == (status, stats.oom_killed)
    assert stats.memory_peak is not None
    assert stats.memory_peak <= 32 << 20
    assert (stats.cpu or 0) > 0


@real
def test_pids_limit() -> None:
    """No more processes than allowed."""
    group = create(Limits(pids=3))
    shell = start(group, "sleep 60 & sleep 60 & sleep 60 & wait")
    status = shell.wait(10)
    group.kill()
    output = shell.communicate()[0]
    group.remove()

    assert (True, True) == (status != 0, "fork" in output)


@real
def test_device_limit() -> None:
    """Docker's default devices work, others do not, and a rule adds one."""
    script = "head -c1 /dev/zero | wc -c; head -c0 /dev/kmsg && echo kmsg"
    outputs = []
    for limits in (Limits(devices=True), Limits(devices=True, device_rules=("c 1:11 r",))):
        group = create(limits)
        outputs.append(start(group, script).communicate(timeout=10)[0].splitlines())
        group.remove()

    assert "1" == outputs[0][0]
    assert "not permitted" in outputs[0][1]
    assert ["1", "kmsg"] == outputs[1]


@pytest.mark.skipif(Hierarchies.find().unified is None or os.getuid() != 0, reason="needs a writable cgroup2 mount")
def test_device_program() -> None:
    """Version 2: the program lets default devices be opened and any node be made, and nothing else."""
    unified = Hierarchies.find().unified
    assert unified is not None
    path = unified / PARENT / "devices"
    path.mkdir(parents=True)
    group = Cgroup(path, {}, Hierarchies(unified, {}))
    attach(path, (*DEFAULT_DEVICES, "c 1:11 r"))
    script = (
        "head -c1 /dev/zero | wc -c; head -c0 /dev/kmsg && echo kmsg; "
        "(echo x > /dev/kmsg) 2>/dev/null || echo refused; "
        "d=$(mktemp -d); mknod $d/n b 7 200 && echo made; head -c0 $d/n 2>/dev/null || echo closed; rm -r $d"
    )
    output = start(group, script).communicate(timeout=10)[0].split()
    group.remove()

    assert ["1", "kmsg", "refused", "made", "closed"] == output


@real
@pytest.mark.parametrize("version", ["hybrid", "1"])
def test_freeze_thaw_kill(version: str) -> None:
    """Frozen members do nothing, thawed ones go on, killed ones are gone, those that fork all the time included."""
    mounts = Hierarchies.find()
    group = create()
    if version == "1":
        whole, group = group, Cgroup(None, {"freezer": mounts.controllers["freezer"] / PARENT / "one"}, mounts)
    shell = start(group, "while :; do :; done & while :; do sleep 0.001; done")
    settled(group, 3)
    group.freeze()
    times = [Path(f"/proc/{pid}/stat").read_text().split()[13:15] for pid in group.pids()]
    time.sleep(0.05)
    later = [Path(f"/proc/{pid}/stat").read_text().split()[13:15] for pid in group.pids()]
    group.thaw()
    group.kill()
    shell.communicate(timeout=10)
    members = group.pids()
    (whole if version == "1" else group).remove()

    assert times == later
    assert () == members


@real
def test_another_process_finds_the_group() -> None:
    """`open` finds what `create` made, also to kill and remove it; what does not exist is an empty group."""
    group = create()
    shell = start(group, "exec sleep 60")
    settled(group, 1)

    other = Cgroup.open("one", parent=PARENT)
    pids = other.pids()
    other.kill()
    shell.communicate(timeout=10)
    other.remove()
    nothing = Cgroup.open("one", parent=PARENT)
    nothing.kill()
    nothing.remove()

    assert (shell.pid,) == pids
    assert () == nothing.directories


@real
def test_update_raises_and_lowers_memory() -> None:
    """A living group's memory limit can be raised above the old sum with swap, and lowered again."""
    group = create(Limits(memory=16 << 20))
    memory = next(path for path in group.directories if "memory" in path.parts) / "memory.limit_in_bytes"
    found = []
    for size in (64 << 20, 8 << 20):
        group.update(Limits(memory=size))
        found.append(int(memory.read_text()))
    group.remove()

    assert [64 << 20, 8 << 20] == found


@real
def test_refused_limit_names_file_and_leaves_nothing() -> None:
    """A CPU that does not exist: controller and file are named, no directory stays (the fixture looks)."""
    with pytest.raises(RunnerError, match=r"cpuset: .*/cpuset\.cpus does not take '4095'"):
        create(Limits(cpuset_cpus="4095"))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(memory=1 << 20), "too small"),
        (Limits(memory_swap=1 << 30), "needs a limit of memory"),
        (Limits(memory=64 << 20, memory_swap=32 << 20), "less than memory"),
        (Limits(cpus=0.001), "cannot be had"),
        (Limits(cpus=1e6), "cannot be had"),
        (Limits(cpu_shares=1), "out of range"),
        (Limits(devices=True, device_rules=("c 1:3",)), "invalid device rule"),
    ],
)
def test_senseless_limits(limits: Limits, message: str) -> None:
    """Limits that no kernel takes are refused before anything is made."""
    with pytest.raises(RunnerError, match=message):
        create(limits)


def test_settings_of_both_versions() -> None:
    """The same limits in the words of both versions."""
    limits = Limits(memory=1 << 30, memory_swap=-1, memory_reservation=1 << 29, cpus=1.5, cpu_shares=1024, pids=-1)

    assert [
        "memory.limit_in_bytes=1073741824",
        "memory.memsw.limit_in_bytes=-1",
        "memory.soft_limit_in_bytes=536870912",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=150000",
        "cpu.shares=1024",
        "pids.max=max",
    ] == [f"{s.file}={s.text}" for s in settings_v1(limits)]
    assert [
        "memory.max=1073741824",
        "memory.swap.max=max",
        "memory.low=536870912",
        "cpu.max=150000 100000",
        "cpu.weight=39",
        "pids.max=max",
    ] == [f"{s.file}={s.text}" for s in settings_v2(limits)]


class Version2:
    """A directory tree that looks like a version 2 mount, as far as files can: a kernel would make them."""

    def __init__(self, root: Path, controllers: str) -> None:
        self.root = root
        self.group = root / "pybuild" / "one"
        for directory in (root, root / "pybuild", self.group):
            directory.mkdir(exist_ok=True)
            (directory / "cgroup.controllers").write_text(controllers)
            (directory / "cgroup.subtree_control").write_text("")
            (directory / "cgroup.procs").write_text("")
        for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
            (self.group / name).write_text("")


def test_version_2_limits(tmp_path: Path) -> None:
    """Limits are written into one directory, and the controllers are passed down to it; statistics come from it."""
    fake = Version2(tmp_path, "cpu memory pids")
    group = Cgroup.create("one", Limits(memory=64 << 20, cpus=0.5, pids=7), root=tmp_path)
    for name, text in (
        ("memory.current", "5\n"),
        ("memory.peak", "6\n"),
        ("pids.current", "1\n"),
        ("cpu.stat", "usage_usec 3\nuser_usec 2\n"),
        ("memory.events", "oom 1\noom_kill 1\n"),
    ):
        (fake.group / name).write_text(text)
    stats = group.stats()

    assert (fake.group,) == group.directories
    values = [(fake.group / name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max")]
    assert ["67108864", "67108864", "50000 100000", "7"] == values
    assert "+" in (tmp_path / "cgroup.subtree_control").read_text()
    assert (5, 6, 3000, 1, True) == (stats.memory, stats.memory_peak, stats.cpu, stats.pids, stats.oom_killed)


def test_version_2_without_the_controller(tmp_path: Path) -> None:
    """A controller that is not passed down is named, with what enables it."""
    Version2(tmp_path, "cpu")
    with pytest.raises(RunnerError, match="the memory limit cannot be applied") as caught:
        Cgroup.create("one", Limits(memory=64 << 20), root=tmp_path)

    assert "echo +memory" in caught.value.hint


def test_no_cgroups_at_all(tmp_path: Path) -> None:
    """Without limits nothing is needed; with one, its absence is an error."""
    group = Cgroup.create("one", Limits(), root=tmp_path)
    group.kill()
    group.remove()

    assert () == group.directories
    with pytest.raises(RunnerError, match="no writable pids controller"):
        Cgroup.create("one", Limits(pids=5), root=tmp_path)

"""A container is born inside the cgroups its caller made, and sees them as the root."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.cgroups import Cgroup, Hierarchies, Limits
from tests.runner.conftest import Bench

pytestmark = pytest.mark.root
ROOT = Path("/sys/fs/cgroup")


@pytest.fixture
def cgroup(tmp_path: Path) -> Iterator[Path]:
    """A cgroup of the test's own, in the pids hierarchy or in cgroup v2; removed at the end, so it must be empty."""
    parent = ROOT / "pids" if (ROOT / "pids").is_dir() else ROOT
    path = parent / f"pybuild-test-{tmp_path.name}"
    path.mkdir()
    yield path
    path.rmdir()


def test_the_process_is_in_the_cgroup(bench: Bench, cgroup: Path) -> None:
    """The caller sees the process in the cgroup; the process sees itself at the root of it."""
    seen: list[str] = []

    def look(pid: int) -> None:
        seen.append(Path(f"/proc/{pid}/cgroup").read_text())

    container = bench.launcher.spawn(
        bench.spec("true", cgroups=(cgroup,)), stdin=0, stdout=1, stderr=2, on_namespaces=look
    )
    container.wait()
    inside = bench.sh("cat /proc/self/cgroup", cgroups=(cgroup,))

    assert cgroup.name in seen[0]
    assert cgroup.name not in inside
    assert [line for line in inside.splitlines() if line.split(":")[1] in {"pids", ""} and line.endswith(":/")]


def test_the_limit_holds_from_the_first_fork(bench: Bench, cgroup: Path) -> None:
    """A limit on processes is in force for the container, and shown read-only inside."""
    (cgroup / "pids.max").write_text("1")
    status, text = bench.run(bench.spec("sh", "-c", "true | true; echo $?", cgroups=(cgroup,)))

    assert "can't fork" in text
    assert status.code != 0


STARTER = """
    import sys
    from pathlib import Path
    from runner import Directory, Launcher, ProcessSpec, Spec, syscalls
    from runner.seccomp import compile_filter, load
    base, profile, *groups = map(Path, sys.argv[1:])
    if profile.name != "none":
        syscalls.seccomp(compile_filter(load(profile, frozenset())))
    process = ProcessSpec(args=("/bin/sleep", "5"))
    with Launcher.start() as launcher:
        container = launcher.spawn(
            Spec(rootfs=Directory(path=base, read_only=True), process=process, cgroups=tuple(groups), seccomp=None),
            stdin=0, stdout=1, stderr=2,
        )
        print(Path(f"/proc/{container.pid}/cgroup").read_text())
"""


@pytest.mark.parametrize("forbidden", [(), ("clone3",)])
def test_groups_of_both_versions(base: Path, tmp_path: Path, forbidden: tuple[str, ...]) -> None:
    """A container is in every group it was given, born there or, where a filter forbids that, by joining."""
    profile = tmp_path / "none"
    if forbidden:
        profile = tmp_path / "profile.json"
        rule = {"names": list(forbidden), "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    group = Cgroup.create(f"test-{tmp_path.name}", Limits())
    try:
        command = [sys.executable, "-c", textwrap.dedent(STARTER), *map(str, (base, profile, *group.directories))]
        text = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
    finally:
        group.remove()
    joined = [line for line in text.splitlines() if line.endswith(f"/test-{tmp_path.name}")]

    assert len(group.directories) == len(joined)
    assert (Hierarchies.find().unified is None) or any(line.startswith("0::") for line in joined)

"""A container is born inside the cgroups its caller made, and sees them as the root."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

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

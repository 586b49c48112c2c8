"""Builds that are interrupted, killed, or whose steps misbehave: nothing of them stays, and the next build works."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.building import Project, wait_for
from tests.runcli import host_state


@pytest.fixture(autouse=True)
def nothing_left(project: Project) -> Iterator[None]:
    """Mounts, links, control groups and processes are as before, the store is clean, and the next build works."""
    before = host_state(project.root)
    yield
    project.dockerfile("FROM busybox", "RUN echo next")
    project.build("--no-cache", "--network", "none", ".")
    project.check()
    wait_for(lambda: before == host_state(project.root))


def wait_for_line(process: subprocess.Popen[bytes], wanted: bytes) -> None:
    """Read output until a line has `wanted`."""
    assert process.stdout is not None
    for line in process.stdout:
        if wanted in line:
            return
    raise AssertionError("it ended before")


@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("network", ["none", "bridge"])
def test_during_a_run(project: Project, signum: int, status: int, network: str) -> None:
    """A signal to the group, as from a terminal, ends the step and the build at once."""
    project.dockerfile("FROM busybox", "RUN echo started; sleep 60 & sleep 60")
    with project.running("--network", network, ".") as process:
        wait_for_line(process, b" started")
        os.killpg(process.pid, signum)
        assert status == process.wait(10)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_during_a_copy(project: Project, signum: int) -> None:
    """A copy of many files is given up between two of them; no layer of it stays."""
    for number in range(20_000):
        (project.cwd / f"f{number}").write_bytes(b"x")
    project.dockerfile("FROM scratch", "COPY . /")
    with project.running(".") as process:
        wait_for_line(process, b"COPY . /")
        os.killpg(process.pid, signum)
        assert 128 + signum == process.wait(5)


@pytest.mark.parametrize("network", ["none", "bridge"])
def test_killed_during_a_run(project: Project, network: str) -> None:
    """kill -9 takes the step's processes along, and its group, and its place on the bridge, without another build."""
    before = host_state(project.root)
    project.dockerfile("FROM busybox", "RUN echo started; sleep 60")
    with project.running("--network", network, ".") as process:
        wait_for_line(process, b" started")
        process.kill()
        process.wait(10)
    wait_for(lambda: before == host_state(project.root))


@pytest.mark.parametrize(
    "step",
    [
        "sleep 60 & sleep 61 & true",
        "for i in $(seq 200); do sleep 60 & done; true",
        "dd if=/dev/zero of=/dev/shm/x bs=1M 2>/dev/null; test -s /dev/shm/x",
        "exec >&- 2>&-; sleep 0.1; echo x >/after",
        "head -c 20000000 /dev/zero | tr '\\0' x",
        "head -c 1000000 /dev/urandom",
    ],
    ids=["background", "many", "shm", "closed", "long-line", "binary"],
)
def test_steps_that_misbehave(project: Project, step: str) -> None:
    """They end like any other, and nothing of them goes on."""
    project.dockerfile("FROM busybox", f"RUN {step}")
    project.build("--network", "none", ".")


def test_a_failure_cancels_what_runs_beside_it(project: Project) -> None:
    """The first failure ends the other stages' steps; theirs is not the error that is reported."""
    project.dockerfile("FROM busybox AS a", "RUN sleep 60417", "FROM busybox AS b", "RUN sleep 0.2; exit 3",
                       "FROM busybox", "COPY --from=a / /a", "COPY --from=b / /b")  # fmt: skip
    lines = project.fails("--network", "none", ".")

    assert lines[0].startswith("Dockerfile:4:1: error[run]")
    assert [] == [path for path in Path("/proc").glob("[0-9]*/cmdline") if b"sleep\x0060417" in _read(path)]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes() if str(os.getpid()) not in path.parts else b""
    except OSError:
        return b""

"""What a build says when it cannot be done: one located message, a next action, and nothing half-made."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.building import Project, wait_for


def hint(lines: list[str]) -> str:
    """The hint of a message."""
    return next(line for line in lines if line.startswith("hint: "))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("FRM busybox\n", "Dockerfile:1:1"),
        ("FROM busybox\nCOPY --form=x a /\n", "Dockerfile:2:6"),
        ("FROM busybox\nRUN <<EOF\nx\n", "Dockerfile:2:"),
        ("RUN true\n", "Dockerfile:1:1"),
        ("FROM busybox AS a\nFROM busybox AS a b\n", "Dockerfile:2:"),
        ("FROM busybox:\n", "Dockerfile:1:6"),
        ("FROM busybox\nENV a=${b:oops}\n", "Dockerfile:2:"),
        ("FROM busybox\nEXPOSE much\n", "Dockerfile:2:8"),
    ],
)
def test_malformed(project: Project, text: str, place: str) -> None:
    """A Dockerfile that means nothing is refused at the place, and nothing is built or named."""
    project.write("Dockerfile", text)
    before = project.images()
    lines = project.fails("-t", "app:1", ".")

    assert lines[0].startswith(place), lines
    assert re.match(r"Dockerfile:\d+:\d+: error\[[a-z-]+\]: .+", lines[0])
    assert "^" in lines[2]
    assert before == project.images()


def test_empty(project: Project) -> None:
    """A file without instructions is said to be one."""
    project.write("Dockerfile", "# nothing\n")
    assert "error" in project.fails(".")[0]


def test_copy_of_what_is_missing(project: Project) -> None:
    """The error is at the word and suggests the name that is nearly the same."""
    project.write("requirements.txt")
    project.dockerfile("FROM scratch", "COPY requirement.txt /")
    lines = project.fails(".")

    assert lines[0].startswith("Dockerfile:2:6: error[")
    assert "requirement.txt" in lines[0]
    assert "requirements.txt" in hint(lines)


def test_copy_of_what_is_ignored(project: Project) -> None:
    """The error names the rule that hides the source."""
    project.write("build/a")
    project.write(".dockerignore", "*.md\nbuild\n")
    project.dockerfile("FROM scratch", "COPY build/a /")
    lines = project.fails(".")

    assert lines[0].startswith("Dockerfile:2:6: error[")
    assert "hint: line 2 of .dockerignore leaves it out: build" == lines[-1]


def test_run_fails(project: Project) -> None:
    """The exit code, the last lines, the whole log; what came before is cached, the step itself is not."""
    project.dockerfile("FROM busybox", "RUN echo good", "RUN seq 1 5000; echo why >&2; exit 7")
    lines = project.fails("-t", "app:1", ".")

    assert lines[0].startswith("Dockerfile:3:1: error[run]: ")
    assert lines[0].endswith("exit code: 7")
    assert "  why" in lines
    log = Path(hint(lines).split(" is in ")[1])
    assert sorted([*map(str, range(1, 5001)), "why"]) == sorted(log.read_text().splitlines())
    assert "docker.io/library/app:1" not in project.images()

    steps = project.vertexes(".", status=1)
    assert [True, False] == [steps[name].get("cached", False) for name in steps if " RUN " in name]
    project.check()


@pytest.mark.parametrize(
    ("step", "code"), [('["/nowhere"]', 127), ('["nowhere"]', 127), ('["/etc"]', 126), ("/etc/passwd", 126)]
)
def test_run_cannot_start(project: Project, step: str, code: int) -> None:
    """What cannot be executed ends as the shell would have it."""
    project.dockerfile("FROM busybox", f"RUN {step}")
    lines = project.fails(".")

    assert lines[0].startswith("Dockerfile:2:1: error[run]: ")
    assert lines[0].endswith(f"exit code: {code}")


def test_unknown_user(project: Project) -> None:
    """A user that the image does not know is named."""
    project.dockerfile("FROM busybox", "USER nobody-here", "RUN true")
    lines = project.fails(".")

    assert lines[0].startswith("Dockerfile:3:1: error[")
    assert "nobody-here" in lines[0]


def test_registry_that_cannot_be_reached(project: Project) -> None:
    """The error is at the FROM and names the ways out."""
    project.dockerfile("FROM 127.0.0.1:1/nothing:1")
    lines = project.fails(".")

    assert lines[0].startswith("Dockerfile:1:6: error[")
    assert "127.0.0.1:1" in lines[0]
    assert "pybuild base" in hint(lines)


def test_names_that_are_none(project: Project) -> None:
    """A target or tag that cannot be is refused before anything is built."""
    project.dockerfile("FROM busybox AS compile", "RUN true")
    lines = project.fails("--target", "compil", ".")
    assert "(did you mean compile?)" in lines[0]
    assert "error" in project.fails("-t", "UPPER:1", ".")[0]
    assert "digest" in project.fails("-t", "a@sha256:" + "0" * 64, ".", status=2)[0]


def test_contexts_that_are_none(project: Project) -> None:
    """A context that is missing or a file, a Dockerfile that is missing or a directory."""
    assert "error: the build context missing does not exist" == project.fails("-f", "x", "missing")[0]
    project.write("file")
    assert "error: the build context file is not a directory" == project.fails("-f", "x", "file")[0]
    assert "cannot read the Dockerfile" in project.fails(".")[0]
    (project.cwd / "Dockerfile").mkdir()
    assert "Is a directory" in project.fails(".")[0]


def test_a_corrupt_layer(project: Project, tmp_path: Path) -> None:
    """A base image whose content was damaged on disk is refused, by name, when its content is read."""
    project.dockerfile("FROM busybox", "RUN true")
    project("save", "-o", "saved.tar", "busybox")
    other = Project(tmp_path / "other", project.cwd)
    other("load", "-i", "saved.tar")
    blobs = [path for path in (other.root / "blobs").rglob("*") if path.is_file() and path.stat().st_size > 100_000]
    assert 1 == len(blobs)
    data = bytearray(blobs[0].read_bytes())
    data[len(data) // 2] ^= 0xFF
    blobs[0].chmod(0o600)
    blobs[0].write_bytes(data)
    lines = other.fails(".")

    assert blobs[0].name[:12] in "".join(lines)
    assert 1 == other("store", "check", status=1).status


@pytest.fixture
def small(project: Project, tmp_path: Path) -> Iterator[Project]:
    """A project whose store is on a file system with 24 MB."""
    disk = tmp_path / "small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "small", disk], check=True)
    try:
        subprocess.run(["cp", "-a", str(project.root), str(disk / "store")], check=True)
        yield Project(disk / "store", project.cwd)
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_full_disk(small: Project) -> None:
    """It is said that the disk is full; once it is not, the next build goes on behind the finished steps."""
    small.dockerfile("FROM busybox", "RUN echo first >/first", "COPY big /big")
    with open(small.cwd / "big", "wb") as file:
        for _ in range(30):
            file.write(os.urandom(1 << 20))
    lines = small.fails(".")
    assert "No space left on device" in "".join(lines)
    assert "space" in hint(lines)
    small.check()

    small.write("big", "small now")
    assert [True, False] == [cached for name, cached in small.cached(".").items() if not name.startswith("FROM")]


def test_a_run_that_fills_the_disk(small: Project) -> None:
    """The step fails, and what it wrote is gone."""
    small.dockerfile("FROM busybox", "RUN dd if=/dev/zero of=/big bs=1M count=40")
    assert "No space left on device" in "".join(small.fails("."))
    small.dockerfile("FROM busybox", "RUN dd if=/dev/zero of=/big bs=1M count=2")
    small.build(".")
    small.check()


def test_a_store_that_cannot_be_written(project: Project, tmp_path: Path) -> None:
    """A read-only store is an error with the way out."""
    project.dockerfile("FROM busybox", "RUN true")
    subprocess.run(["mount", "--bind", project.root, project.root], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", project.root], check=True)
        lines = project.fails(".")
    finally:
        subprocess.run(["umount", project.root], check=True)
    assert lines[0].startswith("error: ")
    assert "root" in hint(lines)


def test_two_builds_at_once(project: Project) -> None:
    """Two processes that build the same do the work once; both end well."""
    step = "RUN --mount=type=cache,target=/c echo once >>/c/count && sleep 0.5"
    project.dockerfile("FROM busybox", step)
    with project.running(".") as one, project.running(".") as two:
        assert [0, 0] == [one.wait(60), two.wait(60)]
    counts = [path.read_text() for path in (project.root / "cache-mounts").rglob("count")]

    assert ["once\n"] == counts
    project.check()


def test_waiting_for_another_build_can_be_given_up(project: Project) -> None:
    """A build that waits for another's step ends at once when it is told to."""
    project.dockerfile("FROM busybox", "RUN --mount=type=cache,target=/c touch /c/running && sleep 30")
    with project.running(".") as one:
        wait_for(lambda: list((project.root / "cache-mounts").rglob("running")))
        with project.running(".") as two:
            assert two.stdout is not None
            assert any(b" 2/2] RUN" in line for line in two.stdout)
            two.terminate()
            assert 143 == two.wait(5)
        one.terminate()
        assert 143 == one.wait(10)


def test_metadata_of_a_failed_build_is_not_written(project: Project) -> None:
    """No file says that something was built."""
    project.dockerfile("FROM busybox", "RUN false")
    project.fails("--iidfile", "iid", "--metadata-file", "meta", "-o", "type=oci,dest=out", ".")
    assert ["Dockerfile"] == sorted(os.listdir(project.cwd))

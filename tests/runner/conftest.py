"""What tests of containers share: a root filesystem around a static busybox, a launcher, and a look at what is left."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from runner import ExitStatus, Launcher, Overlay, ProcessSpec, Spec

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Bench:
    """One overlay root filesystem and the launcher that runs containers on it."""

    launcher: Launcher
    base: Path
    upper: Path
    work: Path

    def spec(self, *args: str, **changes: object) -> Spec:
        """Return a container that runs `args` on the root filesystem, with changes of Spec's fields."""
        rootfs = Overlay(lowers=(self.base,), upper=self.upper, work=self.work)
        return Spec(rootfs=rootfs, process=ProcessSpec(args=args, env=(PATH,)))._replace(**changes)  # type: ignore[arg-type]

    def run(self, spec: Spec, stdin: bytes = b"") -> tuple[ExitStatus, str]:
        """Run it and return how it ended, with what it wrote to both streams."""
        read, write = os.pipe()
        source = self.upper.parent / "stdin"
        source.write_bytes(stdin)
        with source.open("rb") as file, open(read, "rb") as output:
            try:
                process = self.launcher.spawn(spec, stdin=file.fileno(), stdout=write, stderr=write)
            finally:
                os.close(write)
            text = output.read().decode()
            return process.wait(timeout=20), text

    def sh(self, script: str, **changes: object) -> str:
        """Run a shell script that must succeed and return its output."""
        status, text = self.run(self.spec("/bin/sh", "-c", script, **changes))
        assert (ExitStatus(0, None), text) == (status, text)
        return text

    def changes(self) -> list[str]:
        """Return the paths in the upper directory, sorted."""
        return sorted(str(path.relative_to(self.upper)) for path in self.upper.rglob("*"))


def make_base(path: Path) -> Path:
    """Lay out a root filesystem with busybox and its applets."""
    for name in ("bin", "etc", "root", "proc", "sys", "dev", "tmp"):
        (path / name).mkdir(parents=True)
    (path / "tmp").chmod(0o1777)
    shutil.copy2(shutil.which("busybox") or "/bin/busybox", path / "bin/busybox")
    listing = subprocess.run(["busybox", "--list"], capture_output=True, text=True, check=True).stdout
    for applet in set(listing.split()) - {"busybox"}:
        (path / "bin" / applet).symlink_to("busybox")
    (path / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (path / "etc/group").write_text("root:x:0:\n")
    return path


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only lower directory around busybox."""
    return make_base(tmp_path_factory.mktemp("base") / "tree")


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    """A launcher of its own for each module of tests."""
    with Launcher.start() as one:
        yield one


@pytest.fixture
def bench(launcher: Launcher, base: Path, tmp_path: Path) -> Iterator[Bench]:
    """An empty upper over the base; afterwards no mount of the host may lead into it."""
    upper, work = tmp_path / "upper", tmp_path / "work"
    upper.mkdir()
    work.mkdir()
    yield Bench(launcher, base, upper, work)
    assert str(tmp_path) not in Path("/proc/self/mountinfo").read_text()

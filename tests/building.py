"""A project directory and a store with a busybox base image, and `pybuild` called on them as a user calls it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: exit status and output."""

    status: int
    out: bytes
    err: str


@dataclass(slots=True)
class Project:
    """A working directory and a store; nothing of the user's environment reaches pybuild."""

    root: Path
    cwd: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, name: str, text: str | bytes = "", *, mode: int = 0o644) -> Path:
        """Write a file of the working directory."""
        path = self.cwd / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        path.chmod(mode)
        return path

    def dockerfile(self, *lines: str) -> Path:
        """Write the Dockerfile."""
        return self.write("Dockerfile", "\n".join(lines) + "\n")

    def argv(self, *words: str) -> list[str]:
        """The command as the kernel gets it."""
        return [sys.executable, "-m", "builder", "--root", str(self.root), *words]

    def env(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that every command gets."""
        own = {"PATH": os.environ["PATH"], "HOME": str(self.cwd), "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C.UTF-8"}
        return {**own, **self.environ, **(more or {})}

    def __call__(
        self,
        *words: str,
        status: int = 0,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Done:
        """Run `pybuild WORDS`; the exit status has to be `status`, and no defect may be reported."""
        done = subprocess.run(
            self.argv(*words),
            cwd=cwd or self.cwd,
            env=self.env(env),
            input=stdin,
            capture_output=True,
            check=False,
            timeout=120,
        )
        err = done.stderr.decode("utf-8", "replace")
        assert status == done.returncode, err
        assert "Traceback" not in err
        assert not any(line.startswith("BUG: ") for line in err.splitlines())
        return Done(done.returncode, done.stdout, err)

    def build(self, *words: str, **options: Any) -> Done:
        """`pybuild build WORDS` with plain progress."""
        return self("build", "--progress", "plain", *words, **options)

    def fails(self, *words: str, status: int = 1, **options: Any) -> list[str]:
        """A build that must fail; the lines of its message, from the one that says `error`."""
        lines = self("build", "--progress", "quiet", *words, status=status, **options).err.splitlines()
        starts = [at for at, line in enumerate(lines) if "error" in line.partition(" ")[0] or " error[" in line]
        assert 1 == len(starts), lines
        return lines[starts[0] :]

    def id(self, *words: str, **options: Any) -> str:
        """Build quietly and return the image's ID."""
        return self("build", "-q", *words, **options).out.decode().strip()

    def vertexes(self, *words: str, **options: Any) -> dict[str, dict[str, Any]]:
        """Build and return the last state of every vertex, by name."""
        err = self("build", "--progress", "rawjson", *words, **options).err
        found: dict[str, dict[str, Any]] = {}
        for line in err.splitlines():
            if not line.startswith("{"):
                continue
            for vertex in json.loads(line).get("vertexes", ()):
                found[vertex["name"]] = vertex
        return found

    def cached(self, *words: str, **options: Any) -> dict[str, bool]:
        """Build and say of every step of the Dockerfile whether it was cached, by its instruction."""
        return {
            name.partition("] ")[2]: vertex.get("cached", False)
            for name, vertex in self.vertexes(*words, **options).items()
            if not name.startswith(("[internal]", "exporting"))
        }

    def config(self, image: str) -> dict[str, Any]:
        """The config of an image."""
        document: dict[str, Any] = json.loads(self.blob(image))
        return document

    def blob(self, image: str) -> bytes:
        """The config of an image as bytes, whose digest is its ID."""
        from layerstore import Store

        with Store.open(self.root) as store:
            found = store.images.get(image if image.startswith("sha256:") else f"docker.io/library/{image}")
            assert found is not None, image
            return found.config

    def files(self, *words: str, **options: Any) -> dict[str, bytes]:
        """Build and return the regular files of the result, by name."""
        out = self("build", "-q", "-o", "type=tar,dest=files.tar", *words, **options)
        assert out.status == 0
        with tarfile.open((options.get("cwd") or self.cwd) / "files.tar") as tar:
            return {
                one.name: (tar.extractfile(one) or contextlib.nullcontext()).read()  # type: ignore[union-attr]
                for one in tar
                if one.isreg()
            }

    def images(self) -> set[str]:
        """The names of all images in the store, and the IDs of those without."""
        from layerstore import Store

        with Store.open(self.root) as store:
            return {name for image in store.images.list() for name in (image.names or (image.id,))}

    def check(self) -> None:
        """Nothing in the store is wrong."""
        self("store", "check")

    @contextlib.contextmanager
    def running(self, *words: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """`pybuild build WORDS` in a session of its own, killed at the end if it still runs."""
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        with subprocess.Popen(
            self.argv("build", "--progress", "plain", *words),
            cwd=self.cwd,
            env=self.env(),
            start_new_session=True,
            **pipes,
        ) as process:
            try:
                yield process
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)


def wait_for(condition: Any, seconds: float = 20.0) -> Any:
    """What `condition` returns once that is true; AssertionError if it never is."""
    deadline = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return result


@pytest.fixture(scope="session")
def base_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the image busybox:latest, to be copied."""
    path = tmp_path_factory.mktemp("base")
    project = Project(path / "store", path)
    project("base", "busybox")
    return project.root


@pytest.fixture
def project(base_store: Path, tmp_path: Path) -> Project:
    """An empty working directory and a store of its own with busybox:latest."""
    subprocess.run(["cp", "-a", str(base_store), str(tmp_path / "store")], check=True)
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "store", tmp_path / "project")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A docker-registry on loopback; HOST:PORT."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(tmp_path / "registry")}},
        "http": {"addr": address},
    }
    (tmp_path / "registry.yml").write_text(json.dumps(config))  # JSON is YAML
    with subprocess.Popen(
        ["docker-registry", "serve", str(tmp_path / "registry.yml")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={"PATH": "/usr/bin:/bin"},
    ) as process:
        try:
            wait_for(lambda: _answers(address))
            yield address
        finally:
            process.kill()


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False

"""The builders and runners that are compared, each as the command lines that a user of it would write.

Knows how a tool is started, called and asked what it did; nothing of what it is to do.
"""

from __future__ import annotations

import abc
import contextlib
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.measure import Command, CommandFailed, run

BASE = "busybox"
_READY = 30.0
"""Seconds that a daemon may take to start, or to stop."""
_STEP = re.compile(r"#(\d+) \[[^\]]*\d/\d+\] (?:RUN|COPY) ")
_CACHED = re.compile(r"#(\d+) CACHED")
_SYSTEM = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unable(Exception):
    """A tool is not here, or cannot do its work here; the message is why, in a word or a few."""


class Tool(abc.ABC):
    """A program to be compared, with a store of its own in `place`. What it cannot do has no commands."""

    name: str
    programs: tuple[str, ...] = ()
    """What has to be on the path."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir(parents=True, exist_ok=True)

    def start(self, base: Path) -> None:
        """Begin, and load the base image from the docker archive `base`. Unable."""
        for program in self.programs:
            if shutil.which(program, path=self.environ()["PATH"]) is None:
                raise Unable(f"no {program}")
        try:
            self.load(base)
        except CommandFailed as error:
            raise Unable(str(error)) from error

    @abc.abstractmethod
    def load(self, base: Path) -> None:
        """Load the base image. CommandFailed."""

    def stop(self) -> None:  # noqa: B027 - most tools have nothing to stop
        """End what was started."""

    def daemons(self) -> tuple[int, ...]:
        """Process ids of those who work for the commands."""
        return ()

    def environ(self) -> Mapping[str, str]:
        """The environment of the tool's processes: nothing of the user's but the path."""
        path = f"{os.environ.get('PATH', '')}:{_SYSTEM}"
        return {"PATH": path, "HOME": str(self.place), "LC_ALL": "C.UTF-8", "TMPDIR": str(self.place)}

    def command(self, *words: str | os.PathLike[str]) -> Command:
        """A command line with the tool's environment."""
        return Command(argv=[os.fspath(word) for word in words], environ=self.environ(), cwd=self.place)

    @abc.abstractmethod
    def version(self) -> Command:
        """`TOOL --version`."""

    def build(self, context: Path, tag: str, *, no_cache: bool = False, network: str = "host") -> Sequence[Command]:
        """Build the context's Dockerfile and name the image."""
        del context, tag, no_cache, network
        return ()

    def publish(self, context: Path, reference: str) -> Sequence[Command]:
        """Build the context's Dockerfile and push the image to the registry in `reference`."""
        del context, reference
        return ()

    def save(self, reference: str, archive: Path) -> Sequence[Command]:
        """Write an image to a docker archive."""
        del reference, archive
        return ()

    def pull(self, reference: str) -> Sequence[Command]:
        """Fetch an image from the registry in `reference`."""
        del reference
        return ()

    def run(self, image: str, *words: str) -> Sequence[Command]:
        """Run a command in a container with the host's network, and remove the container."""
        del image, words
        return ()

    def forget(self, reference: str) -> Sequence[Command]:
        """Remove an image that was published, and the cached steps that made it."""
        del reference
        return ()

    def ask(self, image: str, script: str) -> str:
        """What a shell script prints in a container of the image. CommandFailed."""
        return run(self.run(image, "sh", "-c", script)).strip()

    def executed(self, output: str) -> int:
        """How many RUN and COPY steps were executed, and not taken from the cache, as the output of a build says."""
        steps = set(_STEP.findall(output))
        return len(steps - set(_CACHED.findall(output)))


class Pybuild(Tool):
    """This project, as it is installed beside the interpreter that runs the benchmarks."""

    name = "pybuild"

    def _pybuild(self, *words: str | os.PathLike[str]) -> Command:
        return self.command(Path(sys.executable).with_name("pybuild"), *words)

    def environ(self) -> Mapping[str, str]:
        """Its store is named in the environment."""
        return {**super().environ(), "PYBUILD_ROOT": str(self.place / "store")}

    def make_base(self, archive: Path) -> None:
        """Make the base image of all tools and write it to a docker archive. CommandFailed."""
        run([self._pybuild("base", "busybox"), self._pybuild("save", "-o", archive, BASE)])

    def load(self, base: Path) -> None:
        """Load the base image, which this tool has made itself."""
        run([self._pybuild("load", "-i", base)])

    def version(self) -> Command:
        """`pybuild --version`."""
        return self._pybuild("--version")

    def build(self, context: Path, tag: str, *, no_cache: bool = False, network: str = "host") -> Sequence[Command]:
        """`pybuild build`."""
        fresh = ["--no-cache"] if no_cache else []
        return [self._pybuild("build", "--network", network, *fresh, "-t", tag, context)]

    def publish(self, context: Path, reference: str) -> Sequence[Command]:
        """`pybuild build --push`."""
        return [self._pybuild("build", "--network", "host", "--push", "-t", reference, context)]

    def save(self, reference: str, archive: Path) -> Sequence[Command]:
        """`pybuild save`."""
        return [self._pybuild("save", "-o", archive, reference)]

    def pull(self, reference: str) -> Sequence[Command]:
        """`pybuild pull`."""
        return [self._pybuild("pull", reference)]

    def run(self, image: str, *words: str) -> Sequence[Command]:
        """`pybuild run`."""
        return [self._pybuild("run", "--rm", "--network", "host", image, *words)]

    def forget(self, reference: str) -> Sequence[Command]:
        """`pybuild rmi`, then `pybuild store gc --all`."""
        return [self._pybuild("rmi", reference), self._pybuild("store", "gc", "--all")]

    def other(self, *words: str | os.PathLike[str]) -> Command:
        """Any other command of pybuild."""
        return self._pybuild(*words)


class Docker(Tool):
    """Docker with BuildKit: a client, and an engine of its own beside the machine's."""

    name = "docker"
    programs = ("docker", "dockerd")

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self._client = ""
        self._engine: subprocess.Popen[bytes] | None = None

    def environ(self) -> Mapping[str, str]:
        """The engine's socket, and BuildKit chosen where that is a choice."""
        return {**super().environ(), "DOCKER_HOST": f"unix://{self.place}/sock", "DOCKER_BUILDKIT": "1"}

    def load(self, base: Path) -> None:
        """Start the engine and load the base image."""
        self._client = self._choose_client()
        with open(self.place / "log", "wb") as log:
            self._engine = subprocess.Popen(
                [
                    *("dockerd", "--host", f"unix://{self.place}/sock", "--pidfile", f"{self.place}/pid"),
                    *("--data-root", f"{self.place}/data", "--exec-root", f"{self.place}/exec"),
                    *("--iptables=false", "--ip6tables=false"),
                ],
                env=dict(self.environ()),
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        until = time.monotonic() + _READY
        while not self._answers():
            if self._engine.poll() is not None or time.monotonic() > until:
                raise Unable(f"dockerd: {(self.place / 'log').read_text().strip().rpartition(chr(10))[2]}")
            time.sleep(0.1)
        run([self._docker("load", "-i", base)])

    def _choose_client(self) -> str:
        """The first client on the path that can build with BuildKit: an old one, or one that has the buildx plugin."""
        for folder in self.environ()["PATH"].split(":"):
            client = f"{folder}/docker"
            with contextlib.suppress(OSError, CommandFailed, ValueError):
                major = int(run([self.command(client, "--version")]).split()[2].partition(".")[0])
                if major >= 23:
                    run([self.command(client, "buildx", "version")])
                return client
        raise Unable("no client with BuildKit")

    def _answers(self) -> bool:
        with contextlib.suppress(CommandFailed):
            return bool(run([self._docker("info")]))
        return False

    def stop(self) -> None:
        """Stop the engine, which stops its containerd."""
        if self._engine is None or self._engine.poll() is not None:
            return
        self._engine.terminate()
        try:
            self._engine.wait(_READY)
        except subprocess.TimeoutExpired:
            self._engine.kill()
            self._engine.wait()

    def daemons(self) -> tuple[int, ...]:
        """dockerd and the containerd that it started."""
        pids = []
        for name in ("pid", "exec/containerd/containerd.pid"):
            with contextlib.suppress(OSError, ValueError):
                pids.append(int((self.place / name).read_text()))
        return tuple(pids)

    def _docker(self, *words: str | os.PathLike[str]) -> Command:
        return self.command(self._client, *words)

    def version(self) -> Command:
        """`docker --version`."""
        return self._docker("--version")

    def build(self, context: Path, tag: str, *, no_cache: bool = False, network: str = "host") -> Sequence[Command]:
        """`docker build`."""
        fresh = ["--no-cache"] if no_cache else []
        words = ["--progress", "plain", "--network", "default" if network == "bridge" else network]
        return [self._docker("build", *words, *fresh, "-t", tag, context)]

    def publish(self, context: Path, reference: str) -> Sequence[Command]:
        """`docker build`, then `docker push`."""
        return [*self.build(context, reference), self._docker("push", reference)]

    def save(self, reference: str, archive: Path) -> Sequence[Command]:
        """`docker save`."""
        return [self._docker("save", "-o", archive, reference)]

    def pull(self, reference: str) -> Sequence[Command]:
        """`docker pull`."""
        return [self._docker("pull", reference)]

    def run(self, image: str, *words: str) -> Sequence[Command]:
        """`docker run`."""
        return [self._docker("run", "--rm", "--network", "host", image, *words)]

    def forget(self, reference: str) -> Sequence[Command]:
        """`docker rmi`, then `docker builder prune`."""
        return [self._docker("rmi", "--force", reference), self._docker("builder", "prune", "--all", "--force")]


class Containers(Tool):
    """What buildah and podman have in common: the store and the way it is named."""

    def storage(self) -> list[str]:
        """The options that come before the command."""
        return ["--root", f"{self.place}/root", "--runroot", f"{self.place}/run", "--storage-driver", "overlay"]

    def load(self, base: Path) -> None:
        """Pull the base image from the archive, and the registries' rules from nowhere."""
        run([self.command(self.name, *self.storage(), "pull", f"docker-archive:{base}")])

    def version(self) -> Command:
        """`TOOL --version`."""
        return self.command(self.name, "--version")


class Buildah(Containers):
    """Buildah, with runc: the crun of some distributions refuses hybrid control groups."""

    name = "buildah"
    programs = ("buildah", "runc")

    def _buildah(self, *words: str | os.PathLike[str]) -> Command:
        return self.command("buildah", *self.storage(), *words)

    def build(self, context: Path, tag: str, *, no_cache: bool = False, network: str = "host") -> Sequence[Command]:
        """`buildah build`, with a cache only where it is wanted; it has a bridge only with plugins, if at all."""
        if network != "host":
            return ()
        layers = ["--layers", *(["--no-cache"] if no_cache else [])]
        words = ["--runtime", self._runc(), "--network", network, *layers]
        return [self._buildah("build", *words, "-t", f"localhost/{tag}", context)]

    def _runc(self) -> str:
        return shutil.which("runc", path=self.environ()["PATH"]) or "runc"

    def publish(self, context: Path, reference: str) -> Sequence[Command]:
        """`buildah build`, then `buildah push`."""
        words = ["--runtime", self._runc(), "--network", "host", "--layers"]
        build = self._buildah("build", *words, "-t", reference, context)
        return [build, self._buildah("push", "--tls-verify=false", reference)]

    def forget(self, reference: str) -> Sequence[Command]:
        """`buildah rmi`, also of what has no name any more."""
        return [self._buildah("rmi", "--force", reference), self._buildah("rmi", "--prune")]

    def ask(self, image: str, script: str) -> str:
        """What a shell script prints in a working container of the image. CommandFailed."""
        name = run([self._buildah("from", "--pull-never", f"localhost/{image}")]).strip()
        words = ["--runtime", self._runc(), "--network", "host"]
        try:
            return run([self._buildah("run", *words, name, "--", "sh", "-c", script)]).strip()
        finally:
            run([self._buildah("rm", name)])

    def executed(self, output: str) -> int:
        """Steps without the line that says that the cache was used."""
        steps = re.split(r"^STEP \d+/\d+: ", output, flags=re.MULTILINE)[1:]
        return sum(step.startswith(("RUN", "COPY")) and "Using cache" not in step for step in steps)


class Podman(Containers):
    """Podman, which builds as buildah does; it is here for what it runs."""

    name = "podman"
    programs = ("podman", "runc", "conmon")

    def _podman(self, *words: str) -> Command:
        runc = shutil.which("runc", path=self.environ()["PATH"]) or "runc"
        return self.command("podman", *self.storage(), "--runtime", runc, "--cgroup-manager", "cgroupfs", *words)

    def run(self, image: str, *words: str) -> Sequence[Command]:
        """`podman run`, with the limits that this machine has: by default it asks for more than some allow."""
        files, processes = (resource.getrlimit(which)[1] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
        limits = ["--ulimit", f"nofile={files}:{files}", "--ulimit", f"nproc={processes}:{processes}"]
        return [self._podman("run", "--rm", "--network", "host", *limits, f"localhost/{image}", *words)]


PEERS: Mapping[str, type[Tool]] = {tool.name: tool for tool in (Docker, Buildah, Podman)}

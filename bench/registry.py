"""A docker-registry on loopback to push to, and what it then has."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from bench import disks

_READY = 10.0
_LENGTH = re.compile(r"^content-length: *(\d+)", re.IGNORECASE | re.MULTILINE)
_MANIFESTS = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class Registry:
    """A registry that runs; `host` is what references begin with."""

    def __init__(self, host: str, data: Path) -> None:
        self.host = host
        self._data = data

    def layer_sizes(self, repository: str, tag: str) -> list[int]:
        """Bytes of the layers of an image as its manifest says and as the blobs really have. OSError, ValueError."""
        manifest = self._get("-H", f"Accept: {', '.join(_MANIFESTS)}", f"{repository}/manifests/{tag}")
        layers = json.loads(manifest)["layers"]
        heads = [self._get("--head", f"{repository}/blobs/{layer['digest']}") for layer in layers]
        sizes = [int(found[1]) for found in (_LENGTH.search(head) for head in heads) if found]
        if sizes != [layer["size"] for layer in layers]:
            raise ValueError(f"the manifest of {repository}:{tag} lies about sizes: {sizes}")
        return sizes

    def _get(self, *words: str) -> str:
        """What curl gets; urllib would make this process, and thereby all that it starts, larger. OSError."""
        argv = ["curl", "-fsS", *words[:-1], f"http://{self.host}/v2/{words[-1]}"]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise OSError(done.stderr.strip())
        return done.stdout

    def forget(self) -> None:
        """Delete everything that was pushed."""
        shutil.rmtree(self._data, ignore_errors=True)
        disks.give_back(self._data.parent)


@contextlib.contextmanager
def serve(place: Path) -> Iterator[Registry]:
    """Run a registry with its data in `place`. FileNotFoundError where docker-registry is missing."""
    place.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(place / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    (place / "config.yml").write_text(json.dumps(config))  # JSON is YAML
    with (
        open(place / "log", "wb") as log,
        subprocess.Popen(
            ["docker-registry", "serve", str(place / "config.yml")],
            env={"PATH": "/usr/bin:/bin"},
            stdout=log,
            stderr=subprocess.STDOUT,
        ) as process,
    ):
        try:
            _wait(port)
            yield Registry(f"127.0.0.1:{port}", place / "data")
        finally:
            process.kill()


def _wait(port: int) -> None:
    """Wait until somebody listens. TimeoutError."""
    until = time.monotonic() + _READY
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.01)
    raise TimeoutError("docker-registry does not answer")

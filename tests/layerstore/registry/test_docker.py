"""Docker's own daemon at the other end: it loads and pulls what is written here; what it pushes and saves is read."""

from __future__ import annotations

import base64
import http.client
import io
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest

from layerstore import Image, Store
from layerstore.archive import DOCKER, load, save_image
from layerstore.platforms import Platform
from layerstore.reference import Reference
from layerstore.registry.client import Client
from layerstore.registry.transfer import pull, push
from tests.layerstore.conftest import MakeImage, texts_of
from tests.layerstore.registry.conftest import RealRegistry

pytestmark = [
    pytest.mark.root,
    pytest.mark.peers,
    pytest.mark.skipif(shutil.which("dockerd") is None, reason="dockerd is not installed"),
]

HOST = Platform("linux", "amd64")
NOBODY = base64.urlsafe_b64encode(b"{}").decode()


class Docker:
    """The Engine API of a daemon, through its socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, method: str, path: str, body: bytes = b"", **query: str) -> bytes:
        """Make a request and return the whole answer; errors, also those within a stream of messages, fail the test."""
        connection = http.client.HTTPConnection("docker", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(self._path))
            headers = {"X-Registry-Auth": NOBODY, "Content-Type": "application/x-tar"}
            connection.request(method, f"{path}?{urlencode(query)}", body, headers)
            response = connection.getresponse()
            data = response.read()
        finally:
            connection.close()
        assert response.status < 300, data
        assert b"errorDetail" not in data, data
        return data

    def ready(self) -> bool:
        try:
            return self("GET", "/_ping") == b"OK"
        except OSError:
            return False


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    """A daemon without networks, with everything it owns in a directory of the test."""
    directory = tmp_path_factory.mktemp("docker")
    with open(directory / "log", "wb") as log:
        daemon = subprocess.Popen(
            [
                *("dockerd", "--host", f"unix://{directory}/sock", "--pidfile", f"{directory}/pid"),
                *("--data-root", f"{directory}/data", "--exec-root", f"{directory}/exec", "--storage-driver", "vfs"),
                *("--iptables=false", "--ip6tables=false", "--bridge=none"),
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    engine = Docker(directory / "sock")
    until = time.monotonic() + 30
    while not engine.ready() and daemon.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    assert engine.ready(), (directory / "log").read_text()
    yield engine
    daemon.terminate()
    daemon.wait(30)


def test_docker_loads_and_pushes(
    docker: Docker, store: Store, registry: RealRegistry, make_image: MakeImage, tmp_path: Path
) -> None:
    """Docker loads a saved image and pushes it; it is pulled with the same ID and pushed again with its digest."""
    image = make_image("one", "two" * 5000)
    archive = io.BytesIO()
    save_image(store, image, [f"{registry.host}/docker/theirs:1"], archive, format=DOCKER)

    docker("POST", "/images/load", archive.getvalue())
    pushed = docker("POST", f"/images/{registry.host}/docker/theirs/push", tag="1").decode()
    reference = Reference.parse(f"{registry.host}/docker/theirs:1")
    with Store.open(tmp_path / "other") as other, Client() as client:
        pulled = pull(other, reference, HOST, client)
        again = push(other, pulled, Reference.parse(f"{registry.host}/docker/again:1"), client)
        texts = texts_of(other, pulled)

    assert image.id == pulled.id
    assert pulled.manifest == again.digest
    assert f"digest: {again.digest}" in pushed
    assert ["one", "two" * 5000] == texts


def test_docker_pulls_and_saves(
    docker: Docker, store: Store, registry: RealRegistry, make_image: MakeImage, tmp_path: Path
) -> None:
    """Docker pulls a pushed image as the same image; what it saves is loaded under its name."""
    image = make_image("three", "four")
    name = f"{registry.host}/docker/ours"
    with Client() as client:
        push(store, image, Reference.parse(f"{name}:1"), client)

    docker("POST", "/images/create", fromImage=name, tag="1")
    shown = json.loads(docker("GET", f"/images/{name}:1/json"))
    archive = docker("GET", f"/images/{name}:1/get")
    with Store.open(tmp_path / "other") as other:
        (loaded,) = load(other, io.BytesIO(archive))
        assert isinstance(loaded, Image)
        texts = texts_of(other, loaded)

    assert list(image.layers) == shown["RootFS"]["Layers"]
    assert (f"{name}:1",) == loaded.names
    assert image.id == loaded.id
    assert ["three", "four"] == texts

"""What comes out of `pybuild build`: archives, files, pushed images and files about the image."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.building import Project
from tests.layerstore.registry.conftest import FakeRegistry
from tests.layerstore.registry.test_ahead import Uploads

DOCKERFILE = ("FROM busybox", "COPY a /data/a", "RUN echo made >/data/made && ln /data/made /data/same")


def tool(*words: str, cwd: Path) -> str:
    """Run a program; it has to succeed."""
    done = subprocess.run(words, cwd=cwd, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr
    return done.stdout


@pytest.fixture
def fake_registry() -> Iterator[FakeRegistry]:
    """A registry that shows what it is asked."""
    server = FakeRegistry()
    yield server
    server.close()


@pytest.fixture
def built(project: Project) -> Project:
    """A project with a copied and a made file."""
    project.write("a", "1")
    project.dockerfile(*DOCKERFILE)
    return project


@pytest.mark.peers
@pytest.mark.parametrize("compression", ["uncompressed", "gzip", "zstd"])
@pytest.mark.parametrize("tar", [True, False])
@pytest.mark.parametrize("kind", ["oci", "docker"])
def test_archives(built: Project, kind: str, tar: bool, compression: str) -> None:
    """skopeo reads every archive that is written, and umoci unpacks it."""
    built.build("-t", "app:1", "-o", f"type={kind},tar={str(tar).lower()},dest=out,compression={compression}", ".")
    transport = ("oci-archive:out" if tar else "oci:out") + ":1"
    if kind == "docker" and tar:
        transport = "docker-archive:out"
    shown = json.loads(tool("skopeo", "inspect", "--config", transport, cwd=built.cwd))
    assert built.config("app:1") == shown

    tool("skopeo", "copy", "-q", transport, "oci:copied:1", cwd=built.cwd)
    if compression == "zstd":  # which not every umoci reads
        return
    tool("umoci", "unpack", "--image", "copied:1", "bundle", cwd=built.cwd)
    assert "made\n" == (built.cwd / "bundle/rootfs/data/made").read_text()


def test_tar(built: Project) -> None:
    """type=tar has every path of the image once, with hard links as such; `-o -` writes it to stdout."""
    built.build("-o", "type=tar,dest=files.tar", ".")
    data = (built.cwd / "files.tar").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
        assert len(names) == len(set(names))
        assert {"data/a", "data/made", "data/same", "bin/busybox"} <= set(names)
        assert tar.getmember("data/same").islnk()

    assert data == built.build("-o", "-", ".").out
    assert data == built.build("-o", "type=tar", ".").out


def test_local(built: Project) -> None:
    """type=local, or a bare directory, writes files; again over what is there it replaces those of the image only."""
    built.build("-o", "out", ".")
    assert "1" == (built.cwd / "out/data/a").read_text()
    (built.cwd / "out/mine").write_text("mine")
    built.write("a", "2")
    built.build("-o", "type=local,dest=out", ".")

    assert ("2", "mine") == ((built.cwd / "out/data/a").read_text(), (built.cwd / "out/mine").read_text())
    assert (built.cwd / "out/data/made").stat().st_ino == (built.cwd / "out/data/same").stat().st_ino


def test_cacheonly(built: Project) -> None:
    """cacheonly keeps the steps and nothing else: no image, no name; --load keeps the image all the same."""
    before = built.images()
    err = built.build("-t", "app:1", "-o", "type=cacheonly", ".").err
    assert before == built.images()
    assert "exporting" not in err
    assert {True} == set(built.cached("-o", "type=cacheonly", ".").values())

    built.build("-t", "app:1", "-o", "type=cacheonly", "--load", ".")
    assert {"docker.io/library/app:1"} == built.images() - before


def test_several_outputs(built: Project) -> None:
    """All outputs are written; only one of them can be standard output."""
    built.build("-o", "type=oci,dest=one.tar", "-o", "type=tar,dest=two.tar", "-o", "three", ".")
    assert {"one.tar", "two.tar", "three"} <= {path.name for path in built.cwd.iterdir()}

    assert "standard output" in built.fails("-o", "type=tar", "-o", "type=oci", ".", status=2)[0]


@pytest.mark.peers
@pytest.mark.parametrize(
    "words", [["--push"], ["-o", "type=registry"], ["-o", "type=image,push=true,compression=zstd"]]
)
def test_push(built: Project, registry: str, words: list[str]) -> None:
    """An image that was just built and never written is pushed whole; the metadata has its digest."""
    name = f"{registry}/app:1"
    built.build("-t", name, *words, "--metadata-file", "meta", ".")
    shown = json.loads(tool("skopeo", "inspect", "--tls-verify=false", f"docker://{name}", cwd=built.cwd))

    assert json.loads((built.cwd / "meta").read_text())["containerimage.digest"] == shown["Digest"]
    manifest = json.loads(tool("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}", cwd=built.cwd))
    assert ["zstd" in str(words)] * 3 == [layer["mediaType"].endswith("zstd") for layer in manifest["layers"]]
    assert "no name to push to" in built.fails("--push", ".", status=2)[0]


def test_a_large_layer_is_sent_while_it_is_made(built: Project, fake_registry: FakeRegistry) -> None:
    """Before the image is whole, a layer that nothing else of the build reads is on its way; it is sent once."""
    uploads = Uploads(fake_registry)
    data = random.Random(1).randbytes(3_000_000)
    (built.cwd / "large").write_bytes(data)
    built.dockerfile("FROM busybox", "COPY large /large")

    built.build("-t", f"{fake_registry.host}/app:1", "--push", "--metadata-file", "meta", ".")

    [sent] = [blob for blob in uploads.blobs.values() if data[-1000:] in blob]
    assert ["PATCH"] == [request.method for request in fake_registry.requests if data[-1000:] in request.body]
    order = [request.method for request in fake_registry.requests]
    assert order.index("POST") < order.index("HEAD")  # otherwise it is asked for by its digest first
    assert len(data) <= len(sent)

    (built.cwd / "large").write_bytes(data[::-1])
    built.build("-t", f"{fake_registry.host}/app:2", "-o", "type=image,push=true,compression=gzip", ".")
    manifest = next(request.body for request in fake_registry.requests if request.path == "/v2/app/manifests/2")
    assert ["gzip"] == [layer["mediaType"].rpartition("+")[2] for layer in json.loads(manifest)["layers"][1:]]
    assert {} == uploads.parts


@pytest.mark.parametrize(
    ("words", "compression"), [(["--push"], ""), (["-o", "type=image,push=true,compression=zstd"], "zstd")]
)
def test_noise_is_sent_as_it_is(
    built: Project, fake_registry: FakeRegistry, words: list[str], compression: str
) -> None:
    """A layer that nothing makes smaller is only compressed where the output says so; either way it is sent once."""
    uploads = Uploads(fake_registry)
    (built.cwd / "large").write_bytes(os.urandom(9_000_000))
    built.dockerfile("FROM busybox", "COPY large /large")
    built.build("-t", f"{fake_registry.host}/app:1", *words, ".")
    manifest = next(request.body for request in fake_registry.requests if request.path == "/v2/app/manifests/1")
    assert compression == json.loads(manifest)["layers"][1]["mediaType"].partition("+")[2]
    assert 1 == len([blob for blob in uploads.blobs.values() if len(blob) >= 9_000_000])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("type=oops", "unknown type 'oops'"),
        ("type=oci,size=1", "has no key 'size'"),
        ("type=oci,compression=rar", "unknown compression 'rar'"),
        ("type=oci,tar=perhaps", "neither true nor false"),
        ("type=local", "has no dest"),
        ("type=oci,tar=false", "writes a directory"),
    ],
)
def test_outputs_that_mean_nothing(built: Project, text: str, what: str) -> None:
    """An output that cannot be understood is refused before anything is built."""
    before = built.images()
    assert what in built.fails("-t", "app:1", "-o", text, ".", status=2)[0]
    assert before == built.images()


def test_an_output_that_cannot_be_written(built: Project) -> None:
    """A place that does not exist is named; no half file stays."""
    lines = built.fails("-o", "type=oci,dest=missing/out.tar", ".")
    assert lines[0].startswith("error: cannot write ")
    assert lines[1].startswith("hint: ")
    assert "cannot write" in built.fails("--iidfile", "missing/iid", ".")[0]

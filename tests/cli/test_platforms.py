"""Builds for several platforms, what becomes of the index, and steps for processors that need an emulator."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from layerstore import Digest
from runner.foreign import Reach, _interpreter, elf, reach
from runner.foreign import emulator as foreign_emulator
from tests.building import Project

ARM64 = "linux/arm64"
AMD64 = "linux/amd64"
QEMU = "/usr/bin/qemu-aarch64-static"
HANDLER = f"""\
enabled
interpreter {QEMU}
flags: OC
offset 0
magic 7f454c460201010000000000000000000200b700
mask ffffffffffffff00fffffffffffffffffeffffff
"""
# write(1, "from arm64\n", 11), exit(0): the text lies behind the instructions.
_HELLO = "200080d2 e1000010 620180d2 080880d2 010000d4 000080d2 a80b80d2 010000d4"


@pytest.fixture
def multi(project: Project) -> Project:
    """A Dockerfile without RUN, whose files tell the platform."""
    project.write("linux-arm64", "arm\n")
    project.write("linux-amd64", "amd\n")
    project.dockerfile(
        "FROM scratch",
        "ARG TARGETOS TARGETARCH TARGETPLATFORM",
        "COPY ${TARGETOS}-${TARGETARCH} /file",
        "ENV FOR=$TARGETPLATFORM",
        'CMD ["/file"]',
    )
    return project


def inspected(project: Project, *words: str) -> dict[str, Any]:
    """What `pybuild inspect` says of one image."""
    (document,) = json.loads(project("inspect", *words).out)
    assert isinstance(document, dict)
    return document


def test_an_index_is_kept(multi: Project) -> None:
    """The order is that asked for, doubles are one, variants are normalised; each image has its arguments' values."""
    identity = multi.id("-t", "app:1", "--platform", "linux/arm64/v8,x86_64", "--platform", "aarch64", ".")
    (row,) = [json.loads(line) for line in multi("images", "--format", "json", "--no-trunc", "app").out.splitlines()]

    assert f"{ARM64},{AMD64}" == row["Platforms"]
    for platform, text in ((ARM64, "arm64"), (AMD64, "amd64")):
        shown = inspected(multi, "--platform", platform, "app:1")
        assert (text, ["app:1"]) == (shown["Architecture"], shown["RepoTags"])
        assert f"FOR={platform}" in shown["Config"]["Env"]
    assert "amd64" == inspected(multi, identity)["Architecture"] == inspected(multi, row["ID"][7:19])["Architecture"]
    lines = multi("inspect", "--platform", "s390x", "app:1", status=1).err.splitlines()
    assert "error: app:1 has no image for linux/s390x" == lines[0]
    assert "hint: choose with --platform: linux/arm64, linux/amd64" == lines[1]
    assert "COPY linux-amd64 /file" in multi("history", "--no-trunc", "app:1").out.decode()
    assert identity == multi.id("-t", "app:1", "--platform", f"{ARM64},{AMD64}", ".")
    multi.check()


@pytest.mark.peers
def test_the_digest_of_an_index(multi: Project, registry: str) -> None:
    """-q, --iidfile and --metadata-file tell the digest that the index gets in a registry and in an archive."""
    name = f"{registry}/app:1"
    told = ("-t", name, "--iidfile", "iid", "--metadata-file", "meta", "--platform", f"{ARM64},{AMD64}", ".")
    digest = multi.id(*told)

    assert digest == (multi.cwd / "iid").read_text()
    meta = json.loads((multi.cwd / "meta").read_text())
    assert digest == meta["containerimage.descriptor"].pop("digest") == meta.pop("containerimage.digest")
    assert "application/vnd.oci.image.index.v1+json" == meta.pop("containerimage.descriptor").pop("mediaType")
    assert {"image.name": name} == meta
    assert digest == multi.id("-o", "type=oci,dest=x.tar", *told)
    assert digest == multi.id("--push", *told)
    packed = multi.id("-o", "type=registry,compression=gzip", *told)
    assert digest != packed == json.loads((multi.cwd / "meta").read_text())["containerimage.digest"]
    multi.check()


def test_tag_and_rmi(multi: Project) -> None:
    """A tag is the whole index; its last name takes the images along, one of them alone cannot go."""
    multi.build("-t", "app:1", "--platform", f"{ARM64},{AMD64}", ".")
    multi("tag", "app:1", "app:2")
    member = inspected(multi, "app:1")["Id"]
    assert "is part of" in multi("rmi", member, status=1).err
    multi("rmi", "app:1")
    assert member == inspected(multi, "app:2")["Id"]
    multi("rmi", "app:2")
    assert {"docker.io/library/busybox:latest"} == multi.images()
    multi.check()


def test_stages_on_the_build_platform_are_built_once(project: Project) -> None:
    """What does not depend on the target is one vertex; what does tells both platforms in its name."""
    project.dockerfile(
        "FROM --platform=$BUILDPLATFORM busybox AS same",
        "RUN echo same > /same",
        "FROM --platform=$BUILDPLATFORM busybox AS own",
        "ARG TARGETARCH",
        "RUN echo $TARGETARCH > /own",
        "FROM scratch",
        "COPY --from=same /same /",
        "COPY --from=own /own /",
    )
    names = list(project.vertexes("-o", "type=local,dest=out", "--platform", f"{AMD64},{ARM64}", "."))

    assert {
        "[linux/amd64 same 1/2] FROM docker.io/library/busybox:latest",
        "[linux/amd64 same 2/2] RUN echo same > /same",
        "[linux/amd64 own 2/2] RUN echo amd64 > /own",
        "[linux/amd64->arm64 own 2/2] RUN echo arm64 > /own",
        "[linux/amd64 stage-2 1/2] COPY --from=same /same /",
        "[linux/arm64 stage-2 2/2] COPY --from=own /own /",
    } <= set(names)
    assert [1, 1] == [sum(text in name for name in names) for text in ("RUN echo same", "COPY --from=same")]
    out = project.cwd / "out"
    assert ["linux_amd64", "linux_arm64"] == sorted(os.listdir(out))
    assert ("amd64\n", "arm64\n") == tuple((out / f"linux_{one}/own").read_text() for one in ("amd64", "arm64"))
    graph = project("graph", "--platform", f"{AMD64},{ARM64}").out.decode()
    assert 1 == graph.count("RUN echo same")
    assert 2 == graph.count("own 2/2] RUN")
    project.dockerfile("FROM scratch", "ARG TARGETARCH")
    assert "arm64" in project("outline", "--platform", ARM64).out.decode()


def test_the_index_as_a_base(multi: Project) -> None:
    """FROM takes the member for each platform, without asking a registry."""
    multi.build("-t", "app:1", "--platform", f"{AMD64},{ARM64}", ".")
    multi.dockerfile("FROM app:1", "LABEL more=1")
    multi.build("-t", "app:2", "--platform", f"{AMD64},{ARM64}", ".")

    assert "FOR=linux/arm64" in inspected(multi, "--platform", ARM64, "app:2")["Config"]["Env"]
    assert inspected(multi, "app:1")["RootFS"] == inspected(multi, "app:2")["RootFS"]


@pytest.mark.peers
def test_push_and_pull(multi: Project, registry: str, tmp_path: Path) -> None:
    """The registry has an index in the order asked for; pulls for two platforms are both there under the name."""
    name = f"{registry}/app:1"
    multi.build(
        "-t", name, "--push", "--metadata-file", "meta", "--platform", f"{ARM64},linux/arm,{AMD64}", ".", status=1
    )
    multi.write("linux-arm", "arm7\n")
    multi.build("-t", name, "--push", "--metadata-file", "meta", "--platform", f"{ARM64},linux/arm,{AMD64}", ".")
    raw = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    ).stdout
    index = json.loads(raw)

    assert "application/vnd.oci.image.index.v1+json" == index["mediaType"]
    assert [
        {"architecture": "arm64", "os": "linux"},
        {"architecture": "arm", "os": "linux", "variant": "v7"},
        {"architecture": "amd64", "os": "linux"},
    ] == [one["platform"] for one in index["manifests"]]
    meta = json.loads((multi.cwd / "meta").read_text())
    assert {"containerimage.descriptor", "containerimage.digest", "image.name"} == set(meta)
    other = Project(tmp_path / "other", multi.cwd)
    for platform in (ARM64, AMD64):
        other("pull", "-q", "--platform", platform, name)
    assert inspected(multi, "--platform", ARM64, name)["Id"] == inspected(other, "--platform", ARM64, name)["Id"]
    assert inspected(multi, name)["Id"] == inspected(other, name)["Id"]
    digests = {f"{registry}/app@{one}" for one in (meta["containerimage.digest"], Digest.of(raw))}
    assert digests == set(inspected(multi, name)["RepoDigests"])
    other.check()


@pytest.mark.peers
def test_save_and_load(multi: Project, tmp_path: Path) -> None:
    """An OCI layout holds the index, which skopeo copies whole; a docker archive holds this machine's image."""
    multi.build("-t", "app:1", "-o", "type=oci,dest=built.tar", "--platform", f"{ARM64},{AMD64}", ".")
    multi("save", "--format", "oci-dir", "-o", "layout", "app:1")
    subprocess.run(["skopeo", "copy", "-q", "--all", "oci:layout:1", "oci:copy:1"], cwd=multi.cwd, check=True)
    other = Project(tmp_path / "other", multi.cwd)
    other("load", "-i", "built.tar")
    assert inspected(multi, "--platform", ARM64, "app:1")["Id"] == inspected(other, "--platform", ARM64, "app:1")["Id"]

    multi("save", "-o", "docker.tar", "app:1")
    with tarfile.open(multi.cwd / "docker.tar") as archive:
        manifest = archive.extractfile("manifest.json")
        assert manifest is not None
        (entry,) = json.load(manifest)
    assert f"blobs/sha256/{inspected(multi, 'app:1')['Id'][7:]}" == entry["Config"]
    message = multi.fails("-o", "type=docker,dest=x", "--platform", f"{ARM64},{AMD64}", ".", status=2)[0]
    assert "holds one platform" in message


def test_files_of_several_platforms(multi: Project) -> None:
    """`platform-split=false` joins trees that do not collide; `mode=delete` takes away what no image has."""
    both = ("--platform", f"{ARM64},{AMD64}", ".")
    assert (
        "/file is in the image for linux/arm64" in multi.fails("-o", "type=local,dest=x,platform-split=false", *both)[0]
    )
    multi.write("out/linux_arm64/stale/file", "")
    multi.write("out/linux_arm64/file", "mine")
    multi.write("out/mine", "")
    (multi.cwd / "out/link").symlink_to("/etc")
    multi.build("-o", "out", *both)
    assert (multi.cwd / "out/mine").exists()
    multi.build("-o", "type=local,dest=out,mode=delete", *both)
    assert ["linux_amd64", "linux_arm64"] == sorted(os.listdir(multi.cwd / "out"))
    assert ["file"] == os.listdir(multi.cwd / "out/linux_arm64")
    assert os.path.isdir("/etc")
    assert {"linux_arm64/file": b"arm\n", "linux_amd64/file": b"amd\n"} == multi.files(*both)
    assert {"linux_amd64/file": b"amd\n"} == {
        name: data for name, data in multi.files("--platform", f"{AMD64},{ARM64}", ".").items() if "amd64" in name
    }
    assert "unknown mode" in multi.fails("-o", "type=local,dest=x,mode=move", ".", status=2)[0]


def test_a_base_for_another_platform_only(multi: Project) -> None:
    """What the store has for another platform is built on where no registry has better, with the rule's warning."""
    name = "127.0.0.1:1/only:1"
    multi.build("-t", name, "--platform", ARM64, ".")
    multi.dockerfile(f"FROM {name}", "COPY linux-arm64 /more")

    err = multi.build("-t", "app", ".").err
    assert f'Base image {name} was pulled with platform "{ARM64}", expected "{AMD64}" for current build' in err
    assert "arm64" == multi.config("app:latest")["architecture"]
    assert "127.0.0.1:1" in multi.fails("--pull", ".")[0]


@pytest.mark.peers
def test_a_registry_with_the_right_platform(multi: Project, registry: str, tmp_path: Path) -> None:
    """Of an image that is here for another platform, the registry is asked first."""
    name = f"{registry}/app:1"
    multi.build("-t", name, "--push", ".")
    (tmp_path / "other").mkdir()
    other = Project(tmp_path / "other-store", tmp_path / "other")
    other.write("linux-arm64", "arm")
    other.dockerfile("FROM scratch", "COPY linux-arm64 /")
    other.build("-t", name, "--platform", ARM64, ".")
    other.dockerfile(f"FROM {name}", "COPY linux-arm64 /")

    assert "InvalidBaseImagePlatform" not in other.build("-t", "app", ".").err
    assert "amd64" == other.config("app:latest")["architecture"]


# -- emulators --------------------------------------------------------------------------------------------------------


def test_a_processor_that_does_not_run_here(project: Project) -> None:
    """Refused at the RUN before anything is done, with what to install; without RUN the same build works."""
    project.write("a", "1")
    project.dockerfile("FROM busybox AS first", "RUN echo made", "FROM scratch", "COPY a /", 'RUN ["/a"]')
    lines = project.fails("--platform", f"{AMD64},linux/sparc64", ".")

    assert (
        "Dockerfile:5:1: error[platform]: this machine (linux/amd64) cannot run programs for linux/sparc64" == lines[0]
    )
    assert any("qemu-user-static and binfmt-support" in line and "--install sparc64" in line for line in lines)
    assert not (project.root / "logs").exists()
    project.dockerfile("FROM scratch", "COPY a /", "WORKDIR /x")
    project.build("-t", "app", "--platform", "linux/sparc64", ".")
    assert "sparc64" == project.config("app:latest")["architecture"]


@contextlib.contextmanager
def registered(place: Path, flags: str) -> Iterator[None]:
    """Programs for arm64 run through qemu meanwhile."""
    name = "pybuild-test-arm64"
    place.mkdir()
    magic = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
    mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"
    subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", place], check=True)
    try:
        (place / "register").write_text(f":{name}:M::{magic}:{mask}:{QEMU}:{flags}")
        try:
            yield
        finally:
            (place / name).write_text("-1")
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[None]:
    """Programs for arm64 run through qemu while a test does, in every root file system."""
    if reach("arm64", tmp_path) is Reach.EVERYWHERE:
        yield
        return
    with registered(tmp_path / "binfmt", "F"):
        yield


@pytest.mark.root
@pytest.mark.usefixtures("emulator")
def test_a_foreign_step_runs_through_an_emulator(project: Project, tmp_path: Path) -> None:
    """A program for arm64 runs in a RUN on another machine; afterwards the step is cached like any other."""
    assert Reach.EVERYWHERE is reach("arm64", tmp_path)
    project.write("hello", elf("arm64", bytes.fromhex(_HELLO) + b"from arm64\n"), mode=0o755)
    project.dockerfile("FROM scratch", "COPY hello /", 'RUN ["/hello"]')
    err = project.build("--platform", ARM64, ".").err

    assert "from arm64" in err
    assert {True} == set(project.cached("--platform", ARM64, ".").values())


@pytest.mark.root
def test_an_emulator_that_the_image_has_to_hold(project: Project, tmp_path: Path) -> None:
    """Registered without flag F it is looked for in the image: an image that has it works, another one is refused."""
    project.write("hello", elf("arm64", bytes.fromhex(_HELLO) + b"from arm64\n"), mode=0o755)
    project.write("qemu", Path(QEMU).read_bytes(), mode=0o755)
    lines = ("FROM scratch", "COPY hello /", 'RUN ["/hello"]')
    with registered(tmp_path / "binfmt", "OC"):
        assert QEMU == foreign_emulator("arm64")
        project.dockerfile(*lines)
        told = project.fails("--platform", ARM64, ".")
        project.dockerfile(*lines[:2], f"COPY qemu {QEMU}", lines[2])
        assert "from arm64" in project.build("--platform", ARM64, ".").err

    assert f"Dockerfile:3:1: error[platform]: programs for {ARM64} need {QEMU}, which is not in the image" in told[0]
    assert "--install arm64" in told[-1]


def test_handlers_are_read_as_the_kernel_shows_them() -> None:
    """Only one that is enabled, runs the program and lacks flag F names what an image has to hold."""
    assert QEMU == _interpreter(HANDLER, elf("arm64"))
    for other in (HANDLER.replace("enabled", "disabled"), HANDLER.replace("OC", "OCF"), "enabled\nextension .x\n"):
        assert None is _interpreter(other, elf("arm64"))
    assert None is _interpreter(HANDLER, elf("riscv64"))


def test_programs_of_this_machine_run(tmp_path: Path) -> None:
    """What tries architectures says that this machine's own runs, and that an unknown one does not."""
    own = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    assert (Reach.EVERYWHERE, Reach.NOWHERE) == (reach(own, tmp_path), reach("pdp11", tmp_path))
    assert [] == os.listdir(tmp_path)

"""Secrets leave no byte behind: not in layers, configs, history, logs, cache records or build records."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from tests.building import Project

FILE, VARIABLE, NAMED = "filed-c95f1e", "varied-77ab03", "named-40d2ef"
LINES = ("-----BEGIN KEY-----", "b64first8df1", "b64second02ac")
VALUES = (FILE, VARIABLE, NAMED, *LINES)
GIVEN = (
    "--secret", "id=f,src=token.txt", "--secret", "id=v,env=MINE",
    "--secret", "id=named", "--secret", "id=key,src=key.pem",
)  # fmt: skip
ENV = {"MINE": VARIABLE, "named": NAMED}

USES = (
    "FROM busybox AS tools",
    "RUN --mount=type=secret,id=f,required sha256sum /run/secrets/f > /sum",
    "FROM busybox",
    "LABEL about=secrets",
    "RUN --mount=type=secret,id=f,required cat /run/secrets/f; cat /run/secrets/f >&2",
    "RUN --mount=type=secret,id=v,env=V,required env && echo in the middle of $V.",
    "RUN --mount=type=secret,id=named,target=/etc/named,mode=0444,required cat /etc/named && ls -l /etc/named",
    "RUN --mount=type=secret,id=key,target=/k,env=KEY,required while read -r l; do echo \"$l\"; done < /k",
    "RUN --mount=type=cache,target=/c --mount=type=secret,id=f,required wc -c < /run/secrets/f > /c/size",
    "COPY --from=tools /sum /",
    "RUN ls /run/secrets /etc/named /k 2>/dev/null || echo gone",
)  # fmt: skip


@pytest.fixture
def project(project: Project) -> Project:
    """A project whose secrets lie beside the context."""
    project.write("token.txt", FILE + "\n")
    project.write("key.pem", "\n".join(LINES) + "\n")
    project.write("context/Dockerfile", "\n".join(USES) + "\n")
    return project


def _pieces(root: Path) -> Iterator[tuple[str, bytes]]:
    """Everything that files below `root` can say: names, link targets, attributes and content, also unpacked."""
    for folder, _, names in os.walk(root):
        for path in (os.path.join(folder, name) for name in names):
            yield path, os.fsencode(path)
            for name in os.listxattr(path, follow_symlinks=False):
                yield path, name.encode() + os.getxattr(path, name, follow_symlinks=False)
            if os.path.islink(path):
                yield path, os.readlink(path).encode()
            elif os.path.isfile(path):
                data = Path(path).read_bytes()
                yield path, data
                yield from ((path, content) for content in _unpacked(data))


def _unpacked(data: bytes) -> Iterator[bytes]:
    """What is compressed in `data`, and what an archive in it holds, however deep."""
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
        yield data
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        yield data
    if data[257:262] == b"ustar":
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.isreg() else None
                if content is not None:
                    inner = content.read()
                    yield inner
                    yield from _unpacked(inner)


def _found(root: Path) -> set[tuple[str, str]]:
    """Where below `root` which value can be read."""
    return {(path, value) for path, data in _pieces(root) for value in VALUES if value.encode() in data}


def test_a_secret_stays_nowhere(project: Project) -> None:
    """After builds that print all their secrets, with a failed one, nothing in the store has a byte of them."""
    built = project.build(*GIVEN, "-t", "app:1", "context", env=ENV)
    assert "in the middle of ***." in built.err
    project.build("--no-cache", *GIVEN, "-t", "app:1", "context", env=ENV)
    project.build(*GIVEN, "--output", "type=oci,dest=app.tar,compression=zstd", "context", env=ENV)
    project("save", "-o", "saved.tar", "app:1")
    project.write("context/Dockerfile", "\n".join([*USES, "RUN --mount=type=secret,id=f cat /run/secrets/f; exit 3"]))
    failed = project.build(*GIVEN, "context", env=ENV, status=1)

    for done in (built, failed):
        assert [] == [value for value in VALUES if value in done.err]
    assert "***" in failed.err
    archives = project.cwd / "archives"
    archives.mkdir()
    for name in ("app.tar", "saved.tar"):
        os.rename(project.cwd / name, archives / name)
    assert set() == _found(project.root) | _found(archives)
    shown = project("inspect", "app:1").out + project("history", "--no-trunc", "app:1").out
    assert [] == [value for value in VALUES if value.encode() in shown]


def test_the_search_finds() -> None:
    """A value is found in an archive in a compressed archive: the search above would see one."""
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as inner:
        member = tarfile.TarInfo("x")
        member.size = len(FILE)
        inner.addfile(member, io.BytesIO(FILE.encode()))

    packed = gzip.compress(tar.getvalue())
    assert FILE.encode() not in packed
    assert any(FILE.encode() == data for data in _unpacked(packed))


def test_logs_in_every_form(project: Project) -> None:
    """The events that programs read have the mask, too."""
    err = project("build", "--progress", "rawjson", *GIVEN, "context", env=ENV).err

    logs = [log["data"] for line in err.splitlines() for log in json.loads(line).get("logs", ())]
    text = b"".join(map(base64.b64decode, logs)).decode()
    assert "in the middle of ***." in text
    assert [] == [value for value in VALUES if value in text + err]

"""`pybuild targets` and `pybuild outline`."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import grammar
from builder.cli.app import app
from builder.errors import LocatedError, UsageError
from layerstore.platforms import Platform

SOURCE = """\
# BASE the image
ARG BASE=busy${SFX}
ARG SFX=box
ARG UNUSED=1
FROM --platform=linux/amd64 busybox AS tools
ARG TOOL=2
# build makes it
FROM $BASE AS build
# V a version
ARG V=1
ENV E=e
ARG W=$V.$E
ARG SFX
RUN --mount=type=secret,id=tok --mount=type=ssh x
RUN --mount=type=secret,id=tok,required --mount=type=secret,target=/run/secrets/two x
FROM scratch
COPY --from=build /x /x
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    """The path of the Dockerfile."""
    path = tmp_path / "Dockerfile"
    path.write_text(SOURCE)
    return str(path)


def call(*words: str) -> str:
    """Run pybuild and return its output; errors are raised."""
    result = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout


def at(line: int, first: int, last: int) -> dict[str, Any]:
    """A place on one line as BuildKit writes it."""
    return {"ranges": [{"start": {"line": line, "character": first}, "end": {"line": line, "character": last}}]}


def test_targets(file: str) -> None:
    """A table for people."""
    assert call("targets", file) == (
        "TARGET      BASE      DESCRIPTION\ntools       busybox\nbuild       $BASE     makes it\n(default)   scratch\n"
    )


def test_targets_of_a_file_that_does_not_hold_together(file: str) -> None:
    """The stages are known all the same, as with BuildKit; what is no Dockerfile has none."""
    Path(file).write_text("FROM a AS b\nCOPY --from=7 x y\nFROM c AS d\nCOPY --from=d x y\n")
    assert call("targets", file).splitlines()[1:] == ["b             a", "d (default)   c"]
    Path(file).write_text("ENV a=b\nFROM c\n")
    with pytest.raises(grammar.ResolveError, match="no build stage in current context"):
        call("targets", file)


def test_targets_as_json(file: str) -> None:
    """The shape of BuildKit's: what is empty is left out, the file is enclosed."""
    assert json.loads(call("targets", "--format", "json", file)) == {
        "targets": [
            {"name": "tools", "base": "busybox", "platform": "linux/amd64", "location": at(5, 0, 44)},
            {"name": "build", "description": "makes it", "base": "$BASE", "location": at(8, 0, 19)},
            {"default": True, "base": "scratch", "location": at(16, 0, 12)},
        ],
        "sources": [base64.b64encode(SOURCE.encode()).decode()],
    }


def test_outline(file: str) -> None:
    """The default target needs another stage, whose arguments and secrets count; what is not needed is left out."""
    assert call("outline", "--build-arg", "V=7", file) == (
        "BUILD ARG   VALUE   DESCRIPTION\n"
        "BASE        busy    the image\n"
        "SFX         box\n"
        "V           7       a version\n"
        "W           7.e\n"
        "\n"
        "SECRET   REQUIRED\n"
        "tok      true\n"
        "two\n"
        "\n"
        "SSH       REQUIRED\n"
        "default\n"
    )


def test_outline_as_json(file: str) -> None:
    """The shape of BuildKit's, for a target with a name."""
    found = json.loads(call("outline", "--target", "BUILD", "--format", "json", file))

    assert found.pop("args")[2] == {"name": "V", "description": "a version", "value": "1", "location": at(10, 0, 7)}
    assert found == {
        "name": "build",
        "description": "makes it",
        "secrets": [
            {"name": "tok", "required": True, "location": at(14, 4, 30)},
            {"name": "two", "location": at(15, 40, 83)},
        ],
        "ssh": [{"name": "default", "location": at(14, 31, 47)}],
        "sources": [base64.b64encode(SOURCE.encode()).decode()],
    }


def test_another_target(file: str) -> None:
    """Only its own arguments, and its name above them."""
    assert (
        call("outline", "--target", "tools", file)
        == "TARGET:      tools\n\nBUILD ARG   VALUE   DESCRIPTION\nTOOL        2\n"
    )


def test_names_of_secrets_are_expanded(file: str) -> None:
    """A mount may take its options from arguments."""
    Path(file).write_text("FROM a\nARG ID=x\nRUN --mount=type=secret,id=$ID.y,required=true z\n")

    assert call("outline", file).endswith("SECRET   REQUIRED\nx.y      true\n")
    Path(file).write_text("FROM a\nARG ID=x\nRUN --mount=type=secret,id=a,mode=$ID z\n")
    with pytest.raises(LocatedError) as caught:
        call("outline", file)
    assert caught.value.render().startswith(f"{file}:3:")


def test_errors_have_their_place(file: str) -> None:
    """A target that is not there, and a word that cannot be expanded."""
    with pytest.raises(LocatedError, match="could not be found"):
        call("outline", "--target", "tool", file)
    Path(file).write_text("FROM a\nARG B=${\n")
    with pytest.raises(LocatedError) as caught:
        call("outline", file)
    assert caught.value.render().startswith(f"{file}:2:")


PLATFORMS = """\
ARG SUFFIX=-$TARGETARCH
FROM --platform=$BUILDPLATFORM tools AS tools
FROM base$SUFFIX AS base
ARG TARGETARCH
ARG NAME=app-$TARGETARCH
FROM tools AS more
"""


def test_targets_for_platforms(tmp_path: Path) -> None:
    """With platforms or arguments bases and platforms are a build's, and of several all that a stage has."""
    file = tmp_path / "Dockerfile"
    file.write_text(PLATFORMS)
    own = str(Platform.host(os.uname().machine))

    def listed(*words: str) -> list[tuple[str, str]]:
        found = json.loads(call("targets", "--format", "json", *words, str(file)))["targets"]
        return [(one["base"], one.get("platform", "")) for one in found]

    assert [("tools", "$BUILDPLATFORM"), ("base$SUFFIX", ""), ("tools", "")] == listed()
    assert [("tools", own), ("base-s390x", "linux/s390x"), ("tools", own)] == listed("--platform", "linux/s390x")
    both = listed("--platform", "linux/s390x,riscv64", "--build-arg", "SUFFIX=")
    assert [("tools", own), ("base", "linux/s390x,linux/riscv64"), ("tools", own)] == both
    assert call("targets", "--platform", "s390x", "--platform", "riscv64", str(file)).splitlines()[2].split() == [
        "base", "base-s390x,base-riscv64", "linux/s390x,linux/riscv64",
    ]  # fmt: skip


def test_outline_for_platforms(tmp_path: Path) -> None:
    """There is one outline for several platforms if it is the same for all of them, and else an error."""
    file = tmp_path / "Dockerfile"
    file.write_text(PLATFORMS)
    both = ("--platform", "linux/s390x,linux/riscv64", str(file))

    assert "app-s390x" in call("outline", "--target", "base", "--platform", "s390x", str(file))
    assert call("outline", *both) == call("outline", str(file))
    with pytest.raises(UsageError, match="the outlines for linux/s390x and linux/riscv64 differ") as caught:
        call("outline", "--target", "base", *both)
    assert "one --platform at a time" in caught.value.hint

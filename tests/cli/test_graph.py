"""`pybuild graph`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args
from xml.etree import ElementTree

import pytest
from click.testing import CliRunner
from syrupy.assertion import SnapshotAssertion

from builder.cli.app import app
from builder.cli.graph import _KINDS
from builder.errors import LocatedError
from builder.ops import Op
from layerstore import Store

SOURCE = """\
ARG BASE=here
FROM $BASE AS build
RUN echo "<a>" \\\\
FROM elsewhere AS unneeded
RUN no
FROM scratch
COPY --from=build /x /x
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with an image that has a trigger, and beside it the Dockerfile."""
    with Store.open(tmp_path / "store") as store:
        config = {"os": "linux", "architecture": "amd64", "config": {"OnBuild": ["WORKDIR /w"]}}
        document = {**config, "rootfs": {"type": "layers", "diff_ids": []}}
        store.images.put(json.dumps(document).encode(), layers=[], names=["docker.io/library/here:latest"])
    (tmp_path / "Dockerfile").write_text(SOURCE)
    return tmp_path


def graph(root: Path, *words: str) -> tuple[str, str]:
    """Run the command; return what it printed to both streams."""
    words = ("--root", str(root / "store"), "graph", *words, str(root / "Dockerfile"))
    result = CliRunner().invoke(app, words, catch_exceptions=False, standalone_mode=False)
    if result.exception is not None:
        raise result.exception
    return result.stdout, result.stderr


def test_text(root: Path) -> None:
    """Only what the target needs, triggers of a base in the store included."""
    lines = graph(root)[0].splitlines()

    assert [line.split(" ", 1)[0] for line in lines] == ["#0", "#1", "#2", "#3", "#4"]
    assert [line.partition("  <- ")[2] for line in lines] == ["", "", "#1", "#2", "#0, #3"]
    assert "ONBUILD WORKDIR /w" in lines[2]
    assert graph(root)[1] == ""


def test_a_base_that_is_not_here(root: Path) -> None:
    """Nothing is fetched: an image that the store lacks counts as empty, and that is said."""
    out, err = graph(root, "--target", "unneeded")

    assert out == "#0 [unneeded 1/2] FROM docker.io/library/elsewhere:latest\n#1 [unneeded 2/2] RUN no  <- #0\n"
    assert err == "note: docker.io/library/elsewhere:latest is not in the store and counts as empty\n"


def test_json(root: Path) -> None:
    """Vertices name their inputs by id, inputs come first, the target last."""
    shown = json.loads(graph(root, "--format", "json")[0])
    vertices = shown["vertices"]

    assert [one["kind"] for one in vertices] == ["scratch", "image", "mkdir", "run", "copy"]
    assert [one["line"] for one in vertices] == [None, 2, 2, 3, 7]
    assert vertices[4]["inputs"] == [vertices[0]["id"], vertices[3]["id"]]
    assert shown["target"] == vertices[4]["id"]


def test_dot(root: Path) -> None:
    """Quotes and backslashes of a label are escaped."""
    lines = graph(root, "--format", "dot")[0].splitlines()

    assert lines[:3] == ["digraph build {", "  node [shape=box];", '  v0 [label="scratch"];']
    assert lines[5].endswith('RUN echo \\"<a>\\" \\\\"];')
    assert lines[7:] == ["  v1 -> v2;", "  v2 -> v3;", "  v0 -> v4;", "  v3 -> v4;", "}"]


def test_mermaid(root: Path) -> None:
    """What Mermaid would read as syntax is written as entities."""
    lines = graph(root, "--format", "mermaid")[0].splitlines()

    assert lines[:2] == ["flowchart TD", '  v0["scratch"]']
    assert lines[4].endswith('RUN echo #quot;#lt;a#gt;#quot; \\"]')
    assert lines[6:] == ["  v1 --> v2", "  v2 --> v3", "  v0 --> v4", "  v3 --> v4"]


def test_errors_have_their_place(root: Path) -> None:
    """What the plan refuses is shown where it is written."""
    (root / "Dockerfile").write_text("FROM a\nWORKDIR ${\n")

    with pytest.raises(LocatedError) as caught:
        graph(root)
    assert caught.value.render().startswith(f"{root}/Dockerfile:2:")


def test_every_operation_has_a_kind() -> None:
    """A new operation cannot be left out of the graph."""
    assert set(get_args(Op)) == set(_KINDS)


PICTURED = """\
FROM scratch AS base
WORKDIR /src
COPY <<EOF /a
EOF
FROM base AS lint
COPY . .
RUN lint "<&>" --with=a-command-line --that-is=longer-than-the-boxes --are-wide
FROM base AS build
COPY . .
RUN echo 日本語日本語日本語日本語日本語日本語日本語日本語日本語日本語
FROM scratch
COPY --from=lint /ok /
COPY --from=build /out /
"""


def test_svg(root: Path, snapshot: SnapshotAssertion) -> None:
    """A picture that stands alone: well-formed, whole names in titles, cut ones in boxes, the same every time."""
    (root / "Dockerfile").write_text(PICTURED)
    picture = graph(root, "--format", "svg")[0]

    assert snapshot == picture.replace(f"{root}/", "")
    assert picture == graph(root, "--format", "svg")[0]
    found = ElementTree.fromstring(picture)
    titles = [one.text for one in found.iter("{http://www.w3.org/2000/svg}title")]
    assert [str(root / "Dockerfile"), *_names(root)] == titles
    shown = {one.text for one in found.iter("{http://www.w3.org/2000/svg}text")}
    assert 'RUN lint "<&>" --with=a-command-line --that-is=…' in shown
    assert 1 == sum("target" in one.get("class", "") for one in found.iter("{http://www.w3.org/2000/svg}rect"))
    assert "http" not in picture.replace("http://www.w3.org/2000/svg", "")


def _names(root: Path) -> list[str]:
    return [vertex["name"] for vertex in json.loads(graph(root, "--format", "json")[0])["vertices"]]


def test_svg_of_anything(root: Path) -> None:
    """Control characters, which XML cannot hold, and bytes that are no text do not break the picture."""
    (root / "Dockerfile").write_bytes(b"FROM scratch\nRUN a \x1b[31m \xff \x00\n")

    text = ElementTree.fromstring(graph(root, "--format", "svg")[0]).findtext(".//{*}text[2]") or ""
    assert text.startswith("RUN a \ufffd[31m")

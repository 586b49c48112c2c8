"""How `pybuild build` shows what it does."""

from __future__ import annotations

import base64
import json
import os
import pty
import re

import pytest

from tests.building import Project, wait_for


@pytest.fixture
def noisy(project: Project) -> Project:
    """A project whose step prints a word."""
    project.dockerfile("FROM busybox", "RUN echo a-word")
    return project


def test_plain(noisy: Project) -> None:
    """Steps, their output, and at the end what was written and named."""
    done = noisy.build("-t", "a:1", "-t", "b:2", ".")
    image = noisy.id(".")

    assert b"" == done.out
    assert re.search(r"^#2 \[2/2\] RUN echo a-word\n#2 \d\.\d{3} a-word\n#2 DONE \d\.\ds$", done.err, re.M)
    assert done.err.splitlines()[-5:-1] == [
        "#3 exporting to image",
        f"#3 writing image {image} done",
        "#3 naming to docker.io/library/a:1 done",
        "#3 naming to docker.io/library/b:2 done",
    ]


def test_quiet_and_none(noisy: Project) -> None:
    """-q and quiet print the image's ID only, none nothing."""
    done = noisy("build", "-q", ".")
    assert re.fullmatch(rb"sha256:[0-9a-f]{64}\n", done.out)
    assert "" == done.err
    assert done == noisy("build", "--progress", "quiet", ".")
    assert (b"", "") == ((none := noisy("build", "--progress", "none", ".")).out, none.err)


def test_rawjson(noisy: Project) -> None:
    """Every line is JSON of the shape of BuildKit's; logs are base64."""
    lines = [json.loads(line) for line in noisy("build", "--progress", "rawjson", "-t", "a", ".").err.splitlines()]
    assert {"vertexes", "statuses", "logs"} == {key for line in lines for key in line}
    assert b"a-word\n" == b"".join(base64.b64decode(log["data"]) for line in lines for log in line.get("logs", ()))
    assert "naming to docker.io/library/a:latest" in [one["id"] for line in lines for one in line.get("statuses", ())]


def test_terminal(noisy: Project) -> None:
    """On a terminal the steps end up as lines with their times, and the whole as a header."""
    ours, theirs = pty.openpty()
    try:
        with noisy.running("--progress", "tty", "-t", "a:1", ".", stderr=theirs) as process:
            os.close(theirs)
            seen = b""
            while True:
                try:
                    block = os.read(ours, 65536)
                except OSError:
                    break
                if not block:
                    break
                seen += block
            assert 0 == wait_for(lambda: process.poll() is not None and [process.returncode])[0]
    finally:
        os.close(ours)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert "FINISHED" in text
    assert " => [2/2] RUN echo a-word" in text
    assert " => => naming to docker.io/library/a:1" in text


def test_a_mode_that_does_not_exist(noisy: Project) -> None:
    """It is refused before anything is done; tty needs a terminal."""
    assert "no progress called 'loud'" in noisy("build", "--progress", "loud", ".", status=2).err
    assert "needs a terminal" in noisy("build", "--progress", "tty", ".", status=2).err

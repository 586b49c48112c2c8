"""What each command may load: starting takes longer than most of the work, so what is heavy has to be worth it.

What a cached build loads is pinned in `tests/cli/test_build.py`, module by module.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Pybuild
from tests.runcli import REPOSITORY, Cli

HEAVY = frozenset(
    {"asyncio", "click", "ctypes", "dataclasses", "email", "grammar", "inspect", "json", "lark", "layerstore.layers",
     "pyroute2", "runner.spec", "socket", "_sqlite3", "subprocess", "tqdm", "urllib3", "zstandard"}
)  # fmt: skip
"""Modules of 2 ms and more, and those of our own that bring many others."""

STORE = frozenset({"click", "inspect", "json", "_sqlite3"})
"""What any command needs that looks into the store, with click for the command line (`inspect` is click's)."""

SIZES = STORE | {"layerstore.layers"}

DOCKERFILE = frozenset({"click", "grammar", "inspect"})

RUN = frozenset({"ctypes", "json", "layerstore.layers", "runner.spec", "_sqlite3"})

SEEN = """
import atexit, sys
atexit.register(lambda: sys.stderr.write("\\n" + " ".join(sys.modules)))
from builder.cli import main
main(sys.argv[1:])
"""


def loaded(root: Path, *words: str) -> frozenset[str]:
    """The heavy modules that a call has loaded when it ends."""
    argv = [sys.executable, "-c", SEEN, "--root", str(root), *words]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    return HEAVY & set(done.stderr.rpartition("\n")[2].split())


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        (("--help",), frozenset({"click", "inspect"})),
        (("run", "--help"), frozenset({"click", "inspect"})),
        (("images",), SIZES),
        (("tag", "box", "box:2"), STORE),
        (("inspect", "box"), SIZES),
        (("history", "box"), SIZES),
        (("ps", "-a"), frozenset({"click", "inspect", "json"})),
        (("targets", "examples/hello/Dockerfile"), DOCKERFILE | {"json", "_sqlite3"}),
        (("parse", "examples/hello/Dockerfile"), DOCKERFILE | {"json"}),
        (("fmt", "--check", "examples/hello/Dockerfile"), DOCKERFILE),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_loads_no_more_than_it_needs(words: tuple[str, ...], allowed: frozenset[str], tmp_path: Path) -> None:
    """None of the heavy modules but those that the command's work needs."""
    cli = Cli(tmp_path / "store")
    cli.add_image("box")

    assert frozenset() == loaded(cli.root, *words) - allowed


@pytest.mark.root
@pytest.mark.parametrize("network", ["host", "none", "bridge"])
def test_a_container_is_run_without_click_dataclasses_and_pyroute2(network: str, tmp_path: Path) -> None:
    """A plain `run` reads its words, and asks the kernel for its network, without any library."""
    cli = Cli(tmp_path / "store")
    cli.add_image("box")

    expected = RUN | {"socket"} if network == "bridge" else RUN

    assert expected == loaded(cli.root, "run", "--rm", "--network", network, "box", "true")


def test_version_loads_none(pybuild: Pybuild) -> None:
    """Asking for the version loads nothing of the table."""
    argv = [sys.executable, "-c", SEEN, "--version"]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=REPOSITORY, env=pybuild.base(), check=True)

    assert frozenset() == HEAVY & set(done.stderr.rpartition("\n")[2].split())

"""A real pybuild process with a store of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.building import base_store, project, registry

__all__ = ["base_store", "project", "registry"]

PROJECT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True)
class Done:
    """What a command left: exit status and output."""

    status: int
    out: str
    err: str


@dataclass(slots=True)
class Pybuild:
    """Runs pybuild in `cwd` with the store `root`; nothing of the user's environment reaches it."""

    root: Path
    cwd: Path
    environ: dict[str, str] = field(default_factory=dict)

    def __call__(self, *words: str, status: int = 0, stdin: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run `pybuild WORDS`; the exit status has to be `status`."""
        done = subprocess.run(
            [sys.executable, "-m", "builder", *words],
            cwd=self.cwd,
            env={**self.base(), **(env or {})},
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert status == done.returncode, done.stdout + done.stderr
        return Done(done.returncode, done.stdout, done.stderr)

    def base(self) -> dict[str, str]:
        """The environment that every command gets."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.cwd),
            "PYTHONPATH": str(PROJECT),
            "PYBUILD_ROOT": str(self.root),
            **self.environ,
        }


@pytest.fixture
def pybuild(tmp_path: Path) -> Pybuild:
    """A pybuild with an empty store and an empty working directory."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    return Pybuild(tmp_path / "store", cwd)

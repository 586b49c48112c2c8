"""Volumes: directories that outlive the containers they are mounted into, below one directory and known by name."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from runner.errors import SpecError
from runner.trees import remove_tree

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
DATA = "_data"
"""The directory of a volume that is mounted, named as docker names it."""


class Volumes:
    """The volumes below one directory."""

    def __init__(self, root: Path) -> None:
        """Take `root`, the directory they are in, made with the first one."""
        self.root = root

    def path(self, name: str) -> Path:
        """Return the directory that is mounted for a volume; SpecError for a name that cannot be one."""
        if not _NAME.match(name):
            raise SpecError(
                f"invalid volume name {name!r}",
                hint="use letters, digits, and after the first also _ . -; an absolute path mounts a directory",
            )
        return self.root / name / DATA

    def create(self, name: str) -> bool:
        """Make a volume if it is not there; return whether it was made now."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o711)
        try:
            path.mkdir()
        except FileExistsError:
            return False
        return True

    def remove(self, names: Iterable[str]) -> None:
        """Take volumes away with all in them; the caller knows that nobody uses them. Those not there are fine."""
        for name in names:
            remove_tree(self.path(name).parent)

    def is_empty(self, name: str) -> bool:
        """Return whether a volume holds nothing yet."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.path(name)) as entries:
            return next(entries, None) is None
        return True


def new_name() -> str:
    """Return the name of a new anonymous volume: 64 hex digits, as docker has them."""
    return os.urandom(32).hex()

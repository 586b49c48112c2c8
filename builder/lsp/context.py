"""What lies in the context of a document, as far as a COPY could take it. Reads one directory at a time."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from builder.dockerignore import IgnoreFile, find_ignore_file
from builder.errors import BuildError

Listing = Callable[[str], list[tuple[str, bool]]]
"""A directory's path below the context → the names in it, sorted, and whether each is a directory."""

_MOST = 1000


def listing(context: Path | None, dockerfile: Path | None) -> Listing:
    """Return what lists the directories of a context without what its ignore file hides; empty without a context."""
    if context is None:
        return lambda _folder: []

    def names(folder: str) -> list[tuple[str, bool]]:
        ignore = _ignore_file(context, dockerfile)
        found = []
        try:
            with os.scandir(context / folder) as entries:
                for entry in entries:
                    path = os.path.join(folder, entry.name)
                    if ignore is None or ignore.has_exceptions or ignore.explain(os.fsencode(path)) is None:
                        found.append((entry.name, entry.is_dir()))
        except OSError:
            return []
        return sorted(found)[:_MOST]

    return names


def _ignore_file(context: Path, dockerfile: Path | None) -> IgnoreFile | None:
    try:
        path = find_ignore_file(context, dockerfile)
        return None if path is None else IgnoreFile(path.read_bytes(), name=path.name)
    except (OSError, BuildError):
        return None  # `check` says what is wrong with it

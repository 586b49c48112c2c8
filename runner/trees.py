"""Removing directory trees, without following symbolic links and without an import that takes longer than the work."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def remove_tree(path: Path | str) -> None:
    """Remove a directory with all in it; one that is not there, or whose entries vanish meanwhile, is fine."""
    try:
        with os.scandir(path) as entries:
            children = [(entry.path, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except FileNotFoundError:
        return
    for child, is_dir in children:
        if is_dir:
            remove_tree(child)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(child)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(path)

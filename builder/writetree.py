"""Entries written straight into a directory that is nobody's layer yet: a step's upper, a fresh cache mount."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from layerstore.entry import Entry
from layerstore.join import join
from layerstore.treewrite import TreeWriter


def write_tree(entries: Iterable[Entry], path: Path) -> None:
    """Write `entries` below the directory `path`; StoreError if the file system refuses."""
    with TreeWriter(os.fsencode(path)) as tree:
        join(entries, None, tree)
        tree.finish()

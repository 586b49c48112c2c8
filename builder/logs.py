"""The output of steps, kept whole in one directory a build; old ones go with the next gc."""

from __future__ import annotations

import shutil
from pathlib import Path

KEPT_SECONDS = 7 * 86400


def sweep_logs(root: Path, *, now: float) -> int:
    """Remove the logs of builds below `root` that ended more than KEPT_SECONDS before `now`; return how many."""
    removed = 0
    for path in sorted(root.iterdir()) if root.is_dir() else ():
        if path.lstat().st_mtime < now - KEPT_SECONDS:
            shutil.rmtree(path)
            removed += 1
    return removed

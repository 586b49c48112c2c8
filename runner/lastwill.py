"""What is done in place of a killed caller: its containers are recorded as ended, its places on the bridge given back.

Executed by the launcher (`runner/launcher.py`) as a program of its own, once the caller's containers are gone.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

NOTHING = ""


def last_will(*, containers: Path | None = None, network: Path | None = None) -> tuple[str, ...]:
    """Return the command that cleans up below a directory of containers and a bridge's state directory."""
    paths = (NOTHING if path is None else os.path.abspath(path) for path in (containers, network))
    return (sys.executable, os.path.abspath(__file__), *paths)


def main(containers: str, network: str) -> None:
    """Clean up; what cannot be cleaned now, the next command does."""
    if containers:
        from runner.container import Containers  # noqa: PLC0415

        Containers(Path(containers), clock=time.time).recover()
    if network and os.path.isdir(network):
        from runner.network import Bridge  # noqa: PLC0415

        Bridge(Path(network)).sweep()


if __name__ == "__main__":
    # A program's own directory comes first on the path: with it, modules here would hide those of the library.
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    main(*sys.argv[1:])

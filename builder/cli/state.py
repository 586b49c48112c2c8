"""Where the containers of a store are, and the state that dies with the machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from builder.cli.context import Settings

if TYPE_CHECKING:
    from layerstore import Store
    from runner.container import Containers


def containers_of(settings: Settings) -> Containers:
    """Return the containers of the store that `settings` name."""
    from runner.container import Containers  # noqa: PLC0415 - not for --help

    return Containers(containers_directory(settings), clock=settings.clock)


def containers_directory(settings: Settings) -> Path:
    """Return where the containers of the store that `settings` name are."""
    return settings.root / "containers"


def state_directory(settings: Settings) -> Path:
    """Return the directory where the bridge's addresses are recorded: /run/pybuild for root."""
    if os.geteuid() == 0:
        return Path("/run/pybuild")
    runtime = settings.environ.get("XDG_RUNTIME_DIR")
    return Path(runtime) / "pybuild" if runtime else settings.root / "run"


def touch_running(settings: Settings, store: Store) -> None:
    """Note that the layers of running containers are in use, also where their image is gone: a sweep leaves them then.

    Called between plan and sweep, it misses none: a container that is not recorded yet has its layers under a lease.
    """
    from layerstore.digest import DiffId  # noqa: PLC0415

    for container in containers_of(settings).all():
        if container.state().claimed:
            for text in container.config.layers:
                store.layers.find(DiffId.parse(text))

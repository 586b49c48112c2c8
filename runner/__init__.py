"""Runs containers: a root filesystem and a specification in, an exit status out.

Knows Linux; knows neither Dockerfiles nor images. Names are loaded when they are first used: the launcher imports
modules of this package without any of the caller's side.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from runner.errors import LauncherError, RunnerError, SetupError, SpecError, UnsupportedError
    from runner.launch import ExitStatus, Launcher, Process
    from runner.spec import (
        AnyMount,
        ConsoleSize,
        Device,
        Directory,
        FileMount,
        HostNetwork,
        JoinNetwork,
        Mount,
        NoNetwork,
        Overlay,
        OverlayMount,
        ProcessSpec,
        Rlimit,
        Seccomp,
        Spec,
        User,
        default_mounts,
        privileged,
    )

__all__ = [
    "AnyMount",
    "ConsoleSize",
    "Device",
    "Directory",
    "ExitStatus",
    "FileMount",
    "HostNetwork",
    "JoinNetwork",
    "Launcher",
    "LauncherError",
    "Mount",
    "NoNetwork",
    "Overlay",
    "OverlayMount",
    "Process",
    "ProcessSpec",
    "Rlimit",
    "RunnerError",
    "Seccomp",
    "SetupError",
    "Spec",
    "SpecError",
    "UnsupportedError",
    "User",
    "default_mounts",
    "privileged",
]

_HOME = {
    **dict.fromkeys(("LauncherError", "RunnerError", "SetupError", "SpecError", "UnsupportedError"), "errors"),
    **dict.fromkeys(("ExitStatus", "Launcher", "Process"), "launch"),
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  (see above: nothing is loaded before it is used)

    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'spec')}"), name)
    globals()[name] = value
    return value

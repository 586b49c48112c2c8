"""The errors of the runner; it knows what failed and the next action, not how that is shown.

RunnerError
├── SpecError          a specification that contradicts itself or asks for what does not exist
├── DeviceError        a device of the host (CDI) that is not there or cannot be given
├── SetupError         the container could not be made: which stage, which errno, which path
├── LauncherError      the process that makes containers is gone or does not answer
└── UnsupportedError   the kernel or the host lacks something the specification needs
"""

from __future__ import annotations

import errno as errnos
import os


class RunnerError(Exception):
    """Catch this for everything running a container can fail with; `hint` is the next action, may be empty."""

    exit_code = 125

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class SpecError(RunnerError):
    """A specification that contradicts itself; nothing was started."""


class DeviceError(RunnerError):
    """A device of the host (CDI) that is not there, or that needs what is not supported."""


class LauncherError(RunnerError):
    """The launcher ended or does not answer; its containers ended with it."""


class UnsupportedError(RunnerError):
    """The kernel or the host lacks something the specification needs."""


class SetupError(RunnerError):
    """The container could not be made.

    `stage` is the step of the fixed order in which it failed (see `runner/child.py`), `errno` the kernel's answer (0 if
    it was not the kernel that refused), `path` what it was about, may be empty. `exit_status` is what docker answers:
    127 for a program that does not exist, 126 for one that cannot be executed, 125 for everything else.
    """

    def __init__(self, stage: str, errno: int, path: str, text: str = "") -> None:
        self.stage = stage
        self.errno = errno
        self.path = path
        reason = text or os.strerror(errno)
        message = f"{stage}: {path}: {reason}" if path else f"{stage}: {reason}"
        if stage == "exec" and errno == errnos.ENOENT:
            message = f"exec: {path}: no such program in the image, or its interpreter is missing"
        super().__init__(message, hint=_hint(stage, errno))

    @property
    def exit_status(self) -> int:
        """The status a docker user expects: 127, 126 or 125."""
        if self.stage == "exec":
            return 127 if self.errno == errnos.ENOENT else 126
        return 126 if self.stage == "cwd" else self.exit_code


def _hint(stage: str, errno: int) -> str:
    match stage, errno:
        case "exec", errnos.ENOENT:
            return "check the spelling, the image's PATH, and the #! line of a script"
        case "exec", errnos.EACCES:
            return "make it executable for the container's user, for instance with COPY --chmod=755"
        case "exec", errnos.ENOEXEC:
            return "it has no #! line, or was built for another architecture"
        case "cwd", _:
            return "make the working directory first, for instance with WORKDIR"
        case _, errnos.EPERM if stage in {"namespaces", "mounts", "rootfs"}:
            return "run as root with CAP_SYS_ADMIN; `pybuild doctor` shows what this host allows"
        case _, errnos.ENOSYS:
            return "this kernel is too old: Linux 5.12 or later is needed"
        case _, errnos.ENOSPC if stage == "namespaces":
            return "raise /proc/sys/user/max_*_namespaces"
        case _, errnos.ENOSPC:
            return "free some disk space"
    return ""

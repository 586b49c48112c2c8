"""What the figures were taken on: processor, memory, kernel, file system, versions of the programs, and the day."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path


def describe(file_system: str = "") -> Mapping[str, str]:
    """The machine, in words by name; `file_system` is what the stores are on, where there are stores."""
    found = {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{_field('/proc/cpuinfo', 'model name') or platform.machine()}, {_cores()}",
        "memory": f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 2**20:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "file system": file_system,
        "python": platform.python_version(),
    }
    return {name: value for name, value in found.items() if value}


def _cores() -> str:
    number = len(os.sched_getaffinity(0))
    return f"{number} core{'s' if number > 1 else ''}"


def _field(path: str, name: str) -> str:
    """The value of the first line that begins with this name."""
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"

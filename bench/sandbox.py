"""A place for measurements: a directory and namespaces of its own, which take everything with them when they end.

Knows namespaces and control groups; nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

_INSIDE = "PYBUILD_BENCH_PLACE"
_NEEDED = ("unshare", "setpriv")
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 0x1, 0x40
_GROUPS = Path("/sys/fs/cgroup")


def inside(module: str, words: Sequence[str], *, parent: Path) -> Path | int:
    """Return the directory to work in, if this is the process inside; otherwise start that one and return its status.

    The process inside runs `python -m MODULE WORDS` as process 1 of its own pid, mount and network namespaces, so that
    daemons, mounts and bridges end with it, even if it is killed. Its directory, made in `parent`, is removed then.
    SystemExit with a message where that is impossible.
    """
    place = os.environ.pop(_INSIDE, "")
    if place:
        _settle_in()
        return Path(place)
    missing = [name for name in _NEEDED if shutil.which(name) is None]
    if os.geteuid() != 0 or missing:
        raise SystemExit(f"benchmarks need root{' and ' if missing else ''}{' and '.join(missing)}")
    import tempfile  # noqa: PLC0415 - the process inside stays small: what it takes, what it starts seems to take

    groups = set(_top_groups())
    place = tempfile.mkdtemp(prefix="pybuild-bench-", dir=parent)
    try:
        return _run([sys.executable, "-m", module, *words], place)
    finally:
        _remove(place)
        for group in set(_top_groups()) - groups:
            _remove_empty(group)


def spread(directory: Path) -> None:
    """Make a directory, if it is not there, whose directories ext4 puts in different places of the disk.

    What is deleted in one of them does then not slow down the others, see `Floor.commands`. Other file systems know no
    such attribute and need none.
    """
    directory.mkdir(exist_ok=True)
    subprocess.run(["chattr", "+T", str(directory)], stderr=subprocess.DEVNULL, check=False)


def _run(argv: Sequence[str], place: str) -> int:
    """Run a program in new namespaces, killed if this process is, and return its exit status."""
    namespaces = ("--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc", "--net")
    command = ["setpriv", "--pdeathsig", "KILL", "unshare", *namespaces, *argv]
    with subprocess.Popen(command, env={**os.environ, _INSIDE: place}) as process:

        def stop(_number: int, _frame: FrameType | None) -> None:
            # unshare ends after its child, and that one, process 1, after everything inside
            for pid in _children(process.pid) or [process.pid]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

        before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        try:
            return process.wait()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _children(pid: int) -> list[int]:
    """The children of a process that has one thread (proc_pid_children(5)); none if it is gone."""
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _settle_in() -> None:
    """Give the new network namespace its loopback device."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP | _IFF_RUNNING))


def _remove(place: str) -> None:
    """Remove the directory; the mounts below it went with their namespace, and nothing is removed if any did not."""
    with open("/proc/self/mountinfo") as table:
        if any(line.split()[4].startswith(f"{place}/") for line in table):
            print(f"left as it is, because something is mounted there: {place}", file=sys.stderr)
            return
    shutil.rmtree(place)


def _top_groups() -> list[Path]:
    """The control groups right below the root of every hierarchy."""
    roots = [_GROUPS, *(path for path in _GROUPS.iterdir() if path.is_dir())] if _GROUPS.is_dir() else []
    return [path for root in roots if (root / "cgroup.procs").exists() for path in root.iterdir() if path.is_dir()]


def _remove_empty(group: Path) -> None:
    """Remove a control group and those in it, as far as nobody is in them: the kernel refuses the others."""
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)

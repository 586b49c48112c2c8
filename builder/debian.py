"""A minimal Debian in a directory: installed by mmdebstrap or debootstrap, then cleaned of what differs each time.

Knows the two programs and what they leave behind; knows nothing of images.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

from builder.errors import BuildError, UsageError

MIRROR = "http://deb.debian.org/debian"
_NAME = re.compile(r"[a-z0-9][a-z0-9.+-]*\Z")
_TAIL = 15
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"

_LEFTOVERS = (
    "etc/hostname",
    "etc/resolv.conf",
    "var/cache/apt/archives/*.deb",
    "var/cache/apt/*.bin",
    "var/cache/debconf/*-old",
    "var/cache/ldconfig/aux-cache",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/*-old",
    "var/log/*.log",
    "var/log/apt/*",
)
"""What an installation leaves behind that an image does not need, or that differs each time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debian:
    """What to install: `suite` such as bookworm, `include` more packages, from `mirror`."""

    suite: str
    include: tuple[str, ...] = ()
    mirror: str = MIRROR

    def check(self) -> None:
        """Raise UsageError if a name could be taken for an option or a list."""
        for what, names in (("suite", (self.suite,)), ("package", self.include)):
            for name in names:
                if not _NAME.match(name):
                    raise UsageError(f"{name!r} is no name of a {what}", hint="names are lower-case letters and digits")
        if not re.match(r"(https?|file|copy)://?[^\s|;]+\Z", self.mirror):
            raise UsageError(f"{self.mirror!r} is no mirror", hint=f"give an address such as {MIRROR}")

    @property
    def description(self) -> str:
        """What was done, for the image's history; equal for equal wishes, whichever program does it."""
        include = f" --include={','.join(sorted(self.include))}" if self.include else ""
        return f"debootstrap --variant=minbase{include} {self.suite} / {self.mirror}"


def default_suite(os_release: str) -> str:
    """Return the suite of the host, where it is a Debian, from the text of /etc/os-release; else `stable`."""
    values = dict(line.split("=", 1) for line in os_release.splitlines() if "=" in line)
    values = {key: value.strip("\"'") for key, value in values.items()}
    return values.get("VERSION_CODENAME", "stable") if values.get("ID") == "debian" else "stable"


def install(wish: Debian, root: str, *, environ: Mapping[str, str], say: Callable[[str], None]) -> int:
    """Install into the empty directory `root`; return the time of the packages' index (seconds since the epoch).

    `environ` is the environment of the host, of which the programs get proxies and PATH; `say` takes their output line
    by line. Raises BuildError if neither program is there, or if it fails; `root` is to be thrown away then.
    """
    wish.check()
    _run(_command(wish, root, environ), environ, say)
    epoch = _release_time(root)
    _clean(root)
    _clamp(root, epoch)
    return epoch


def _command(wish: Debian, root: str, environ: Mapping[str, str]) -> list[str]:
    include = [f"--include={','.join(sorted(wish.include))}"] if wish.include else []
    search = environ.get("PATH", _PATH)
    if shutil.which("mmdebstrap", path=search):
        program = ["mmdebstrap", "--mode=root", "--format=directory", "--variant=minbase", "--skip=output/dev"]
    elif shutil.which("debootstrap", path=search):
        program = ["debootstrap", "--variant=minbase"]
    else:
        raise BuildError(
            "this machine has neither debootstrap nor mmdebstrap",
            hint="install one: apt-get install debootstrap",
        )
    # They mount /proc and /sys below the new root; in a mount namespace of their own nothing of it can stay behind.
    return ["unshare", "--mount", "--propagation=private", "--", *program, *include, wish.suite, root, wish.mirror]


def _run(command: list[str], environ: Mapping[str, str], say: Callable[[str], None]) -> None:
    keep = {key: value for key, value in environ.items() if key == "PATH" or key.lower().endswith("_proxy")}
    keep = {"PATH": _PATH, **keep, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    tail: list[str] = []
    try:
        # In a session of its own a Ctrl-C reaches us alone, and everything it started can be ended together.
        process = subprocess.Popen(
            command,
            env=keep,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            text=True,
            errors="replace",
        )
    except FileNotFoundError as error:
        raise BuildError(
            f"this machine has no {error.filename}", hint="install it: apt-get install util-linux"
        ) from None
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                tail = [*tail[1 - _TAIL :], line.rstrip()]
                say(line.rstrip())
            status = process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if status:
        reason = next((line for line in reversed(tail) if line.startswith(("E:", "W:"))), tail[-1] if tail else "")
        raise BuildError(
            f"{command[4]} ended with status {status}: {reason}",
            hint="is the mirror reachable, and does it have this suite? --mirror names another one",
        )


def _release_time(root: str) -> int:
    """Return the date of the package index that was installed from, or of the newest package where it is gone."""
    for path in sorted(glob.glob(os.path.join(glob.escape(root), "var/lib/apt/lists/*Release"))):
        with open(path, encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("Date:"):
                    return int(parsedate_to_datetime(line[5:].strip()).timestamp())
    lists = glob.glob(os.path.join(glob.escape(root), "var/lib/dpkg/info/*.list"))
    return int(max(os.stat(path).st_mtime for path in lists)) if lists else 0


def _clean(root: str) -> None:
    for pattern in _LEFTOVERS:
        for path in glob.glob(os.path.join(glob.escape(root), pattern)):
            if os.path.isdir(path) and not os.path.islink(path):
                shutil.rmtree(path)
            else:
                os.unlink(path)
    # An empty machine-id is made unique when a system boots for the first time (machine-id(5)).
    with open(os.path.join(root, "etc/machine-id"), "wb"):
        pass
    # Device nodes come with the container.
    for entry in os.scandir(os.path.join(root, "dev")):
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.path)


def _clamp(root: str, epoch: int) -> None:
    """Give everything that the installation itself wrote the time of the index it was made from."""
    limit = epoch * 1_000_000_000
    for folder, names, files in os.walk(root, topdown=False):
        for path in [os.path.join(folder, name) for name in (*files, *names)] + ([folder] if folder == root else []):
            status = os.lstat(path)
            if status.st_mtime_ns > limit or stat.S_ISDIR(status.st_mode):
                os.utime(path, ns=(limit, limit), follow_symlinks=False)

"""Base images from what this machine has, for places where no registry can be reached.

Two kinds: a static busybox, and programs of this machine with their libraries; both are pure functions of the files
they are made of. The third, a Debian, is in `builder/debian.py`.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from builder.elf import Elf
from builder.errors import BuildError
from builder.hostroot import SEARCH_PATH, collect, merged
from builder.image import DEFAULT_PATH, timestamp
from layerstore.digest import DiffId
from layerstore.entry import Entry, Inline, Kind

if TYPE_CHECKING:
    from layerstore import Store
    from layerstore.images import Image
    from layerstore.platforms import Platform

PASSWD = b"""\
root:x:0:0:root:/root:/bin/sh
daemon:x:1:1:daemon:/usr/sbin:/bin/false
bin:x:2:2:bin:/bin:/bin/false
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
"""
GROUP = b"""\
root:x:0:
daemon:x:1:
bin:x:2:
www-data:x:33:
nogroup:x:65534:
"""
SKELETON: Mapping[bytes, int] = {
    b"dev": 0o755,
    b"etc": 0o755,
    b"home": 0o755,
    b"proc": 0o755,
    b"root": 0o700,
    b"sys": 0o755,
    b"tmp": 0o1777,
    b"var": 0o755,
}
"""The directories that every base image has, with their modes."""


def busybox(program: str = "busybox") -> tuple[list[Entry], int]:
    """Return the entries of a root file system around a static busybox, and the time they have (seconds).

    `program` is looked up on the machine. Raises BuildError if it is missing or not static.
    """
    path = _find(program)
    if path is None:
        raise BuildError(f"this machine has no {program}", hint="install one: apt-get install busybox-static")
    elf = Elf.read(path)
    if elf is None or elf.interpreter:
        raise BuildError(
            f"{os.fsdecode(path)} needs shared libraries, which the image will not have",
            hint="install a static one: apt-get install busybox-static",
        )
    status = os.stat(path)
    seconds = int(status.st_mtime)
    entries = [
        *_skeleton(),
        *(Entry(name, Kind.DIR, 0o755) for name in (b"bin", b"sbin", b"usr", b"usr/bin", b"usr/sbin")),
        Entry(b"bin/busybox", Kind.FILE, 0o755, size=status.st_size, source=path),
        *(Entry(b"bin/" + name, Kind.SYMLINK, 0o777, target=b"busybox") for name in _applets(path)),
        # Scripts begin with #!/usr/bin/env.
        Entry(b"usr/bin/env", Kind.SYMLINK, 0o777, target=b"/bin/env"),
    ]
    return [entry._replace(mtime_ns=seconds * 1_000_000_000) for entry in merged(entries)], seconds


def host(programs: Sequence[str]) -> tuple[list[Entry], int]:
    """Return the entries of programs of this machine and what they need, and the time of the newest file (seconds).

    `programs` are names, or paths of files and directories; a useful default if empty. Raises BuildError.
    """
    entries = merged(_skeleton(), collect(programs))
    newest = max(entry.mtime_ns for entry in entries) // 1_000_000_000
    # A directory's time says when something was installed on the host, which is no property of what is in the image.
    moment = newest * 1_000_000_000
    return [entry._replace(mtime_ns=moment) if entry.kind is Kind.DIR else entry for entry in entries], newest


def put_image(
    store: Store,
    layer: DiffId,
    names: Sequence[str],
    *,
    platform: Platform,
    command: str,
    created: int,
    created_by: str,
) -> Image:
    """Keep an image of one layer; `created` is in seconds since the epoch, `names` are canonical."""
    moment = timestamp(created * 1_000_000_000)
    document = {
        "architecture": platform.architecture,
        **({"variant": platform.variant} if platform.variant else {}),
        "config": {"ArgsEscaped": True, "Cmd": [command], "Env": [f"PATH={DEFAULT_PATH}"], "WorkingDir": "/"},
        "created": moment,
        "history": [{"created": moment, "created_by": created_by, "comment": "pybuild base"}],
        "os": platform.os,
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    }
    config = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    return store.images.put(config, layers=[layer], names=names)


def _skeleton() -> list[Entry]:
    return [
        Entry(b"", Kind.DIR, 0o755),
        *(Entry(name, Kind.DIR, mode) for name, mode in SKELETON.items()),
        Entry(b"etc/passwd", Kind.FILE, size=len(PASSWD), source=Inline(PASSWD)),
        Entry(b"etc/group", Kind.FILE, size=len(GROUP), source=Inline(GROUP)),
    ]


def _find(program: str) -> bytes | None:
    name = os.fsencode(program)
    for candidate in [name] if b"/" in name else [os.path.join(directory, name) for directory in SEARCH_PATH]:
        if os.path.isfile(candidate) and stat.S_IMODE(os.stat(candidate).st_mode) & 0o111:
            return os.path.abspath(candidate)
    return None


def _applets(path: bytes) -> list[bytes]:
    """Ask a busybox what it can do; itself is no applet that needs a link."""
    try:
        listed = subprocess.run([path, "--list"], stdin=subprocess.DEVNULL, capture_output=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        raise BuildError(f"{os.fsdecode(path)} does not list its applets: {error}") from None
    return sorted(set(listed.split()) - {b"busybox"})
